"""A progress listener that records its calls."""

from collections.abc import Callable

from promptmii.progress import Unit


class Recorder:
    def __init__(self, on_advance: Callable[["Recorder"], None] = lambda _: None) -> None:
        self.steps: list[str] = []
        self.totals: list[int | None] = []
        self.counts: list[int] = []
        """Units done in each step."""
        self.done: list[str] = []
        self.notes: list[str] = []
        self.money = 0.0
        self._on_advance = on_advance

    def step(self, name: str, total: int | None = None, unit: Unit = "rows") -> None:
        del unit
        self.steps.append(name)
        self.totals.append(total)
        self.counts.append(0)

    def advance(self, amount: int = 1, done: str = "", *, money: float | None = None) -> None:
        self.money += money or 0.0
        if self.counts:
            self.counts[-1] += amount
        self.done.append(done)
        self._on_advance(self)

    def note(self, message: str) -> None:
        self.notes.append(message)
