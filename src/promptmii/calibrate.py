"""Correcting a follower's bias towards some labels, after the fact and without touching its weights.

A language model likes some label words whatever the text says. Each calibration is a per-label affine map of the
log-probabilities (normalised over the K labels), fitted on what the method may see, and stored in the artefact:

    none         z = logp
    contextual   minus the mean logp over content-free inputs (Zhao et al. 2021, arXiv 2102.09690)
    support      minus the mean logp over the support *texts*, their labels unused (domain-context, Fei et al. 2023, arXiv 2305.19148)
    supervised   scale and offset per label, fitted on the support's labels by penalised maximum likelihood (arXiv 2505.23783)
    batch        minus the mean logp over the query itself (Zhou et al. 2023, arXiv 2309.17249): transductive, so nothing is stored
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from promptmii.instruction import Calibration, CalibrationKind

Floats = NDArray[np.float64]
CONTENT_FREE = ("", "N/A", "[MASK]", "lorem ipsum")
PENALTY = 1.0
"""Weight of the squared distance from the `support` calibration in the supervised fit; one example's worth of evidence."""


def normalise(scores: Floats) -> Floats:
    """Log-softmax over the last axis."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def centre(kind: CalibrationKind, logp: Floats) -> Calibration:
    """The offset that makes the labels equally likely on average over `logp`, shape (n, K)."""
    k = logp.shape[1]
    return Calibration(kind=kind, scale=(1.0,) * k, offset=tuple((logp.mean() - logp.mean(axis=0)).tolist()))


def fit_supervised(logp: Floats, gold: Sequence[int]) -> Calibration:
    """Scale and offset per label by maximum likelihood on labelled rows, drawn towards the `support` calibration.

    The penalty keeps it there when labels have one example each or none: `logp` has shape (n, K), `gold` n label indices.
    """
    from scipy.optimize import minimize

    k = logp.shape[1]
    start = np.concatenate([np.ones(k), np.array(centre("support", logp).offset)])
    target = np.eye(k)[np.asarray(gold)]

    def loss(parameters: Floats) -> tuple[float, Floats]:
        z = normalise(parameters[:k] * logp + parameters[k:])
        away = parameters - start
        error = np.exp(z) - target
        gradient = np.concatenate([(error * logp).sum(axis=0), error.sum(axis=0)]) + 2 * PENALTY * away
        return float(-(z * target).sum() + PENALTY * away @ away), gradient

    fitted = np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x)
    return Calibration(kind="supervised", scale=tuple(fitted[:k].tolist()), offset=tuple(fitted[k:].tolist()))


def apply(calibration: Calibration | None, logp: Floats) -> Floats:
    """Calibrated log-probabilities, shape (n, K); `None` leaves them as they are."""
    if calibration is None:
        return logp
    return normalise(np.array(calibration.scale) * logp + np.array(calibration.offset))
