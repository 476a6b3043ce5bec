"""Corrects a follower's bias towards some labels, without changing its weights.

A language model prefers some label words regardless of the text. A calibration is an affine map of each label's
log-probability (normalised over the K labels). It is fitted on data that the method may see, and stored with the
instruction:

    none         z = logp
    contextual   minus the mean logp over content-free inputs (Zhao et al. 2021, arXiv 2102.09690)
    support      minus the mean logp over the support texts, labels unused (Fei et al. 2023, 2305.19148)
    supervised   scale and offset per label, by penalised maximum likelihood on the support (arXiv 2505.23783)
    batch        minus the mean logp over the query itself (Zhou et al. 2023, arXiv 2309.17249): never stored

`logp` is minus infinity for labels that were not compared, before and after.

A text that the prompt shows is useless for calibration, because the follower has just read its label. So `held_out`
pairs every support text with a prompt that does not show it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from promptmii.calibration_kinds import CalibrationKind
from promptmii.instruction import Calibration, Instruction
from promptmii.task import Example, normalise_text
from promptmii.words import word_share

Floats = NDArray[np.float64]
CONTENT_FREE = ("", "N/A", "[MASK]", "lorem ipsum")
FOLDS = 5
"""Cross-fitting folds for examples in the prompt; each fold is scored under a prompt without it."""
QUOTED_WORDS = 4
"""Minimum words of a text for its occurrence in the instruction to count as a quotation."""
PENALTY = 1.0
"""Weight of the squared distance from the `support` calibration in the supervised fit."""


def normalise(scores: Floats) -> Floats:
    """Log-softmax over the last axis."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def held_out(
    instruction: Instruction, examples: Sequence[Example]
) -> Iterator[tuple[Instruction, tuple[Example, ...]]]:
    """Groups of examples, each with a version of the instruction that does not show them.

    Examples listed in the prompt are cross-fitted. Examples quoted in the instruction's prose are left out.
    """
    frame, text = instruction.template, instruction.text
    shown = [example for example in examples if frame.shows(text, example)]
    texts = {example.text for example in shown}
    prose = normalise_text(frame.without_examples(text, shown))
    unseen = tuple(e for e in examples if e.text not in texts and not _quoted(e.text, prose))
    if unseen:
        yield instruction, unseen
    by_label = sorted(shown, key=lambda example: instruction.labels.index(example.label))
    for start in range(min(FOLDS, len(by_label))):
        fold = tuple(by_label[start::FOLDS])
        fold_texts = {example.text for example in fold}
        hidden = [example for example in shown if example.text in fold_texts]
        yield instruction.model_copy(update={"text": frame.without_examples(text, hidden)}), fold


def _quoted(text: str, prose: str) -> bool:
    text = normalise_text(text)
    return sum(map(word_share, text.split())) >= QUOTED_WORDS and text in prose


def fit(kind: CalibrationKind, logp: Floats, gold: Sequence[int] = ()) -> Calibration:
    """Fit a calibration of this kind. `logp` has shape (n, K); `gold` holds n label indices, or is empty."""
    match kind:
        case "supervised":
            return fit_supervised(logp, gold)
        case "contextual" | "support" | "batch":
            return centre(kind, logp, gold)
        case _:
            raise ValueError(f"The calibration {kind!r} has no formula in `fit`.")


def centre(kind: CalibrationKind, logp: Floats, gold: Sequence[int] = ()) -> Calibration:
    """The offset that makes the labels equally likely on average over `logp`, shape (n, K).

    Fits one number per row and one per label to the compared entries of `logp`, by least squares. If all labels were
    compared, a label's number is its column mean. Otherwise a row's own label is ignored: the text itself put it on the
    shortlist, so a label that is rarely on other shortlists would look too likely.
    """
    compared = np.isfinite(logp)
    if len(gold) and not compared.all():
        compared[np.arange(len(logp)), np.asarray(gold)] = False
    value = np.where(compared, logp, 0.0)
    # The normal equations for the labels' numbers, after eliminating those of the rows.
    row_share = compared / np.maximum(compared.sum(axis=1, keepdims=True), 1)
    matrix = np.diag(compared.sum(axis=0).astype(float)) - compared.T.astype(float) @ row_share
    target = value.sum(axis=0) - row_share.T @ value.sum(axis=1)
    bias = np.linalg.lstsq(matrix, target)[0]
    has_data = compared.any(axis=0)
    mean_bias = bias.sum(where=has_data) / max(has_data.sum(), 1)
    offset = np.where(has_data, mean_bias - bias, 0.0)
    return Calibration(kind=kind, scale=(1.0,) * logp.shape[1], offset=tuple(offset.tolist()))


def fit_supervised(logp: Floats, gold: Sequence[int]) -> Calibration:
    """Scale and offset per label by maximum likelihood, with a penalty on the distance from the `support` calibration.

    The penalty matters for labels with few or no examples. `logp` has shape (n, K) and `gold` n label indices; rows
    whose gold label was not compared are ignored.
    """
    from scipy.optimize import minimize

    k = logp.shape[1]
    start = np.concatenate([np.ones(k), np.array(centre("support", logp, gold).offset)])
    usable = np.isfinite(logp[np.arange(len(logp)), np.asarray(gold)])
    logp, target = logp[usable], np.eye(k)[np.asarray(gold)[usable]]
    compared = np.isfinite(logp)
    value = np.where(compared, logp, 0.0)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        z = normalise(np.where(compared, parameters[:k] * value + parameters[k:], -np.inf))
        shift = parameters - start
        error = np.exp(z) - target
        gradient = np.concatenate([(error * value).sum(axis=0), error.sum(axis=0)]) + 2 * PENALTY * shift
        return float(-z[target > 0].sum() + PENALTY * shift @ shift), gradient

    fitted = np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x)
    return Calibration(kind="supervised", scale=tuple(fitted[:k].tolist()), offset=tuple(fitted[k:].tolist()))


def apply(calibration: Calibration | None, logp: Floats) -> Floats:
    """Calibrated log-probabilities, shape (n, K); `None` changes nothing."""
    if calibration is None:
        return logp
    compared = np.isfinite(logp)
    mapped = np.array(calibration.scale) * np.where(compared, logp, 0.0) + np.array(calibration.offset)
    return normalise(np.where(compared, mapped, -np.inf))
