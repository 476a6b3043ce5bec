"""The measures that a reward can use. Each `Measure` has an entry in one of the two tables below."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from promptmii import metrics
from promptmii.errors import ConfigError
from promptmii.instruction import Mode
from promptmii.scoring import Scored

Measure = Literal["macro_f1", "released_f1", "expected_macro_f1", "gold_probability"]
ANSWER_MEASURES: Mapping[Measure, Callable[[Scored, Sequence[str]], float]] = {
    "macro_f1": lambda scored, _: metrics.macro_f1(scored.gold, scored.labels),
    "released_f1": lambda scored, labels: metrics.released_f1(
        scored.gold, [prediction.answer or "" for prediction in scored.predictions], labels
    ),
}
"""Each takes the scored rows and the task's labels."""
PROBABILITY_MEASURES: Mapping[Measure, Callable[[Sequence[str], Sequence[Sequence[float]], Sequence[str]], float]] = {
    "expected_macro_f1": metrics.expected_macro_f1,
    "gold_probability": metrics.gold_probability,
}
"""Each takes the gold labels, each row's probabilities, and the labels in the order of the probabilities."""


def check_mode(measure: Measure, mode: Mode) -> None:
    """Raise `ValueError` if the measure does not work in this mode."""
    if measure in PROBABILITY_MEASURES and mode != "choose":
        raise ValueError(f"the measure {measure} needs likelihoods, so mode = 'choose'")
    if measure == "released_f1" and mode != "generate":
        raise ValueError("the measure released_f1 reads what the follower writes, so mode = 'generate'")


def apply_measure(measure: Measure, scored: Scored, labels: Sequence[str]) -> float:
    """A score from 0 to 1. Raises `ConfigError` if the measure needs likelihoods and a follower gives none."""
    if measure in ANSWER_MEASURES:
        return ANSWER_MEASURES[measure](scored, labels)
    predictions = scored.predictions
    probabilities = [row.probabilities for row in predictions if row.probabilities is not None]
    if len(probabilities) < len(predictions):
        raise ConfigError(
            f"The measure {measure} needs likelihoods, and a follower gives none. Set reward.measure = 'macro_f1', "
            "or name followers with likelihoods (see `promptmii doctor`)."
        )
    return PROBABILITY_MEASURES[measure](scored.gold, probabilities, labels)
