"""Every method by its name: the one list that the command line, the evaluation and the classifier choose from."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from promptmii.errors import ConfigError, nearest
from promptmii.follower import Follower
from promptmii.inducers.ape import APE
from promptmii.inducers.fixed import Given, InContext, Naive
from promptmii.inducers.gepa import GEPA
from promptmii.inducers.meta import MetaInducer
from promptmii.inducers.search import BestOf
from promptmii.inducers.sft import FineTuning, Recipe
from promptmii.inducers.writing import Writer
from promptmii.instruction import Inducer


class Written(Enum):
    """Which model writes the instruction."""

    BY_NONE = "none"
    BY_GENERATOR = "generator"
    """The one under test."""
    BY_UNTRAINED = "untrained"
    """A model as it was published; the follower itself where none is named."""
    BY_SEARCHER = "searcher"
    """What searches propose with; the follower itself where none is named."""


@dataclass(frozen=True)
class Kit:
    """What methods are made of."""

    writer: Writer
    follower: Follower
    human: str | None = None
    """A human's instruction for the task."""
    best_of: int = 5
    ape_calls: int = 2000
    gepa_calls: int = 150
    sft: Recipe = field(default_factory=Recipe)
    adapters: Path = Path("adapters")


@dataclass(frozen=True)
class Method:
    """How a method is made, and what it depends on."""

    make: Callable[[Kit], Inducer]
    written: Written = Written.BY_NONE
    reads_examples: bool = True


METHODS: dict[str, Method] = {
    "naive": Method(lambda _: Naive(), reads_examples=False),
    "human": Method(lambda kit: Given(kit.human or ""), reads_examples=False),
    "icl": Method(lambda kit: InContext(kit.follower.model)),
    "zero": Method(lambda kit: MetaInducer(kit.writer, name="zero"), Written.BY_UNTRAINED),
    "mii": Method(lambda kit: MetaInducer(kit.writer), Written.BY_GENERATOR),
    "best-of-k": Method(lambda kit: BestOf(kit.writer, kit.follower, kit.best_of), Written.BY_GENERATOR),
    "ape": Method(lambda kit: APE(kit.writer, kit.follower, kit.ape_calls), Written.BY_SEARCHER),
    "gepa": Method(lambda kit: GEPA(kit.writer, kit.follower, kit.gepa_calls), Written.BY_SEARCHER),
    "sft": Method(lambda kit: FineTuning(kit.follower.model.card.reference, kit.adapters, kit.sft)),
}


def method(name: str) -> Method:
    """The method of that name. Raises `ConfigError` that names the nearest one."""
    if name not in METHODS:
        raise ConfigError(f"Unknown method {name!r}. {nearest(name, METHODS)}")
    return METHODS[name]
