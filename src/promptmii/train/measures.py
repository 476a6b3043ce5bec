"""The measures that a reward can use. Each name in `Measure` has an entry in one of the two tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

from promptmii import metrics
from promptmii.errors import ConfigError
from promptmii.instruction import Mode
from promptmii.scoring import Scored

Measure = Literal["macro_f1", "released_f1", "expected_macro_f1", "gold_probability"]

OfAnswers: TypeAlias = Callable[[Scored, Sequence[str]], float]
"""Takes scored rows and the task's labels."""
OfProbabilities: TypeAlias = Callable[[Sequence[str], Sequence[Sequence[float]], Sequence[str]], float]
"""Takes gold labels, a row of probabilities for each, and the labels in the order of a row."""


OF_ANSWERS: Mapping[Measure, OfAnswers] = {
    "macro_f1": lambda scored, _: metrics.macro_f1(scored.gold, scored.labels),
    "released_f1": lambda scored, labels: metrics.released_f1(
        scored.gold, [prediction.answer or "" for prediction in scored.predictions], labels
    ),
}
OF_PROBABILITIES: Mapping[Measure, OfProbabilities] = {
    "expected_macro_f1": metrics.expected_macro_f1,
    "gold_probability": metrics.gold_probability,
}


def check_mode(measure: Measure, mode: Mode) -> None:
    """Raise `ValueError` if the measure does not work in this mode."""
    if measure in OF_PROBABILITIES and mode != "choose":
        raise ValueError(f"the measure {measure} needs likelihoods, so mode = 'choose'")
    if measure == "released_f1" and mode != "generate":
        raise ValueError("the measure released_f1 reads what the follower writes, so mode = 'generate'")


def measured(scored: Scored, labels: Sequence[str], measure: Measure) -> float:
    """A score between 0 and 1. Raises `ConfigError` if the measure needs likelihoods and a follower gives none."""
    if measure in OF_ANSWERS:
        return OF_ANSWERS[measure](scored, labels)
    probabilities = [p.probabilities for p in scored.predictions if p.probabilities is not None]
    if len(probabilities) < len(scored.predictions):
        raise ConfigError(
            f"The measure {measure} needs likelihoods, and a follower gives none. Set reward.measure = 'macro_f1', "
            "or name followers with likelihoods (see `promptmii doctor`)."
        )
    return OF_PROBABILITIES[measure](scored.gold, probabilities, labels)
