"""Find rows for a human to check: suspected label errors, wrong predictions, and the least certain predictions.

Label errors are found by confident learning (Northcutt et al. 2021, arXiv 1911.00068): a row is suspect if the
probability of another label is at least as high as its mean over the rows with that label. Probabilities are
cross-fitted: the calibration for a row never uses the row's own label.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from promptmii import calibrate
from promptmii.config import Columns
from promptmii.data import Source, read_texts
from promptmii.data.table import Row
from promptmii.data.texts import COMMAS, CsvStyle
from promptmii.errors import DataError
from promptmii.follower import Prediction
from promptmii.inputs import Prompt, fresh_rows, read_prompt, table_for
from promptmii.instruction import Instruction
from promptmii.progress import QUIET, Progress
from promptmii.task import normalise_text
from promptmii.workbench.followers import FollowerLike, calibration_notes, open_followers
from promptmii.workbench.formats import DIGITS, csv_text
from promptmii.workbench.measure import load_inputs

FOLDS = 5
LABEL_ERROR, WRONG, UNSURE, FAILED = "label error?", "wrong", "unsure", "failed"
ADDED = ("suggested_label", "probability", "reason")
"""Columns of the CSV after those of the table."""


_Rank: TypeAlias = tuple[int, float]
"""Sort key of a suspect, lowest first: by reason, then within it."""


class _TableRow(NamedTuple):
    """A row of the table."""

    text: str
    label: str
    row: Row


class Suspect(NamedTuple):
    """A row to check."""

    text: str
    label: str
    """The label in the table, or empty if the row has none."""
    suggested_label: str
    probability: float | None
    """The probability of the follower's label, or `None` without likelihoods."""
    reason: str
    row: Row
    """The row of the table, with all its columns."""


@dataclass(frozen=True)
class Review:
    """The suspects, most informative first."""

    rows: tuple[Suspect, ...]
    n: int
    """Number of rows reviewed."""
    n_failed: int
    """Number of rows whose call failed, whether in `rows` or not."""
    counts: Counter[str]
    """Number of suspects by reason, whether in `rows` or not; of the unsure ones, only those in `rows`."""
    columns: tuple[str, ...]
    """The columns of the table."""
    notes: tuple[str, ...]

    def csv(self, style: CsvStyle = COMMAS) -> str:
        """The suspects as CSV: the columns of the table, then those of `ADDED`.

        With the label column corrected, the file is a labelled table. If the table has a column of an added one's name,
        the added one gets an apostrophe.
        """
        names = list[str](ADDED)
        for i in range(len(names)):
            while names[i] in self.columns:
                names[i] += "'"
        added = [
            (row.suggested_label, row.probability and round(row.probability, DIGITS), row.reason) for row in self.rows
        ]
        rows = [row.row | dict(zip(names, cells, strict=True)) for row, cells in zip(self.rows, added, strict=True)]
        return csv_text((*self.columns, *names), rows, style)


def review(
    prompt: Prompt,
    source: Source,
    follower: FollowerLike = None,
    columns: Columns | None = None,
    *,
    most: int = 100,
    progress: Progress = QUIET,
) -> Review:
    """The `most` informative rows of a table, with or without labels. Raises the errors of `score`.

    Label errors come first, the likeliest at the top, then wrong predictions, then the least certain ones.
    """
    instruction, table_columns, table_rows, notes = _read_rows(prompt, source, columns or Columns())
    texts, labels = [row.text for row in table_rows], [row.label for row in table_rows]
    with open_followers(follower, progress) as followers:
        bound = followers.of(instruction)
        followers.progress.step("Labelling", len(texts))
        predictions = bound.predict(instruction, texts)
        notes = (*notes, *calibration_notes(instruction, bound))
    label_errors = _label_errors(predictions, labels, instruction.labels)
    rows = enumerate(zip(table_rows, predictions, strict=True))
    suspects = (_suspect(*row, label_errors.get(i)) for i, row in rows)
    ranked = sorted((suspect for suspect in suspects if suspect), key=lambda pair: pair[0])
    listed = tuple(suspect for _, suspect in ranked[:most])
    counts = Counter(row.reason for place, (_, row) in enumerate(ranked) if place < most or row.reason != UNSURE)
    if not any(prediction.probabilities for prediction in predictions):
        notes = (*notes, "the model gives no probabilities, so label errors and unsure rows are not found")
    return Review(listed, len(texts), counts[FAILED], counts, table_columns, notes)


def _read_rows(
    prompt: Prompt, source: Source, columns: Columns
) -> tuple[Instruction, tuple[str, ...], list[_TableRow], tuple[str, ...]]:
    """The instruction, the columns and rows of the table, and notes. Labels are empty if the table has none."""
    content = read_prompt(prompt)
    table = table_for(None if isinstance(content, str) else content, source, columns)
    try:
        instruction, loaded = load_inputs(content, table, columns)
    except DataError as error:
        if isinstance(content, str) or columns.label or content.provenance.label_column in table.columns:
            raise
        same_columns = set(content.provenance.text_columns) <= set(table.columns)
        text_columns = columns.text or (content.text_source if same_columns else None)
        texts = read_texts(source, text_columns)
        rows = [_TableRow(text, "", {"label": ""} | row) for row, text in texts if text.strip()]
        return content, tuple(dict.fromkeys((*texts.columns, "label"))), rows, (f"read without labels: {error}",)
    fresh, left_out = fresh_rows(instruction, loaded)
    originals: dict[str, Row] = {}  # of equal texts, the first that has a label
    for row in table.rows:
        if row[loaded.columns.label or ""] is not None:
            originals.setdefault(normalise_text(loaded.columns.render(row)), row)
    rows = [_TableRow(row.text, row.label, originals[normalise_text(row.text)]) for row in fresh]
    return instruction, table.columns, rows, (*loaded.notes, *left_out)


def _label_errors(
    predictions: Sequence[Prediction], row_labels: Sequence[str], labels: Sequence[str]
) -> dict[int, tuple[str, float]]:
    """The suspected label errors by row index: the suggested label, and how much more probable it is than the row's."""
    answers = enumerate(zip(predictions, row_labels, strict=True))
    usable = [i for i, (prediction, label) in answers if label in labels and prediction.probabilities]
    if len(usable) < 2 * FOLDS:
        return {}
    gold = np.array([labels.index(row_labels[i]) for i in usable])
    with np.errstate(divide="ignore"):  # a label that was not on the shortlist has probability 0
        logp = np.log(np.array([predictions[i].probabilities for i in usable]))
    fold = np.empty(len(usable), dtype=int)
    fold[np.argsort(gold, kind="stable")] = np.arange(len(usable)) % FOLDS
    probabilities = np.empty_like(logp)
    for number in range(FOLDS):
        held_out = fold == number
        calibration = calibrate.fit_supervised(logp[~held_out], gold[~held_out].tolist())
        probabilities[held_out] = np.exp(calibrate.apply(calibration, logp[held_out]))
    mean = np.array([probabilities[gold == k, k].mean() if (gold == k).any() else np.inf for k in range(len(labels))])
    own = probabilities[np.arange(len(usable)), gold]
    rivals = np.where((probabilities >= mean) & (probabilities > own[:, None]), probabilities, 0.0)
    best: list[int] = rivals.argmax(axis=1).tolist()
    margin = rivals.max(axis=1) - own
    return {usable[i]: (labels[best[i]], float(margin[i])) for i in range(len(usable)) if rivals[i].any()}


def _suspect(
    row: _TableRow, prediction: Prediction, label_error: tuple[str, float] | None
) -> tuple[_Rank, Suspect] | None:
    """The rank of a row and the row as a suspect, or `None` if there is no reason to suspect it."""
    text, label, cells = row
    if prediction.failure:
        return (3, 0.0), Suspect(text, label, "", None, FAILED, cells)
    probability = max(prediction.probabilities) if prediction.probabilities else None
    certainty = 1.0 if probability is None else probability
    if label_error:
        suggested, margin = label_error
        return (0, -margin), Suspect(text, label, suggested, probability, LABEL_ERROR, cells)
    predicted = prediction.label or ""
    if label and predicted != label:
        return (1, -certainty), Suspect(text, label, predicted, probability, WRONG, cells)
    if predicted and probability is None:
        return None
    return (2, certainty), Suspect(text, label, predicted, probability, UNSURE, cells)
