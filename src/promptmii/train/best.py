"""The best weights of a run, in `best/`. What was best stands in the curves, so a resumed run knows it too."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from promptmii.curves import is_training_run, read_curves
from promptmii.files import atomic_folder
from promptmii.tuning.model import TrainableModel

BEST = "best"
Card = Callable[[int, Mapping[str, float]], str]
"""The model card, after so many steps and with what was measured."""


class Best:
    """Keeps the weights with the highest value of a curve, or the lowest."""

    def __init__(
        self, folder: Path, curve: str, policy: TrainableModel, card: Card, *, sign: int = 1, gain: float = 0.0
    ) -> None:
        """`sign` is -1 if less is better; `gain` is how much better counts."""
        self._folder, self._curve, self._policy, self._card = folder, curve, policy, card
        self._sign, self._gain = sign, gain
        self._value = -math.inf
        self.since = 0
        """Validations since the best."""

    def recall(self, step: int) -> None:
        """Take up what the curves say up to `step`."""
        if is_training_run(self._folder):
            curves = read_curves([self._folder])[0].metrics
            failed = curves.get("validation/failed", {})
            for at, value in curves.get(self._curve, {}).items():
                if at <= step and not failed.get(at):
                    self.improves(value)

    def improves(self, value: float) -> bool:
        """Whether this is the best so far."""
        better = self._sign * value > self._value + (self._gain if math.isfinite(self._value) else 0)
        self._value, self.since = (self._sign * value, 0) if better else (self._value, self.since + 1)
        return better

    def save(self, step: int, measured: Mapping[str, float], state: dict[str, Any] | None = None) -> None:
        """The weights of now take the place of those in `best/`. `state` as in `TrainableModel.save`."""
        with atomic_folder(self._folder / BEST) as new:
            self._policy.save(new, state)
            (new / "README.md").write_text(self._card(step, measured), encoding="utf-8")
