"""Rows for a human to check: suspected label errors, wrong rows, and rows the follower is least sure of.

Label errors are found by confident learning (Northcutt et al. 2021, arXiv 1911.00068): a row is suspected if another
label is at least as likely for it as for the rows that carry that label. The probabilities are cross-fitted: those of a
row are calibrated on the other rows' labels, never on its own.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from promptmii import calibrate
from promptmii.config import Columns
from promptmii.data import Source, read_table, read_texts
from promptmii.errors import DataError
from promptmii.follower import Prediction
from promptmii.instruction import Instruction
from promptmii.progress import QUIET, Progress
from promptmii.workbench.followers import Answering, answering, calibration_notes
from promptmii.workbench.formats import csv_text
from promptmii.workbench.given import Prompt, fresh_rows, read
from promptmii.workbench.measure import opened

FOLDS = 5
DIGITS = 6
LABEL_ERROR, WRONG, UNSURE, FAILED = "label error?", "wrong", "unsure", "failed"


class Suspect(NamedTuple):
    """A row to look at."""

    text: str
    label: str
    """The label in the table; empty if the row has none."""
    suggested_label: str
    probability: float | None
    """The probability of the follower's label; `None` without likelihoods."""
    reason: str


@dataclass(frozen=True)
class Review:
    """Suspects, the most informative first."""

    rows: tuple[Suspect, ...]
    n: int
    """Number of rows reviewed."""
    n_failed: int
    """Rows whose call failed, in `rows` or not."""
    notes: tuple[str, ...]

    @property
    def counts(self) -> Counter[str]:
        """Rows by reason."""
        return Counter(row.reason for row in self.rows)

    def csv(self) -> str:
        """The suspects as CSV with a header. Correct the label column, and the file is a labelled table."""
        rounded = [row._replace(probability=row.probability and round(row.probability, DIGITS)) for row in self.rows]
        return csv_text(Suspect._fields, [row._asdict() for row in rounded])


def review(
    given: Prompt,
    source: Source,
    follower: Answering = None,
    columns: Columns | None = None,
    *,
    most: int = 100,
    progress: Progress = QUIET,
) -> Review:
    """The `most` informative rows of a table, with or without labels. Raises as `score` does.

    Label errors come first, the likeliest at the top, then wrong rows, then those that the follower is least sure of.
    """
    instruction, texts, labels, notes = _rows(given, source, columns or Columns())
    with answering(follower, progress) as followers:
        bound = followers.of(instruction)
        followers.progress.step("Labelling", len(texts))
        predictions = bound.predict(instruction, texts)
        notes = (*notes, *calibration_notes(instruction, bound))
    suspected = _label_errors(predictions, labels, instruction.labels)
    judged = [
        _judged(text, label, prediction, suspected.get(i))
        for i, (text, label, prediction) in enumerate(zip(texts, labels, predictions, strict=True))
    ]
    ranked = sorted((entry for entry in judged if entry), key=lambda entry: entry[0])
    rows = tuple(suspect for _, suspect in ranked[:most])
    if not any(prediction.probabilities for prediction in predictions):
        notes = (*notes, "without probabilities: label errors and unsure rows cannot be told")
    return Review(rows, len(texts), sum(prediction.failure is not None for prediction in predictions), notes)


def _rows(given: Prompt, source: Source, columns: Columns) -> tuple[Instruction, list[str], list[str], tuple[str, ...]]:
    """The instruction, texts with their labels (empty without any), and notes."""
    table, prompt = read_table(source), read(given)
    try:
        instruction, loaded = opened(prompt, table, columns)
    except DataError as error:
        if isinstance(prompt, str) or columns.label or prompt.provenance.label_column in table.columns:
            raise
        same_columns = set(prompt.provenance.text_columns) <= set(table.columns)
        text = columns.text or (prompt.text_source if same_columns else None)
        texts = [text for _, text in read_texts(source, text) if text.strip()]
        return prompt, texts, [""] * len(texts), (f"read without labels: {error}",)
    rows, left_out = fresh_rows(instruction, loaded)
    return instruction, [row.text for row in rows], [row.label for row in rows], (*loaded.notes, *left_out)


def _label_errors(
    predictions: Sequence[Prediction], row_labels: Sequence[str], labels: Sequence[str]
) -> dict[int, tuple[str, float]]:
    """For each suspected row, the label it should have and how much likelier that is than its own."""
    usable = [i for i, (p, label) in enumerate(zip(predictions, row_labels, strict=True)) if label and p.probabilities]
    if len(usable) < 2 * FOLDS:
        return {}
    gold = np.array([labels.index(row_labels[i]) for i in usable])
    logp = np.log(np.maximum(np.array([predictions[i].probabilities for i in usable]), 1e-30))
    fold = np.empty(len(usable), dtype=int)
    fold[np.argsort(gold, kind="stable")] = np.arange(len(usable)) % FOLDS
    chances = np.empty_like(logp)
    for part in range(FOLDS):
        fitted = calibrate.fit_supervised(logp[fold != part], gold[fold != part].tolist())
        chances[fold == part] = np.exp(calibrate.apply(fitted, logp[fold == part]))
    usual = np.array([chances[gold == k, k].mean() if (gold == k).any() else np.inf for k in range(len(labels))])
    own = chances[np.arange(len(usable)), gold]
    rivals = np.where((chances >= usual) & (chances > own[:, None]), chances, 0.0)
    best: list[int] = rivals.argmax(axis=1).tolist()
    margin = rivals.max(axis=1) - own
    return {usable[i]: (labels[best[i]], float(margin[i])) for i in range(len(usable)) if rivals[i].any()}


def _judged(
    text: str, label: str, prediction: Prediction, error: tuple[str, float] | None
) -> tuple[tuple[int, float], Suspect] | None:
    """The rank of a row, smallest first, and the row as a suspect; `None` if there is no reason to suspect it."""
    sure = max(prediction.probabilities) if prediction.probabilities else None
    rank = 1.0 if sure is None else sure
    if prediction.failure:
        return (3, 0.0), Suspect(text, label, "", None, FAILED)
    if error:
        return (0, -error[1]), Suspect(text, label, error[0], sure, LABEL_ERROR)
    predicted = prediction.label or ""
    if label and predicted != label:
        return (1, -rank), Suspect(text, label, predicted, sure, WRONG)
    if predicted and sure is None:  # its certainty is unknown
        return None
    return (2, rank), Suspect(text, label, predicted, sure, UNSURE)
