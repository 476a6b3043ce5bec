"""promptmii turns a few labelled examples into a short, reusable, measured LLM instruction, in one forward pass.

This module is the public API. It imports a submodule only when one of its names is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptmii.estimator import PromptClassifier
    from promptmii.follower import Follower, Prediction
    from promptmii.inducers import BestOf, InContext, Inducer, MetaInducer, Naive, Writer
    from promptmii.instruction import Instruction
    from promptmii.measured import Measured
    from promptmii.models import LanguageModel, ScriptedModel, load_model
    from promptmii.pipeline import Induced, induce
    from promptmii.scoring import Scored
    from promptmii.task import Episode, Example, Support, Task
    from promptmii.workbench import Comparison, Extended, compare, edit, extend, predict, score

_MODULES = {
    "estimator": ("PromptClassifier",),
    "follower": ("Follower", "Prediction"),
    "inducers": ("BestOf", "InContext", "Inducer", "MetaInducer", "Naive", "Writer"),
    "instruction": ("Instruction",),
    "measured": ("Measured",),
    "models": ("LanguageModel", "ScriptedModel", "load_model"),
    "pipeline": ("Induced", "induce"),
    "scoring": ("Scored",),
    "task": ("Episode", "Example", "Support", "Task"),
    "workbench": ("Comparison", "Extended", "compare", "edit", "extend", "predict", "score"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BestOf",
    "Comparison",
    "Episode",
    "Example",
    "Extended",
    "Follower",
    "InContext",
    "Induced",
    "Inducer",
    "Instruction",
    "LanguageModel",
    "Measured",
    "MetaInducer",
    "Naive",
    "Prediction",
    "PromptClassifier",
    "Scored",
    "ScriptedModel",
    "Support",
    "Task",
    "Writer",
    "compare",
    "edit",
    "extend",
    "induce",
    "load_model",
    "predict",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'promptmii' has no attribute {name!r}")
    return getattr(import_module(f"promptmii.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
