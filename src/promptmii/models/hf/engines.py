"""Two ways to run a causal language model: packed rows where its attention allows that, plain passes elsewhere."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from promptmii.models.base import Sampling
from promptmii.models.batching import Tokens, Trie, chunks, common, prefix_groups
from promptmii.models.hf.decoding import DecodingCache, Suffix, TorchSampler, few_rows
from promptmii.models.hf.packing import (
    CPU,
    IMPLEMENTATION,
    NO_OPTIONS,
    Attention,
    Forest,
    RecordedRow,
    pack,
    register,
    sizes,
)
from promptmii.models.hf.prefixes import NO_PREFIX, Prefix, Prefixes
from promptmii.models.local import Engine, Likelihoods
from promptmii.progress import token_written


def engine_for(model: Any) -> Engine:
    """Packed where every layer attends to everything before it through transformers' attention interface."""
    config: dict[str, Any] = model.config.get_text_config().to_dict()
    window = config.get("sliding_window")
    whole = window is None or window >= config["max_position_embeddings"]
    full = whole and set(config.get("layer_types") or ()) <= {"full_attention", "sliding_attention"}
    if model._supports_attention_backend and full and config.get("attn_logit_softcapping") is None:
        register()
        model.set_attn_implementation(IMPLEMENTATION)
        return PackedEngine(model)
    if config.get("attn_logit_softcapping") is not None:
        model.set_attn_implementation("eager")  # the only one that bends the scores as these models were trained
    return PlainEngine(model)


class PackedEngine(Engine):
    """Shared beginnings once, the rest in rows without padding."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._sizes = sizes(model.device)
        text = model.config.get_text_config()
        self._vocabulary = int(text.vocab_size)
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        held = 2 * text.num_hidden_layers * text.num_key_value_heads * width * model.dtype.itemsize
        self._held = max(1, self._sizes.decode_memory // held)
        """Tokens that fit the memory for decoding."""
        self._prefixes = Prefixes(model)

    @torch.inference_mode()
    def score(self, prompts: Sequence[Tokens], options: Sequence[Tokens], end: int) -> list[Likelihoods]:
        trie = Trie.build(options, end)
        nodes = len(trie.tokens)
        # A block may count as longer than it is, so that the logits of a row stay in bounds too.
        least = (nodes + 1) * self._vocabulary * self._sizes.row // self._sizes.logits
        results = [Likelihoods()] * len(prompts)
        for row in _rows(prompts, lambda length: max(length + nodes, least), self._sizes.row):
            prefixes = self._prefixes_of([prompts[blocks.members[0]][: blocks.shared] for blocks in row])
            packed = Forest(
                [
                    pack([prompts[i][blocks.shared :] for i in blocks.members], trie, prefix, self._model.device)
                    for blocks, prefix in zip(row, prefixes, strict=True)
                ]
            )
            logits = self._forward(packed.tokens, packed.positions, packed, packed.readout)
            scores = iter(path_scores(logits.view(-1, nodes + 1, logits.shape[-1]), trie).tolist())
            for blocks in row:
                for i in blocks.members:
                    results[i] = Likelihoods(tuple(next(scores)), blocks.shared if i != blocks.first else 0)
        return results

    def _prefixes_of(self, wanted: Sequence[Tokens]) -> list[Prefix]:
        """Keys and values of each; several are computed in as few passes as a row has room for."""
        distinct = [tokens for tokens in dict.fromkeys(map(tuple, wanted)) if tokens]
        if len(distinct) < 2:
            return [self._prefixes.get(tokens) for tokens in wanted]
        base = self._prefixes.get(distinct[0][: min(common(distinct), min(map(len, distinct)) - 1)])
        prefixes: dict[tuple[int, ...], Prefix] = {(): NO_PREFIX}
        for tokens, (_, rest) in zip(distinct, self._prefill(base, distinct), strict=True):
            before = zip(base.keys, base.values, strict=True) if base.tokens else [()] * len(rest)
            layers = [_joined(*pair) for pair in zip(before, rest, strict=True)]
            prefixes[tokens] = Prefix(tokens, *(tuple(layer[side] for layer in layers) for side in (0, 1)))
        return [prefixes[tuple(tokens)] for tokens in wanted]

    @torch.inference_mode()
    def write(
        self, prompts: Sequence[Tokens], rows: Sequence[int], sampling: Sampling, ends: Tokens, against: Tokens = ()
    ) -> list[list[int]]:
        sampler, limit = TorchSampler([prompts[i] for i in rows], sampling, ends), sampling.max_tokens
        second = len(against) + limit if against else 0
        written: list[list[int]] = [[] for _ in rows]
        for batch in chunks([len(prompts[i]) + limit + second for i in rows], self._held, self._sizes.decode_rows):
            used = sorted({rows[slot] for slot in batch})
            owners = [used.index(rows[slot]) for slot in batch]
            texts = self._decode([prompts[i] for i in used], owners, sampler, batch, against)
            for slot, tokens in zip(batch, texts, strict=True):
                written[slot] = tokens
        return written

    def _decode(
        self,
        prompts: Sequence[Tokens],
        owners: Sequence[int],
        sampler: TorchSampler,
        streams: Sequence[int],
        against: Tokens,
    ) -> list[list[int]]:
        """The text of each row. With a contrast there are twice as many rows; the second half reads the same tokens."""
        halves, limit = 2 if against else 1, sampler.sampling.max_tokens
        read = [*prompts, against] if against else prompts
        readers = [*owners, *[len(prompts)] * len(owners)] if against else owners
        shared = min(min(map(len, read)) - 1, common(read))
        prefix = self._prefixes.get(read[0][:shared])
        filled = self._prefill(prefix, read)
        logits = torch.stack([logits for logits, _ in filled])[readers]
        cache = DecodingCache(prefix, [rest for _, rest in filled], readers)
        alive = list(range(len(owners)))
        written: list[list[int]] = [[] for _ in owners]
        for step in range(limit):
            tokens = sampler(logits, [streams[slot] for slot in alive])
            for slot, token in zip(alive, tokens, strict=True):
                written[slot].append(token)
            token_written()
            going = [at for at, token in enumerate(tokens) if token not in sampler.ends]
            if not going or step == limit - 1:
                break
            if len(going) < len(alive):
                cache.keep([half * len(alive) + at for half in range(halves) for at in going])
                alive = [alive[at] for at in going]
            cache.grow()
            last = torch.tensor([[written[slot][-1] for slot in alive] * halves], device=logits.device)
            lengths = [len(read[readers[half * len(owners) + slot]]) for half in range(halves) for slot in alive]
            place = torch.tensor([lengths], device=logits.device) + step
            with few_rows(last.numel(), last.device):
                logits = self._forward(last, place, cache, None)
        return written

    def _prefill(self, prefix: Prefix, prompts: Sequence[Tokens]) -> list[tuple[torch.Tensor, Suffix]]:
        """Per prompt the logits (V) after it, and the keys and values of what stands after the shared prefix."""
        filled: dict[int, tuple[torch.Tensor, Suffix]] = {}
        for shared, members in prefix_groups(prompts):
            own = self._prefixes.get(prompts[members[0]][:shared])
            short = [i for i in members if len(prompts[i]) - shared < self._sizes.alone]
            for chunk in chunks([len(prompts[i]) - shared for i in short], self._sizes.row):
                filled |= self._fill_row(
                    {short[at]: prompts[short[at]][shared:] for at in chunk}, own, len(prefix.tokens)
                )
            filled |= {
                i: self._fill_one(prompts[i][shared:], own, len(prefix.tokens)) for i in members if i not in filled
            }
        return [filled[i] for i in range(len(prompts))]

    def _fill_row(
        self, suffixes: Mapping[int, Sequence[int]], own: Prefix, before: int
    ) -> dict[int, tuple[torch.Tensor, Suffix]]:
        """`_prefill` of `own` plus each of `suffixes`, in one row, without the first `before` tokens of `own`."""
        recorded = RecordedRow(pack(list(suffixes.values()), NO_OPTIONS, own, self._model.device))
        packed = recorded.packed
        logits = self._forward(packed.tokens, packed.positions, recorded, packed.readout)
        between = [tuple(part[:, before:] for part in layer) for layer in zip(own.keys, own.values, strict=True)]
        between = between or [()] * len(recorded.layers)  # an empty prefix has no layers
        filled: dict[int, tuple[torch.Tensor, Suffix]] = {}
        for at, (i, start, length) in enumerate(zip(suffixes, packed.starts, packed.queries, strict=True)):
            own_parts = ([part[:, start : start + length] for part in layer] for layer in recorded.layers)
            filled[i] = logits[at], [_joined(*pair) for pair in zip(between, own_parts, strict=True)]
        return filled

    def _fill_one(self, rest: Tokens, own: Prefix, before: int) -> tuple[torch.Tensor, Suffix]:
        """The same for one long prompt, with the attention of transformers, which is faster for long blocks."""
        tokens = torch.tensor([rest], device=self._model.device)
        out = self._model(input_ids=tokens, past_key_values=own.cache(), use_cache=True, logits_to_keep=1)
        return out.logits[0, -1].float(), [
            (layer.keys[0, :, before:], layer.values[0, :, before:]) for layer in out.past_key_values.layers
        ]

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, memory: Attention, readout: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits (N, V) of the row's positions in `readout`, or of all."""
        # Of four dimensions, so that transformers takes the mask as ready; `memory` alone decides who sees what.
        mask = torch.zeros(1, 1, 1, 1, device=tokens.device)
        keep: Any = 0 if readout is None else readout
        out = self._model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=mask,
            use_cache=False,
            logits_to_keep=keep,
            memory=memory,
        )
        return out.logits[0].float()


class _Blocks(NamedTuple):
    """Prompts (by index) whose first `shared` tokens are one prefix."""

    shared: int
    members: list[int]
    first: int
    """The prompt whose usage counts the shared prefix."""


def _rows(prompts: Sequence[Tokens], weight: Callable[[int], int], budget: int) -> Iterator[list[_Blocks]]:
    """Groups computed together: parts of one long group, or several short groups whole."""
    row: list[_Blocks] = []
    used = 0
    for shared, members in prefix_groups(prompts):
        weights = [weight(len(prompts[i]) - shared) for i in members]
        parts = [_Blocks(shared, [members[at] for at in chunk], min(members)) for chunk in chunks(weights, budget)]
        if len(parts) > 1:
            yield from ([part] for part in parts)
            continue
        if row and used + sum(weights) > budget:
            yield row
            row, used = [], 0
        row += parts
        used += sum(weights)
    if row:
        yield row


def _joined(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.cat(parts, dim=1) for parts in zip(before, after, strict=True)) if before else tuple(after)


class PlainEngine(Engine):
    """One padded row per prompt and option: right for every architecture, fast for none."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @torch.inference_mode()
    def score(self, prompts: Sequence[Tokens], options: Sequence[Tokens], end: int) -> list[Likelihoods]:
        whole = [([*prompt, *option], [*option, end]) for prompt in prompts for option in options]
        scores = [0.0] * len(whole)
        for chunk in chunks([len(tokens) for tokens, _ in whole], CPU.row):  # it holds the logits of every position
            width = max(len(whole[i][0]) for i in chunk)
            ids = torch.zeros(len(chunk), width, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(chunk):
                tokens = whole[i][0]
                ids[row, : len(tokens)] = torch.tensor(tokens)
                mask[row, : len(tokens)] = 1
            device = self._model.device
            hidden = self._model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
            for row, i in enumerate(chunk):
                tokens, answer = whole[i]
                logs = hidden[row, len(tokens) - len(answer) : len(tokens)].float().log_softmax(-1)
                scores[i] = float(logs.gather(1, torch.tensor(answer, device=device)[:, None]).double().sum())
        count = len(options)
        return [Likelihoods(tuple(scores[i * count : (i + 1) * count])) for i in range(len(prompts))]

    @torch.inference_mode()
    def write(
        self, prompts: Sequence[Tokens], rows: Sequence[int], sampling: Sampling, ends: Tokens, against: Tokens = ()
    ) -> list[list[int]]:
        sampler = TorchSampler([prompts[i] for i in rows], sampling, ends)
        return [self._answer(prompts[owner], sampler, stream, against) for stream, owner in enumerate(rows)]

    def _answer(self, prompt: Tokens, sampler: TorchSampler, stream: int, against: Tokens) -> list[int]:
        written: list[int] = []
        steps = [list(prompt), list(against)] if against else [list(prompt)]
        pasts: list[Any] = [None] * len(steps)
        while len(written) < sampler.sampling.max_tokens:
            logits: list[torch.Tensor] = []
            for side, step in enumerate(steps):
                ids = torch.tensor([step], device=self._model.device)
                out = self._model(input_ids=ids, past_key_values=pasts[side], use_cache=True, logits_to_keep=1)
                pasts[side] = out.past_key_values
                logits.append(out.logits[0, -1].float())
            token = sampler(torch.stack(logits), [stream])
            written += token
            if token[0] in sampler.ends:
                break
            steps = [token] * len(steps)
        return written


def path_scores(logits: torch.Tensor, trie: Trie) -> torch.Tensor:
    """(N, K): per query and option the sum of log-probabilities on its way; logits are (N, nodes + 1, V)."""
    device = logits.device
    pairs = [pair for option in trie.steps for pair in option]
    node = torch.tensor([n + 1 for n, _ in pairs], device=device)
    token = torch.tensor([t for _, t in pairs], device=device)
    owner = torch.tensor([o for o, option in enumerate(trie.steps) for _ in option], device=device)
    terms = logits[:, node, token] - torch.logsumexp(logits, dim=-1)[:, node]
    return torch.zeros(len(logits), len(trie.steps), device=device).index_add_(1, owner, terms)
