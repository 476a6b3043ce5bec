"""Two engines for transformers models: packed rows if the model's attention allows them, else plain passes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import torch
from torch.nn.utils.rnn import pad_sequence

from promptmii.errors import ModelError
from promptmii.models.base import Sampling
from promptmii.models.batching import Tokens, Trie, chunks, common, prefix_groups
from promptmii.models.hf.decoding import DecodingCache, Suffix, TorchSampler, few_rows
from promptmii.models.hf.packing import (
    CPU,
    IMPLEMENTATION,
    NO_OPTIONS,
    Attention,
    Sizes,
    pack,
    register,
    sizes,
    unused_mask,
)
from promptmii.models.hf.prefixes import NO_PREFIX, Prefix, Prefixes
from promptmii.models.local import Engine, Likelihoods
from promptmii.progress import token_written

SEPARATE = ("nemotron",)
"""Architectures whose layers do not pass the memory of packed rows on to their attention."""
SMALLEST_ROW = 64
"""A device that lacks the memory for rows of so few tokens cannot run the model."""
P = ParamSpec("P")
R = TypeVar("R")


def engine_for(model: Any) -> Engine:
    """The packed engine if every layer uses transformers' attention interface and attends to all earlier tokens."""
    config: dict[str, Any] = model.config.get_text_config().to_dict()
    window = config.get("sliding_window")
    unlimited = window is None or window >= config["max_position_embeddings"]
    full = unlimited and set(config.get("layer_types") or ()) <= {"full_attention", "sliding_attention"}
    softcapping = config.get("attn_logit_softcapping") is not None
    latent = config.get("kv_lora_rank") is not None  # keys and values differ in width
    packable = full and not softcapping and not latent and config.get("model_type") not in SEPARATE
    if model._supports_attention_backend and packable:
        register()
        model.set_attn_implementation(IMPLEMENTATION)
        return PackedEngine(model)
    if softcapping:
        model.set_attn_implementation("eager")  # the only implementation that caps the scores as in training
    return PlainEngine(model)


class _TorchEngine(Engine):
    """An engine with limits that depend on the memory of the device."""

    def __init__(self, model: Any, limits: Sizes) -> None:
        self.model = model
        self.sizes = limits

    def shrink(self) -> None:
        """Free what can be computed again, and halve the limits."""
        self.sizes = self.sizes.halved()


E = TypeVar("E", bound=_TorchEngine)


def _within_memory(compute: Callable[Concatenate[E, P], R]) -> Callable[Concatenate[E, P], R]:
    """Decorate a method of an engine to start again in smaller batches as long as the memory is too small.

    It then raises `ModelError` if the batches cannot get smaller.
    """

    @wraps(compute)
    @torch.inference_mode()
    def run(engine: E, *args: P.args, **kwargs: P.kwargs) -> R:
        while True:
            try:
                return compute(engine, *args, **kwargs)
            except torch.OutOfMemoryError as error:
                if engine.sizes.row <= SMALLEST_ROW:
                    raise ModelError(
                        f"The memory of {engine.model.device} is too small for this model and these texts. End other "
                        "programs that use it, load fewer models, or add @cpu to the model's name: hf:qwen@cpu."
                    ) from error
            # Not in the handler, where the error keeps the tensors of the failed attempt.
            engine.shrink()
            torch.cuda.empty_cache()

    return run


class PackedEngine(_TorchEngine):
    """Computes shared prefixes once and everything else in packed rows."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, sizes(model.device))
        text = model.config.get_text_config()
        self._vocabulary = int(text.vocab_size)
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        key_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        self._token_bytes = 2 * text.num_hidden_layers * key_heads * width * model.dtype.itemsize
        """Memory of a token's keys and values."""
        self._prefixes = Prefixes(model)

    def shrink(self) -> None:
        super().shrink()
        self._prefixes = Prefixes(self.model)

    @_within_memory
    def score(self, prompts: Sequence[Tokens], options: Sequence[Tokens], end: int) -> list[Likelihoods]:
        trie = Trie.build(options, end)
        nodes = len(trie.tokens)
        # Blocks have a minimum weight, so that the logits of a row stay in bounds too.
        lightest = (nodes + 1) * self._vocabulary * self.sizes.row // self.sizes.logits
        results = [Likelihoods()] * len(prompts)
        for row in _rows(prompts, lambda length: max(length + nodes, lightest), self.sizes.row):
            prefixes = self._prefixes_of([prompts[blocks.members[0]][: blocks.shared] for blocks in row])
            queries = [[prompts[i][blocks.shared :] for i in blocks.members] for blocks in row]
            packed = pack(list(zip(prefixes, queries, strict=True)), trie, self.model.device, self.sizes)
            logits = self._forward(packed.tokens, packed.positions, packed, packed.readout)
            scores = iter(path_scores(logits.view(-1, nodes + 1, logits.shape[-1]), trie).tolist())
            for blocks in row:
                for i in blocks.members:
                    results[i] = Likelihoods(tuple(next(scores)), blocks.shared if i != blocks.first else 0)
        return results

    def _prefixes_of(self, sequences: Sequence[Tokens]) -> list[Prefix]:
        """Each sequence as a prefix; several are computed in as few passes as possible."""
        distinct = [tokens for tokens in dict.fromkeys(map(tuple, sequences)) if tokens]
        if len(distinct) < 2:
            return [self._prefixes.get(tokens) for tokens in sequences]
        base = self._prefixes.get(distinct[0][: min(common(distinct), min(map(len, distinct)) - 1)])
        prefixes: dict[tuple[int, ...], Prefix] = {(): NO_PREFIX}
        for tokens, (_, suffix) in zip(distinct, self._prefill(base, distinct), strict=True):
            base_layers = zip(base.keys, base.values, strict=True) if base.tokens else [()] * len(suffix)
            layers = [_joined(*pair) for pair in zip(base_layers, suffix, strict=True)]
            prefixes[tokens] = Prefix(tokens, *(tuple(layer[side] for layer in layers) for side in (0, 1)))
        return [prefixes[tuple(tokens)] for tokens in sequences]

    @_within_memory
    def write(
        self, prompts: Sequence[Tokens], rows: Sequence[int], sampling: Sampling, ends: Tokens, against: Tokens = ()
    ) -> list[list[int]]:
        sampler, limit = TorchSampler([prompts[i] for i in rows], sampling, ends), sampling.max_tokens
        contrast_tokens = len(against) + limit if against else 0
        lengths = [len(prompts[i]) + limit + contrast_tokens for i in rows]
        written: list[list[int]] = [[] for _ in rows]
        budget = self.sizes.decode_memory // self._token_bytes
        for batch in chunks(lengths, budget, self.sizes.decode_rows):
            used = sorted({rows[row] for row in batch})
            owners = [used.index(rows[row]) for row in batch]
            texts = self._decode([prompts[i] for i in used], owners, sampler, batch, against)
            for row, tokens in zip(batch, texts, strict=True):
                written[row] = tokens
        return written

    def _decode(
        self,
        prompts: Sequence[Tokens],
        owners: Sequence[int],
        sampler: TorchSampler,
        streams: Sequence[int],
        against: Tokens,
    ) -> list[list[int]]:
        """Write the text of each row; `streams` holds the sampler's index of each.

        A contrast doubles the rows: the second half reads `against` and the same text as the first.
        """
        copies, limit, device = 2 if against else 1, sampler.sampling.max_tokens, self.model.device
        contexts = [*prompts, against] if against else prompts
        context_of = [*owners, *[len(prompts)] * len(owners)] if against else owners
        shared = min(min(map(len, contexts)) - 1, common(contexts))
        prefix = self._prefixes.get(contexts[0][:shared])
        prefilled = self._prefill(prefix, contexts)
        logits = torch.stack([logits for logits, _ in prefilled])[context_of]
        cache = DecodingCache(prefix, [suffix for _, suffix in prefilled], context_of)
        alive = list(range(len(owners)))
        written: list[list[int]] = [[] for _ in owners]
        for step in range(limit):
            tokens = sampler(logits, [streams[row] for row in alive])
            for row, token in zip(alive, tokens, strict=True):
                written[row].append(token)
            token_written()
            unfinished = [i for i, token in enumerate(tokens) if token not in sampler.ends]
            if not unfinished or step == limit - 1:
                break
            if len(unfinished) < len(alive):
                cache.keep([copy * len(alive) + i for copy in range(copies) for i in unfinished])
                alive = [alive[i] for i in unfinished]
            cache.grow()
            last = torch.tensor([[written[row][-1] for row in alive] * copies], device=device)
            lengths = [len(contexts[context_of[copy * len(owners) + row]]) for copy in range(copies) for row in alive]
            positions = torch.tensor([lengths], device=device) + step
            with few_rows(last.numel(), device):
                logits = self._forward(last, positions, cache, None)
        return written

    def _prefill(self, prefix: Prefix, prompts: Sequence[Tokens]) -> list[tuple[torch.Tensor, Suffix]]:
        """For each prompt, the logits (V,) after it, and its keys and values after the shared prefix."""
        skip = len(prefix.tokens)
        results: dict[int, tuple[torch.Tensor, Suffix]] = {}
        for shared, members in prefix_groups(prompts):
            group_prefix = self._prefixes.get(prompts[members[0]][:shared])
            suffixes = {i: prompts[i][shared:] for i in members}
            short = [i for i in members if len(suffixes[i]) < self.sizes.long_suffix]
            for chunk in chunks([len(suffixes[i]) for i in short], self.sizes.row):
                results |= self._prefill_row({short[at]: suffixes[short[at]] for at in chunk}, group_prefix, skip)
            for i in members:
                if i not in results:
                    results[i] = self._prefill_long(suffixes[i], group_prefix, skip)
        return [results[i] for i in range(len(prompts))]

    def _prefill_row(
        self, suffixes: Mapping[int, Sequence[int]], prefix: Prefix, skip: int
    ) -> dict[int, tuple[torch.Tensor, Suffix]]:
        """`_prefill` of `prefix` plus each suffix, in one row; omits keys and values of the first `skip` tokens."""
        layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        packed = pack([(prefix, list(suffixes.values()))], NO_OPTIONS, self.model.device, self.sizes)
        row = replace(packed, layers=layers)
        logits = self._forward(row.tokens, row.positions, row, row.readout)
        before = [tuple(part[:, skip:] for part in layer) for layer in zip(prefix.keys, prefix.values, strict=True)]
        before = before or [()] * len(layers)  # an empty prefix has no layers
        results: dict[int, tuple[torch.Tensor, Suffix]] = {}
        for block, (i, start, length) in enumerate(zip(suffixes, row.starts, row.queries, strict=True)):
            own = ([part[:, start : start + length] for part in layer] for layer in layers)
            results[i] = logits[block], [_joined(*pair) for pair in zip(before, own, strict=True)]
        return results

    def _prefill_long(self, suffix: Tokens, prefix: Prefix, skip: int) -> tuple[torch.Tensor, Suffix]:
        """`_prefill_row` of one long suffix, with transformers' own attention, which is faster for long blocks."""
        tokens = torch.tensor([suffix], device=self.model.device)
        out = self.model(input_ids=tokens, past_key_values=prefix.cache(), use_cache=True, logits_to_keep=1)
        layers = out.past_key_values.layers
        return out.logits[0, -1].float(), [(layer.keys[0, :, skip:], layer.values[0, :, skip:]) for layer in layers]

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, memory: Attention, readout: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits (N, V) at the positions in `readout`, or at all."""
        keep: Any = 0 if readout is None else readout
        out = self.model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=unused_mask(tokens.device),
            use_cache=False,
            logits_to_keep=keep,
            memory=memory,
        )
        return out.logits[0].float()


class _Blocks(NamedTuple):
    """Prompts, by index, with a common prefix of `shared` tokens."""

    shared: int
    members: list[int]
    first: int
    """The prompt that is charged for the prefix; for all others it counts as cached."""


def _rows(prompts: Sequence[Tokens], weight: Callable[[int], int], budget: int) -> Iterator[list[_Blocks]]:
    """Blocks to compute in one row: a part of a large group, or several small groups."""
    row: list[_Blocks] = []
    used = 0
    for shared, members in prefix_groups(prompts):
        weights = [weight(len(prompts[i]) - shared) for i in members]
        first = min(members)
        parts = [_Blocks(shared, [members[at] for at in chunk], first) for chunk in chunks(weights, budget)]
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


class PlainEngine(_TorchEngine):
    """One padded row per prompt and option: correct for every architecture, fast for none."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, CPU)  # small on every device, because it holds all logits

    @_within_memory
    def score(self, prompts: Sequence[Tokens], options: Sequence[Tokens], end: int) -> list[Likelihoods]:
        pairs = [([*prompt, *option], [*option, end]) for prompt in prompts for option in options]
        scores = [0.0] * len(pairs)
        for chunk in chunks([len(tokens) for tokens, _ in pairs], self.sizes.row):
            device = self.model.device
            rows = [torch.tensor(pairs[i][0], device=device) for i in chunk]
            ids = pad_sequence(rows, batch_first=True)
            mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for row, i in enumerate(chunk):
                tokens, answer = pairs[i]
                logps = logits[row, len(tokens) - len(answer) : len(tokens)].float().log_softmax(-1)
                scores[i] = float(logps.gather(1, torch.tensor(answer, device=device)[:, None]).double().sum())
        count = len(options)
        return [Likelihoods(tuple(scores[i * count : (i + 1) * count])) for i in range(len(prompts))]

    @_within_memory
    def write(
        self, prompts: Sequence[Tokens], rows: Sequence[int], sampling: Sampling, ends: Tokens, against: Tokens = ()
    ) -> list[list[int]]:
        sampler = TorchSampler([prompts[i] for i in rows], sampling, ends)
        return [self._write_row(row, prompts[owner], sampler, against) for row, owner in enumerate(rows)]

    def _write_row(self, row: int, prompt: Tokens, sampler: TorchSampler, against: Tokens) -> list[int]:
        written: list[int] = []
        inputs = [list(prompt), list(against)] if against else [list(prompt)]
        caches: list[Any] = [None] * len(inputs)
        while len(written) < sampler.sampling.max_tokens:
            logits: list[torch.Tensor] = []
            for i, tokens in enumerate(inputs):
                ids = torch.tensor([tokens], device=self.model.device)
                out = self.model(input_ids=ids, past_key_values=caches[i], use_cache=True, logits_to_keep=1)
                caches[i] = out.past_key_values
                logits.append(out.logits[0, -1].float())
            [token] = sampler(torch.stack(logits), [row])
            written.append(token)
            if token in sampler.ends:
                break
            inputs = [[token]] * len(inputs)
        return written


def path_scores(logits: torch.Tensor, trie: Trie) -> torch.Tensor:
    """The sum of log-probabilities along each option's path: from logits (N, nodes + 1, V) to scores (N, K)."""
    device = logits.device
    steps = [(option, node + 1, token) for option, path in enumerate(trie.steps) for node, token in path]
    options, nodes, tokens = (torch.tensor(column, device=device) for column in zip(*steps, strict=True))
    terms = logits[:, nodes, tokens] - torch.logsumexp(logits, dim=-1)[:, nodes]
    return torch.zeros(len(logits), len(trie.steps), device=device).index_add_(1, options, terms)
