"""The two ways in which the authors of Prompt-MII computed macro-F1, so that a run can be read on their scale.

They disagree with each other and with `metrics.macro_f1`, always about answers that are no label (github:
millix19/promptmii at 2722f12). Use them to explain a published number, never to compare methods.

| answer | `metrics.macro_f1` | `reward_f1` | `analysis_f1` |
| --- | --- | --- | --- |
| empty, because the call failed | no score at all | the first label | the row is left out |
| empty otherwise | a miss | the first label | the row is left out |
| text that is no label | a miss | the first label | a class of its own, with F1 = 0 |

Both match by lower case and outer white space alone, so "Positive." is no label to them; our parser reads it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from promptmii.follower import Prediction

LONGEST = 100
"""Characters of an answer that the reward read."""


def answers(predictions: Iterable[Prediction]) -> list[str]:
    """What their scorers would have read: the written text, the chosen label, or nothing if there was no answer."""
    return [
        prediction.answer if prediction.answer is not None else prediction.label or "" for prediction in predictions
    ]


def reward_f1(gold: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> float:
    """Macro-F1 as in their training reward and library (`prompt_gen_batch_sglang_v4_fast_f1.py: compute_f1_score`).

    Whatever matches no label counts as the first label, gold labels too. So silence earns as much as the first label,
    and the order of the labels matters. The mean is over labels in gold or in the answers.
    """
    if not gold:
        return 0.0
    index = {_clean(label): i for i, label in enumerate(labels)}
    right = [index.get(_clean(label), 0) for label in gold]
    given = [index.get(_clean(answer[:LONGEST]), 0) for answer in answers]
    return _f1_over_union(right, given)


def analysis_f1(gold: Sequence[str], answers: Sequence[str]) -> float | None:
    """Macro-F1 as in their tables (`analyze_baseline_results_f1_macro.py: calculate_f1_from_predictions`).

    Rows with an empty answer are left out. The mean is over every text in gold or among the raw answers, so each
    different answer that is no label is one more class with F1 = 0. Their code gives no number (`None`) if no row or a
    single gold label is left, or more gold labels than half the rows.
    """
    rows = [(_clean(label), _clean(answer)) for label, answer in zip(gold, answers, strict=True)]
    rows = [(label, answer) for label, answer in rows if not {label, answer} & {"", "nan"}]
    classes = {label for label, _ in rows}
    if len(classes) < 2 or len(classes) > len(rows) * 0.5:
        return None
    return _f1_over_union([label for label, _ in rows], [answer for _, answer in rows])


def _clean(text: str) -> str:
    return text.lower().strip()


def _f1_over_union(gold: Sequence[Any], predicted: Sequence[Any]) -> float:
    """scikit-learn's `f1_score(average="macro")`, counted directly: a report asks for it once per cell and scorer."""
    occurs = Counter(gold) + Counter(predicted)
    right = Counter(label for label, answer in zip(gold, predicted, strict=True) if label == answer)
    return sum(2 * right[label] / count for label, count in occurs.items()) / len(occurs)
