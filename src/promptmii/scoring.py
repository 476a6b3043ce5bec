"""Scores of instructions. `Scored` computes everything that is reported, so no two reports can disagree.

A training reward may use another measure (`train/measures.py`), and GEPA searches by accuracy. A failed call is never
scored: with one failure, macro-F1 is `None` and `measurement` raises an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from promptmii import metrics
from promptmii.errors import DataError, ScoreRefusedError
from promptmii.follower import Follower, Prediction, Predictor
from promptmii.instruction import Instruction, Measurement
from promptmii.markup import brief, table_html, text_html
from promptmii.messages import counted
from promptmii.models.base import FailureKind, Usage
from promptmii.task import Example, content_key

MOST_UNPARSED = 0.05
"""With a larger share of answers that name no label, a score says more about the follower than about the prompt."""
FEWEST_ROWS = 20
"""On fewer rows, a score may be chance."""


@dataclass(frozen=True)
class Scored:
    """Predictions on labelled rows, and their scores."""

    query: tuple[Example, ...]
    predictions: tuple[Prediction, ...]

    def __repr__(self) -> str:
        if self.n_failed:
            return f"<Scored {counted(self.n, 'row')}, {self.n_failed} failed: no score>"
        return f"<Scored {self.measurement()}>"

    def _repr_html_(self) -> str:
        if self.n_failed:
            return text_html(repr(self)[1:-1])
        labels = list(dict.fromkeys((*self.gold, *(label for label in self.labels if label is not None))))
        rows = metrics.per_label(self.gold, self.labels, labels)
        heads = ("label", "precision", "recall", "F1", "rows")
        cells = [(r.label, f"{r.precision:.3f}", f"{r.recall:.3f}", f"{r.f1:.3f}", r.support) for r in rows]
        return text_html(str(self.measurement())) + table_html(heads, cells)

    @property
    def n(self) -> int:
        return len(self.query)

    @property
    def n_failed(self) -> int:
        """Rows without an answer."""
        return sum(p.failure is not None for p in self.predictions)

    @property
    def n_unparsed(self) -> int:
        """Rows whose answer named no label. Each is a miss for its true label, and no false positive."""
        return sum(p.label is None and p.failure is None for p in self.predictions)

    @property
    def n_truncated(self) -> int:
        """Rows whose text was cut to fit the context."""
        return sum(p.truncated for p in self.predictions)

    @property
    def gold(self) -> list[str]:
        """Gold labels, in the order of the rows."""
        return [example.label for example in self.query]

    @property
    def labels(self) -> list[str | None]:
        """Predicted labels, in the order of the rows."""
        return [p.label for p in self.predictions]

    @cached_property
    def usage(self) -> Usage:
        return sum((p.usage for p in self.predictions), Usage())

    @property
    def prompt_tokens_per_query(self) -> float | None:
        """Mean prompt tokens per row; `None` if the server did not report them."""
        return None if self.usage.prompt_tokens is None else self.usage.prompt_tokens / self.n

    @cached_property
    def macro_f1(self) -> float | None:
        """Macro-F1; `None` if any call failed."""
        return None if self.n_failed else metrics.macro_f1(self.gold, self.labels)

    @cached_property
    def uncalibrated_macro_f1(self) -> float | None:
        """Macro-F1 of the same answers without the calibration; `None` if any call failed or gave no likelihoods."""
        labels = [p.uncalibrated for p in self.predictions]
        return None if self.n_failed or None in labels else metrics.macro_f1(self.gold, labels)

    @cached_property
    def accuracy(self) -> float | None:
        """Accuracy; `None` if any call failed."""
        return None if self.n_failed else metrics.accuracy(self.gold, self.labels)

    @cached_property
    def shortlist_recall(self) -> float | None:
        """Share of rows whose label was on their shortlist; `None` if all labels were compared."""
        listed = [(row.label, p.shortlist) for row, p in zip(self.query, self.predictions, strict=True) if p.shortlist]
        return sum(label in shortlist for label, shortlist in listed) / len(listed) if listed else None

    def refuse_failures(self) -> None:
        """Raise `ScoreRefusedError` if any call failed. The predictions stay available."""
        if self.n_failed:
            failures = [p.failure for p in self.predictions if p.failure is not None]
            raise ScoreRefusedError(
                f"{self.n_failed} of {self.n} calls failed after all retries (first: {failures[0].kind}: "
                f"{failures[0].message}). A score over the rest would not be comparable, so none is given. "
                f"{_cure([failure.kind for failure in failures])}"
            )

    def measurement(self) -> Measurement:
        """The score with its interval. Raises `ScoreRefusedError` if any call failed."""
        self.refuse_failures()
        low, high = metrics.interval(self.gold, self.labels)
        return Measurement(
            macro_f1=metrics.macro_f1(self.gold, self.labels),
            low=low,
            high=high,
            accuracy=metrics.accuracy(self.gold, self.labels),
            uncalibrated_macro_f1=self.uncalibrated_macro_f1,
            n=self.n,
            n_unparsed=self.n_unparsed,
            n_truncated=self.n_truncated,
            prompt_tokens_per_query=self.prompt_tokens_per_query,
            shortlist_recall=self.shortlist_recall,
            data_key=content_key([(e.text, e.label) for e in self.query]),
        )


def caveats(results: Mapping[str, Scored]) -> tuple[str, ...]:
    """Warnings about the scores of prompts, by name, on the same rows."""
    warnings: list[str] = []
    rows = min((scored.n for scored in results.values()), default=FEWEST_ROWS)
    if rows < FEWEST_ROWS:
        warnings.append(f"The score rests on {counted(rows, 'row')} and may be chance: give {FEWEST_ROWS} or more.")
    many = {name: scored for name, scored in results.items() if scored.n_unparsed > MOST_UNPARSED * scored.n}
    if many:
        counts = ", ".join(f"{scored.n_unparsed} of {scored.n} ({name})" for name, scored in many.items())
        first = next(iter(many.values()))
        pairs = zip(first.query, first.predictions, strict=True)
        label, answer = next((row.label, p.answer or "") for row, p in pairs if p.label is None and p.failure is None)
        warnings.append(
            f"Answers name no label, such as {brief(answer)!r} instead of {label!r}: {counts}. They are misses: use "
            "another follower, or --mode choose."
        )
    return tuple(warnings)


def _cure(kinds: Sequence[FailureKind]) -> str:
    permanent = sum(kind in (FailureKind.REQUEST, FailureKind.CONTEXT) for kind in kinds)
    cures: list[str] = []
    if permanent:
        cures.append(
            f"The model refuses {counted(permanent, 'row')} each time; leave out the rows that `promptmii predict` "
            "marks as failed."
        )
    if permanent < len(kinds):
        cures.append("Run again; with a --cache folder the answers that arrived are kept.")
    return " ".join(cures)


def score(predictor: Predictor, instruction: Instruction, query: Sequence[Example]) -> Scored:
    """Label the query and score the predictions. Raises `DataError` on an empty query."""
    _require_rows(query)
    return Scored(tuple(query), tuple(predictor.predict(instruction, [example.text for example in query])))


def score_each(follower: Follower, instructions: Sequence[Instruction], query: Sequence[Example]) -> list[Scored]:
    """Score several instructions on the same query, in as few model calls as possible. Raises like `score`."""
    _require_rows(query)
    texts = [example.text for example in query]
    results = follower.predict_each([(instruction, texts) for instruction in instructions])
    return [Scored(tuple(query), tuple(predictions)) for predictions in results]


def _require_rows(query: Sequence[Example]) -> None:
    if not query:
        raise DataError("There are no rows to score on; at least one is needed.")
