"""Any transformers causal language model on this machine, made fast for what promptmii does with it.

`choose` computes the common beginning of a batch once and everything else in packed rows (`models/packing.py`).
`generate` decodes with its own loop: equal chats share one prefill, finished rows leave the batch.
"""

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptmii.errors import MissingDependencyError, UnknownModelError
from promptmii.models.base import Chat, Choice, Completion, Failure, FailureKind, ModelCard, Sampling, Usage

try:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

    from promptmii.models import packing
except ImportError as error:
    raise MissingDependencyError("Local models (smol, hf:)", "local") from error

ROW_TOKENS = 4096
"""Tokens of one packed row or one prefill batch: enough to keep the processor busy, little enough for its memory."""
LOGITS = 2**26
"""Logits held at a time (positions times vocabulary)."""
DECODE_ROWS = 64


@dataclass
class _Prefix:
    """The last common beginning, so that a second batch under the same instruction starts where the first one did."""

    tokens: tuple[int, ...]
    cache: Any


class LocalModel:
    """A causal language model in this process. Calls from several threads take turns."""

    def __init__(self, reference: str, model: Any, tokenizer: Any, revision: str) -> None:
        """`model` and `tokenizer` as transformers loads them, the model with `attn_implementation=packing.IMPLEMENTATION`."""
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._prefix = _Prefix((), DynamicCache(config=model.config))
        self._special = sorted({str(token) for token in tokenizer.get_added_vocab()}, key=len, reverse=True)
        self._ends = self._end_tokens()
        context = int(model.config.max_position_embeddings)
        self._card = ModelCard(reference, revision, context, gives_scores=True)

    @classmethod
    def load(cls, reference: str, name: str, adapter: str | None = None) -> "LocalModel":
        """Load a folder or a hub id, with an optional LoRA adapter folder merged in. Raises `UnknownModelError`."""
        packing.register()
        device = torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=best_dtype(device), attn_implementation=packing.IMPLEMENTATION)
            if adapter:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, adapter).merge_and_unload()  # pyright: ignore[reportCallIssue]
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UnknownModelError(f"{reference} cannot be loaded: {reason} Expected a hub id or a folder with config.json.") from error
        model.to(device)
        return cls(reference, model, tokenizer, _revision(model, tokenizer, name, adapter))

    @property
    def card(self) -> ModelCard:
        """See `LanguageModel`."""
        return self._card

    @property
    def model(self) -> Any:
        """The transformers model, for training."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self._tokenizer

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `LanguageModel`."""
        return [len(ids) for ids in self._encode(texts)] if texts else []

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """See `LanguageModel`; always with scores."""
        if not chats:
            return []
        with self._lock, torch.inference_mode():
            prompts = self._prompts(chats)
            trie = packing.Trie.build(self._encode(options), self._ends[0])
            room = self._card.context_length - max(trie.depth) - 1
            fitting = [i for i, prompt in enumerate(prompts) if len(prompt) <= room]
            results: list[Choice | Failure] = [self._too_long(prompt) for prompt in prompts]
            if fitting:
                prefix = self._share([prompts[i] for i in fitting])
                rests = [prompts[i][prefix:] for i in fitting]
                for first, i, scores in zip(range(len(fitting)), fitting, self._score(rests, trie, prefix), strict=True):
                    usage = Usage(calls=1, prompt_tokens=len(prompts[i]), cached_tokens=prefix if first else 0)
                    results[i] = Choice(max(range(len(scores)), key=scores.__getitem__), scores, usage)
            return results

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """See `LanguageModel`."""
        with self._lock, torch.inference_mode():
            prompts = self._prompts(chats) if chats else []
            results: list[Completion | Failure] = [self._too_long(prompt) for prompt in prompts]
            room = self._card.context_length - sampling.max_tokens
            fitting = [i for i, prompt in enumerate(prompts) if len(prompt) <= room]
            seeds = _seeds([prompts[i] for i in fitting], sampling.seed)
            for chunk in packing.chunks([len(prompts[i]) for i in fitting], ROW_TOKENS * 4):
                for start in range(0, len(chunk), DECODE_ROWS):
                    rows = chunk[start : start + DECODE_ROWS]
                    answers = self._decode([prompts[fitting[r]] for r in rows], [seeds[r] for r in rows], sampling)
                    for r, answer in zip(rows, answers, strict=True):
                        results[fitting[r]] = self._completion(prompts[fitting[r]], answer)
            return results

    # -- prompts

    def _prompts(self, chats: Sequence[Chat]) -> list[list[int]]:
        """Token ids of the rendered chats, the opening of the answer included. Contents cannot bring in control tokens."""
        return self._encode([self._render(chat) for chat in chats])

    def _render(self, chat: Chat) -> str:
        messages = [{"role": message["role"], "content": self._defuse(message["content"])} for message in chat]
        if self._tokenizer.chat_template is None:
            return "\n\n".join(message["content"] for message in messages) + "\n"
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _defuse(self, content: str) -> str:
        """`content` with every special token of this tokenizer broken by a space."""
        for token in self._special:
            if token in content and token.strip():
                content = content.replace(token, f"{token[0]} {token[1:]}")
        return content

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def _end_tokens(self) -> list[int]:
        """Tokens that close an answer, the template's own first."""
        configured = self._model.generation_config.eos_token_id
        ends = [self._tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])]
        known = list(dict.fromkeys(int(end) for end in ends if end is not None))
        if not known:
            raise UnknownModelError("The tokenizer names no end-of-text token; add eos_token to tokenizer_config.json.")
        return known

    def _too_long(self, prompt: Sequence[int]) -> Failure:
        return Failure(
            FailureKind.CONTEXT, f"{len(prompt)} prompt tokens and the answer do not fit the context of {self._card.context_length}."
        )

    # -- choosing

    def _share(self, prompts: Sequence[Sequence[int]]) -> int:
        """Put the common beginning of the prompts into the cache and return its length; every prompt keeps a token of its own."""
        low, high = min(prompts), max(prompts)
        limit = min(len(prompt) for prompt in prompts) - 1
        length = next((i for i in range(limit) if low[i] != high[i]), limit)
        tokens = tuple(low[:length])
        if self._prefix.tokens[:length] == tokens and len(self._prefix.tokens) - length < 64:
            if excess := len(self._prefix.tokens) - length:
                self._prefix.cache.crop(-excess)
        else:
            self._prefix = _Prefix((), DynamicCache(config=self._model.config))
            if tokens:
                self._model.model(input_ids=self._row(tokens), past_key_values=self._prefix.cache, use_cache=True)
        self._prefix.tokens = tokens
        return length

    def _score(self, rests: Sequence[Sequence[int]], trie: packing.Trie, prefix: int) -> list[tuple[float, ...]]:
        """Per query, `log P(option + end)` of every option."""
        nodes = len(trie.tokens)
        budget = min(ROW_TOKENS, max(1, LOGITS // self._model.config.vocab_size) * (1 + min(map(len, rests)) // (nodes + 1)))
        results: list[tuple[float, ...]] = [()] * len(rests)
        for chunk in packing.chunks([len(rest) + nodes for rest in rests], budget):
            packed = packing.pack([rests[i] for i in chunk], trie, prefix, self._model.device)
            for i, scores in zip(chunk, self._forward(packed, trie), strict=True):
                results[i] = tuple(scores)
        return results

    def _forward(self, packed: packing.Packed, trie: packing.Trie) -> list[list[float]]:
        # Needed logits: of each query's last token, then of each tree node.
        offsets = range(-1, len(trie.tokens))
        keep = torch.tensor(
            [s + q + o for s, q in zip(packed.starts, packed.queries, strict=True) for o in offsets], device=packed.tokens.device
        )
        mask = torch.zeros(1, 1, 1, 1, device=packed.tokens.device)  # four dimensions: transformers builds none of its own
        logits = self._model(
            input_ids=packed.tokens,
            position_ids=packed.positions,
            attention_mask=mask,
            past_key_values=self._prefix.cache,
            use_cache=True,
            logits_to_keep=keep,
            packed=packed,
        ).logits[0]
        self._prefix.cache.crop(-packed.tokens.shape[1])
        table = logits.view(len(packed.starts), len(offsets), -1)
        pairs = [pair for option in trie.steps for pair in option]
        node = torch.tensor([n + 1 for n, _ in pairs], device=table.device)
        token = torch.tensor([t for _, t in pairs], device=table.device)
        norm = torch.logsumexp(table.float(), dim=-1)
        terms = table[:, node, token].float() - norm[:, node]
        owner = torch.tensor([o for o, option in enumerate(trie.steps) for _ in option], device=table.device)
        scores = torch.zeros(len(packed.starts), len(trie.steps), device=table.device).index_add_(1, owner, terms)
        return scores.tolist()

    # -- writing

    def _decode(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[list[int]]:
        """New token ids per prompt, the end token included where one was reached."""
        same = all(prompt == prompts[0] for prompt in prompts)
        cache = DynamicCache(config=self._model.config)
        width = max(map(len, prompts))
        shown = prompts[:1] if same else prompts
        ids = torch.tensor([[self._ends[0]] * (width - len(p)) + list(p) for p in shown], device=self._model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._model.device)
        positions = (mask[: len(shown)].cumsum(-1) - 1).clamp(min=0)
        padded = None if same else mask
        logits = self._step(ids, padded, positions, cache)
        if same and len(prompts) > 1:
            cache.batch_repeat_interleave(len(prompts))
            logits = logits.expand(len(prompts), -1)
        draw = _Draw(seeds, sampling)
        written: list[list[int]] = [[] for _ in prompts]
        alive = list(range(len(prompts)))
        lengths = [len(p) for p in prompts]
        for _ in range(sampling.max_tokens):
            tokens = draw(logits, alive)
            for row, token in zip(alive, tokens, strict=True):
                written[row].append(token)
            going = [slot for slot, token in enumerate(tokens) if token not in self._ends]
            if not going or len(written[alive[0]]) == sampling.max_tokens:
                break
            if len(going) < len(alive):
                keep = torch.tensor(going, device=mask.device)
                cache.batch_select_indices(keep)
                mask = mask[keep]
                alive = [alive[slot] for slot in going]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            ids = torch.tensor([[written[row][-1]] for row in alive], device=mask.device)
            positions = torch.tensor([[lengths[row] + len(written[row]) - 1] for row in alive], device=mask.device)
            logits = self._step(ids, None if same else mask, positions, cache)
        return written

    def _step(self, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor, cache: Any) -> torch.Tensor:
        """Logits of the last position, shape (B, V)."""
        out = self._model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return out.logits[:, -1].float()

    def _completion(self, prompt: Sequence[int], answer: Sequence[int]) -> Completion:
        ended = bool(answer) and answer[-1] in self._ends
        text = self._tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        usage = Usage(calls=1, prompt_tokens=len(prompt), completion_tokens=len(answer))
        return Completion(text, truncated=not ended, usage=usage)

    def _row(self, tokens: Iterable[int]) -> torch.Tensor:
        return torch.tensor([list(tokens)], device=self._model.device)


class _Draw:
    """Picks next tokens: greedy, or with one random stream per row, so that a sample does not depend on its neighbours."""

    def __init__(self, seeds: Sequence[int], sampling: Sampling) -> None:
        self._sampling = sampling
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds] if sampling.temperature > 0 else []

    def __call__(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        if self._sampling.temperature <= 0:
            return logits.argmax(-1).tolist()
        p = torch.softmax(logits / self._sampling.temperature, dim=-1).cpu()
        if self._sampling.top_p < 1:
            ordered, order = p.sort(dim=-1, descending=True)
            ordered[ordered.cumsum(-1) - ordered >= self._sampling.top_p] = 0
            p = torch.zeros_like(p).scatter_(-1, order, ordered)
        return [int(torch.multinomial(p[slot], 1, generator=self._streams[row])) for slot, row in enumerate(rows)]


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively, float32 elsewhere (there bfloat16 is emulated and slower)."""
    if device.type in ("cuda", "mps"):
        return torch.bfloat16
    native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native and _has_bf16_instructions() else torch.float32


def _has_bf16_instructions() -> bool:
    flags = Path("/proc/cpuinfo")
    text = flags.read_text(encoding="utf-8", errors="replace") if flags.exists() else ""
    return "avx512_bf16" in text or "amx_bf16" in text or " bf16" in text


def _seeds(prompts: Sequence[Sequence[int]], seed: int) -> list[int]:
    """A random stream for each prompt: the same for the same prompt, seed and ordinal among equal prompts."""
    seen: dict[tuple[int, ...], int] = {}
    seeds: list[int] = []
    for prompt in map(tuple, prompts):
        ordinal = seen.get(prompt, 0)
        seen[prompt] = ordinal + 1
        digest = hashlib.sha256(repr((seed, ordinal, prompt)).encode()).digest()
        seeds.append(int.from_bytes(digest[:8], "big") >> 1)
    return seeds


def _revision(model: Any, tokenizer: Any, name: str, adapter: str | None) -> str:
    """Hub commit where there is one, else a hash over the folder's files (large ones by size, beginning and end), and the chat template."""
    digest = hashlib.sha256(str(tokenizer.chat_template).encode())
    commit = getattr(model.config, "_commit_hash", None)
    digest.update(str(commit).encode())
    for folder in (name, adapter):
        if folder and Path(folder).is_dir():
            for path in sorted(Path(folder).iterdir()):
                if path.suffix in (".json", ".safetensors", ".jinja", ".model") and path.is_file():
                    digest.update(path.name.encode())
                    digest.update(_fingerprint(path))
    return digest.hexdigest()[:16]


def _fingerprint(path: Path, edge: int = 1 << 20) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(edge)
        file.seek(max(size - edge, 0))
        return hashlib.sha256(size.to_bytes(8, "big") + head + file.read(edge)).digest()
