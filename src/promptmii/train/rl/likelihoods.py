"""Differentiable log-probabilities of a group's drafts, which compute the shared prompt only once.

TRL computes a group of G drafts as G rows, each with the whole prompt. Here the group is one row: the prompt, then each
draft as a block that attends to the prompt and itself. The result is exact (`tests/train/rl/test_likelihoods.py`). With
prompts of thousands of tokens and five drafts it costs a fifth as much.
"""

from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from promptmii.models.hf.packing import IMPLEMENTATION, NO_OPTIONS, Packed, pack, sizes, unused_mask
from promptmii.models.hf.prefixes import Prefix

POSITIONS = 1024
"""Positions whose logits are in memory at the same time."""
UNSUPPORTED = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
    "lm_head_multiplier",
    "num_experts",
)
"""Options of models that change the logits after the output head, or whose layers add a loss."""


@dataclass(frozen=True)
class PackedRow:
    """A prompt, then the blocks of `packed`. The prompt is part of the row because it needs a gradient."""

    packed: Packed
    prompt: int
    """The number of tokens in the prompt."""

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """See `hf.packing.Attention`. The prompt is causal; blocks attend to the prompt and themselves."""
        del layer
        length, groups = self.prompt, len(self.packed.groups)
        if not length:  # a prompt of one token, which each block begins with
            return self.packed.attend_after(query, key, value, [None] * groups)
        prompt = scaled_dot_product_attention(
            query[None, :, :length],
            key[None, :, :length],
            value[None, :, :length],
            is_causal=True,
            scale=1,
            enable_gqa=True,
        )
        prefix = key[:, :length], value[:, :length]
        blocks = self.packed.attend_after(query[:, length:], key[:, length:], value[:, length:], [prefix] * groups)
        return torch.cat([prompt[0].transpose(0, 1), blocks])


def can_share(model: Any) -> bool:
    """True if the model supports packed rows, so that drafts can share a prompt."""
    return model.config._attn_implementation == IMPLEMENTATION and supported(model.config)


def supported(config: Any) -> bool:
    """True if a model of this configuration computes nothing that packed rows would change."""
    return all(getattr(config.get_text_config(), name, None) is None for name in UNSUPPORTED)


def draft_logps(
    model: Any, prompts: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]], temperature: float
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each draft, the log-probability of each token and the entropy before it, both of shape (length,).

    `model` is the bare causal language model, with adapters in place. Identical prompts are computed once.
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        groups[tuple(prompt)].append(i)
    results: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for prompt, members in groups.items():
        order = sorted(members, key=lambda i: len(drafts[i]))  # blocks of similar length need little padding
        results |= zip(order, _group_logps(model, prompt, [drafts[i] for i in order], temperature), strict=True)
    return [results[i] for i in range(len(drafts))]


def _group_logps(
    model: Any, prompt: tuple[int, ...], drafts: Sequence[Sequence[int]], temperature: float
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    device = model.device
    before, last = prompt[:-1], prompt[-1]
    # Each block begins with the prompt's last token, which predicts the draft's first token.
    blocks = [[last, *draft[:-1]] for draft in drafts]
    count = len(before)
    row = PackedRow(pack([(Prefix(before, (), ()), blocks)], NO_OPTIONS, device, sizes(device)), count)
    hidden = model.get_decoder()(
        input_ids=torch.cat([torch.tensor([before], dtype=torch.long, device=device), row.packed.tokens], dim=1),
        position_ids=torch.cat([torch.arange(count, device=device)[None], row.packed.positions], dim=1),
        attention_mask=unused_mask(device),  # because `row` attends
        use_cache=False,
        memory=row,
    ).last_hidden_state[0, count:]
    targets = torch.tensor([token for draft in drafts for token in draft], device=device)
    pieces = [
        checkpoint(_score, model.get_output_embeddings(), states, tokens, temperature, use_reentrant=False)
        for states, tokens in zip(hidden.split(POSITIONS), targets.split(POSITIONS), strict=True)
    ]
    logps, entropies = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    lengths = [len(draft) for draft in drafts]
    return list(zip(logps.split(lengths), entropies.split(lengths), strict=True))


def _score(
    head: Any, states: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    log_probabilities = (head(states).float() / temperature).log_softmax(-1)
    with torch.no_grad():
        entropy = -(log_probabilities.exp() * log_probabilities).sum(-1)
    return log_probabilities.gather(1, targets[:, None])[:, 0], entropy


MAX_COPIED = 5e8
"""Maximum number of trained parameters whose initial values are kept as a copy."""
DRIFT_DRAFTS = 16
"""Drafts of a rollout that the drift is measured on."""


class Drift:
    """How far the policy has moved: the log-probability of drafts now minus at the start, per token."""

    def __init__(self, trained: Any) -> None:
        """`trained` must still have its initial weights."""
        self._trained = [weights for weights in trained.parameters() if weights.requires_grad]
        small = sum(weights.numel() for weights in self._trained) <= MAX_COPIED
        self._initial = [weights.detach().clone() for weights in self._trained] if small else []

    def measure(
        self, model: Any, rollout: Sequence[tuple[list[int], list[int]]], temperature: float
    ) -> dict[str, float]:
        """The value for the curves, given tokens as (prompt, draft) pairs; empty if it cannot be measured."""
        pairs = [(prompt, draft) for prompt, draft in rollout[:DRIFT_DRAFTS] if draft]
        if not pairs or not self._initial or not can_share(model):
            return {}
        with torch.no_grad():
            now = _total_logp(model, pairs, temperature)
            with self._initial_weights():
                start = _total_logp(model, pairs, temperature)
        return {"kl_to_start": (now - start) / sum(len(draft) for _, draft in pairs)}

    @contextmanager
    def _initial_weights(self) -> Generator[None]:
        current = [weights.data for weights in self._trained]
        try:
            for weights, value in zip(self._trained, self._initial, strict=True):
                weights.data = value
            yield
        finally:
            for weights, value in zip(self._trained, current, strict=True):
                weights.data = value


def _total_logp(model: Any, pairs: Sequence[tuple[list[int], list[int]]], temperature: float) -> float:
    prompts, drafts = zip(*pairs, strict=True)
    return sum(float(logps.sum()) for logps, _ in draft_logps(model, prompts, drafts, temperature))
