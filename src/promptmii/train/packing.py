"""A training episode as one row: a prefix once, then each query with the tree of its possible answers, under one block mask.

The blocks and what they see are those of `models/packing.py`, by the same code. Only the prefix stands in the row itself instead of in
a cache, because the gradient must reach it. So `label_scores` is what `LocalModel.choose` computes, with a gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from promptmii.models.engines import along
from promptmii.models.packing import Packed, Trie, pack
from promptmii.models.prefixes import Prefix, common


@dataclass(frozen=True)
class Row:
    """One episode of Q queries: P prefix tokens, then the blocks of `packed`."""

    packed: Packed
    trie: Trie

    @property
    def prefix(self) -> tuple[int, ...]:
        """The tokens that all queries begin with."""
        return self.packed.prefix.tokens

    @property
    def size(self) -> int:
        """Tokens in the row."""
        return len(self.prefix) + self.packed.tokens.shape[1]

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """See `models.packing.Memory`: the prefix looks at what stands before it, the blocks at the prefix and at themselves."""
        del layer
        p = len(self.prefix)
        if not p:
            return self.packed.look_back(query, key, value, None)
        own = scaled_dot_product_attention(
            query[None, :, :p], key[None, :, :p], value[None, :, :p], is_causal=True, scale=1, enable_gqa=True
        )
        blocks = self.packed.look_back(query[:, p:], key[:, p:], value[:, p:], (key[:, :p], value[:, :p]))
        return torch.cat([own[0].transpose(0, 1), blocks])


def lay_out(prompts: Sequence[Sequence[int]], options: Sequence[Sequence[int]], end: int, device: torch.device) -> Row:
    """The row of `prompts` (one per query, none empty), each followed by every option and `end`. Best sorted by length."""
    trie = Trie.build(options, end)
    shared = min(common(prompts), min(map(len, prompts)) - 1)
    prefix = Prefix(tuple(prompts[0][:shared]), (), ())
    return Row(pack([prompt[shared:] for prompt in prompts], trie, prefix, device), trie)


def label_scores(model: Any, row: Row) -> torch.Tensor:
    """`log P(option + end | prompt)` of each query and option, shape (Q, K), with a gradient; the head runs where it is read only."""
    device, p = model.device, len(row.prefix)
    out = model(
        input_ids=torch.cat([torch.tensor([row.prefix], dtype=torch.long, device=device), row.packed.tokens], dim=1),
        position_ids=torch.cat([torch.arange(p, device=device)[None], row.packed.positions], dim=1),
        attention_mask=torch.zeros(
            1, 1, 1, 1, device=device
        ),  # taken as ready by transformers; the row alone decides who sees what
        use_cache=False,
        logits_to_keep=row.packed.readout + p,
        memory=row,
    )
    return along(out.logits[0].float().view(len(row.packed.queries), row.packed.nodes + 1, -1), row.trie)
