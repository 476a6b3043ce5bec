"""How well a follower obeys on tasks it does not learn from: each rendering, label names kept and hidden, through `score`."""

import random
from collections.abc import Iterator, Mapping
from statistics import fmean

from promptmii.data import sample
from promptmii.data.nameless import hide
from promptmii.follower import Follower
from promptmii.inducers import InContext, Naive
from promptmii.instruction import Instruction
from promptmii.models.base import LanguageModel
from promptmii.scoring import score
from promptmii.task import Example, Support, Task
from promptmii.train.bank import Guide
from promptmii.train.cues import Cues
from promptmii.train.follower_settings import FollowerSettings

WORDS = 5
"""Cue words of a label in the guide of a perfect writer."""


def check(
    model: LanguageModel, tasks: Mapping[str, Task], bank: Mapping[str, Guide], settings: FollowerSettings
) -> dict[str, float]:
    """Macro-F1 (`batch` calibration) of each rendering and task, the means over tasks, and `validation/reward`, the mean of those.

    The same rows, names and guides at every call. Raises `ScoreRefusedError` when the model fails on a row.
    """
    follower = Follower(model, "choose", "batch")
    found: dict[str, dict[str, float]] = {}
    for name, task in tasks.items():
        episode = sample(task, min(settings.check_examples, len(task.train)), query=settings.check_rows)
        for kind, shown in _names(name, task):
            support = Support(tuple(shown.values()), _renamed(episode.support.examples, shown))
            guides = _guides(task, episode.support, shown, bank.get(name), settings.mix.cues > 0)
            for rendering, instruction in (
                ("naive", Naive().induce(support)),
                ("icl", InContext(model).induce(support)),
                *guides,
            ):
                if kind and rendering == "naive":
                    continue  # nothing is said of the labels, not even their names
                scored = score(follower, instruction, _renamed(episode.query, shown))
                scored.refuse_failures()
                found.setdefault(rendering + kind, {})[name] = scored.macro_f1 or 0.0
    means = {f"validation/{kind}": fmean(values.values()) for kind, values in found.items()}
    single = {f"validation/{kind}/{name}": value for kind, values in found.items() for name, value in values.items()}
    return {"validation/reward": fmean(means.values()), **means, **single} if means else {}


def _names(name: str, task: Task) -> Iterator[tuple[str, dict[str, str]]]:
    yield "", {label: label for label in task.labels}
    yield "-hidden", hide(task.labels, random.Random(name))


def _guides(
    task: Task, support: Support, shown: Mapping[str, str], guide: Guide | None, named: bool
) -> Iterator[tuple[str, Instruction]]:
    """What the bank says of the labels, and the same (if `named`) with the cue words of the support: what a perfect writer would write."""
    if guide is None or not guide.covers(list(shown)):
        return
    yield "instruction", _instruction(guide.text(shown, random.Random(task.name)), shown)
    if named:
        seen = {label: [e.text for e in support.examples if e.label == label] for label in shown}
        rows = {label: [e for e in task.train if e.label == label] for label in shown}
        yield "cues", _instruction(guide.plain(shown, Cues(rows).of(seen, WORDS)), shown)


def _instruction(text: str, shown: Mapping[str, str]) -> Instruction:
    return Instruction(text=text, labels=tuple(shown.values()), method="guide")


def _renamed(examples: tuple[Example, ...], shown: Mapping[str, str]) -> tuple[Example, ...]:
    return tuple(Example(example.text, shown[example.label]) for example in examples)
