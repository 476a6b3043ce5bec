"""Prompts and their scores on the same rows: the result of `induce`, `compare` and `score`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from promptmii import metrics
from promptmii.errors import ScoreRefusedError
from promptmii.follower import Predictor
from promptmii.instruction import Cost, Instruction
from promptmii.markup import table_html
from promptmii.models.base import Price
from promptmii.scoring import Scored, score
from promptmii.task import Example


@dataclass(frozen=True)
class Measured:
    """A prompt and its score."""

    name: str
    """The prompt's name in tables."""
    instruction: Instruction
    """Holds its score, unless a call failed."""
    scored: Scored
    spent: Cost
    """The cost of the answers."""
    notes: tuple[str, ...] = ()
    """Notes on anything detected, dropped or left out."""

    @property
    def macro_f1(self) -> float | None:
        """`None` if any call failed."""
        return self.scored.macro_f1

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the instruction, then those that only the rows have: each of their rows is a miss."""
        return tuple(dict.fromkeys((*self.instruction.labels, *self.scored.gold)))

    def refuse_failures(self) -> None:
        """Raise a `ScoreRefusedError` that names the prompt if any call failed."""
        try:
            self.scored.refuse_failures()
        except ScoreRefusedError as error:
            raise ScoreRefusedError(f"{self.name}: {error}") from error

    def __repr__(self) -> str:
        return f"<Measured {self.name}: {self.scored!r}>"

    def _repr_html_(self) -> str:
        return measured_html([self]) + self.scored._repr_html_()  # pyright: ignore[reportPrivateUsage]

    def as_json(self) -> dict[str, Any]:
        """The score as JSON values. Raises `ScoreRefusedError` if a call failed."""
        gold, predicted, labels = self.scored.gold, self.scored.labels, self.labels
        return {
            "measured": self.scored.measurement().model_dump(),
            "labels": [asdict(label) for label in metrics.per_label(gold, predicted, labels)],
            "confusion": metrics.confusion(gold, predicted, labels),
            "notes": self.notes,
        }


def measure(
    name: str, predictor: Predictor, instruction: Instruction, query: Sequence[Example], price: Price | None = None
) -> Measured:
    """Score a predictor on the rows. Failed calls do not raise."""
    scored = score(predictor, instruction, query)
    if not scored.n_failed:
        instruction = instruction.measured_as(scored.measurement())
    return Measured(name, instruction, scored, Cost.of(scored.usage, price))


def differences(rows: Sequence[Measured]) -> dict[str, metrics.Difference]:
    """The first row minus each other row, by its name. The p-values are Holm-adjusted."""
    first, *others = [row.scored for row in rows]
    found = metrics.paired_differences(first.gold, first.labels, [other.labels for other in others])
    return dict(zip([row.name for row in rows[1:]], found, strict=True))


def measured_html(rows: Sequence[Measured], leads: Mapping[str, metrics.Difference] | None = None) -> str:
    """An HTML table of the prompts and the candidate's lead over each. The candidate has no entry in `leads`."""
    candidate = next((row.name for row in rows if leads and row.name not in leads), "candidate")
    cells: list[tuple[object, ...]] = []
    for row in rows:
        measured, tokens = row.instruction.measured, row.scored.prompt_tokens_per_query
        lead = (leads or {}).get(row.name)
        cells.append(
            (
                row.name,
                f"{measured.macro_f1:.3f} [{measured.low:.3f}, {measured.high:.3f}]" if measured else "no score",
                "unknown" if tokens is None else f"{tokens:,.0f}",
                lead and f"{lead.mean:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}]",
                lead and f"{lead.p:.3f}",
            )
        )
    return table_html(("prompt", "macro-F1 [95 %]", "tokens per query", f"{candidate} minus it", "p"), cells)
