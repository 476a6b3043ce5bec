"""How a next token is picked from the logits of llama.cpp: greedy, or by the random stream of its row."""

import numpy as np

from promptmii.models.llama.native import Logits
from promptmii.models.sampling import RowSampler


class LlamaSampler(RowSampler):
    """Picks tokens for the rows of a batch."""

    def __call__(self, logits: Logits, row: int) -> int:
        """The next token of a row, from its logits (V)."""
        if barred := self.barred(row):
            logits = logits.copy()
            logits[barred] = -np.inf
        return self.keep(row, self._pick(logits, row))

    def _pick(self, logits: Logits, row: int) -> int:
        if self.sampling.temperature <= 0:
            return int(logits.argmax())
        scaled = logits.astype(np.float64) / self.sampling.temperature
        chances = np.exp(scaled - scaled.max())
        if self.sampling.top_p < 1:
            order = np.argsort(-chances, kind="stable")
            before = chances[order].cumsum() - chances[order]
            chances[order[before >= self.sampling.top_p * chances.sum()]] = 0
        reached = chances.cumsum()
        return int(np.searchsorted(reached, self.draw(row) * reached[-1], side="right"))
