"""Labels for new texts."""

import csv
import io
from dataclasses import dataclass
from typing import Any

from promptmii.data import Source, read_texts
from promptmii.errors import DataError
from promptmii.follower import Follower, Prediction
from promptmii.instruction import Instruction
from promptmii.progress import QUIET, Progress


@dataclass(frozen=True)
class Labelled:
    """The rows of a table with what the follower made of them."""

    rows: tuple[dict[str, Any], ...]
    """The input's columns, then `predicted_label`, `probability`, one `p(<label>)` per label, and `failure`."""
    predictions: tuple[Prediction, ...]

    @property
    def n_labelled(self) -> int:
        """Rows with a label."""
        return sum(p.label is not None for p in self.predictions)

    @property
    def n_failed(self) -> int:
        """Rows whose call failed."""
        return sum(p.failure is not None for p in self.predictions)

    def csv(self) -> str:
        """The rows as CSV with a header."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]) if self.rows else ["label"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def predict(
    instruction: Instruction,
    source: Source,
    follower: Follower,
    text: str | tuple[str, ...] | None = None,
    *,
    progress: Progress = QUIET,
) -> Labelled:
    """Label a table, a list of texts, or one text; empty texts get neither a label nor a call.

    Raises `DataError` where a column of the input has the name of one that is to be added.
    """
    chosen = text or instruction.provenance.text_template or instruction.provenance.text_columns or None
    inputs = read_texts(source, chosen)
    added = _answer_columns(instruction, Prediction(None), scored=True)
    clashes = [name for name in added if inputs.rows and name in inputs.rows[0]]
    if clashes:
        raise DataError(
            f"The input has a column {clashes[0]!r} already, as if it were labelled before. Rename or drop it."
        )
    asked = [i for i, one in enumerate(inputs.texts) if one.strip()]
    progress.step("Labelling", len(asked))
    answers = dict(zip(asked, follower.predict(instruction, [inputs.texts[i] for i in asked]), strict=True))
    predictions = tuple(answers.get(i, Prediction(None)) for i in range(len(inputs.texts)))
    scored = any(prediction.probabilities for prediction in predictions)
    rows = (
        columns | _answer_columns(instruction, answer, scored=scored)
        for columns, answer in zip(inputs.rows, predictions, strict=True)
    )
    return Labelled(tuple(rows), predictions)


def _answer_columns(instruction: Instruction, prediction: Prediction, *, scored: bool) -> dict[str, Any]:
    columns: dict[str, Any] = {"predicted_label": prediction.label or ""}
    if scored:
        known = [round(p, 6) for p in prediction.probabilities or ()]
        columns["probability"] = max(known, default=None)
        columns |= dict(
            zip((f"p({name})" for name in instruction.labels), known or [None] * len(instruction.labels), strict=True)
        )
    return columns | {"failure": str(prediction.failure.kind) if prediction.failure else ""}
