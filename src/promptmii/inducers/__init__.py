"""The methods that turn examples into an instruction, and their table. All implement `Inducer`.

To add a method, write a module with a subclass of `Method` and list it in `METHODS`.
"""

from collections.abc import Mapping
from typing import Any

from promptmii.errors import ConfigError
from promptmii.inducers.ape import APEMethod
from promptmii.inducers.classifiers import EmbedMethod, SetFitMethod, TfidfAllMethod, TfidfMethod
from promptmii.inducers.controls import KeywordsMethod, OtherTaskMethod, ShuffledMethod
from promptmii.inducers.drafts import copied_runs
from promptmii.inducers.fixed import FixedInstruction, HumanMethod, Naive, NaiveMethod
from promptmii.inducers.gepa import GEPAMethod
from promptmii.inducers.icl import ICLMethod, InContext
from promptmii.inducers.keeping import Keeping, marked_lines
from promptmii.inducers.meta import BestOf, BestOfMethod, MetaInducer, MIIMethod, ZeroMethod
from promptmii.inducers.method import Expected, Inducer, Kit, Method, Role, WrittenBy
from promptmii.inducers.neighbours import NearestMethod
from promptmii.inducers.sft import SFTMethod
from promptmii.inducers.writing import Writer
from promptmii.messages import nearest

__all__ = [
    "METHODS",
    "BestOf",
    "Expected",
    "FixedInstruction",
    "InContext",
    "Inducer",
    "Keeping",
    "Kit",
    "MetaInducer",
    "Method",
    "Naive",
    "Role",
    "SFTMethod",
    "Writer",
    "WrittenBy",
    "copied_runs",
    "marked_lines",
    "method_named",
]

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        NaiveMethod,
        HumanMethod,
        ICLMethod,
        ZeroMethod,
        MIIMethod,
        BestOfMethod,
        APEMethod,
        GEPAMethod,
        SFTMethod,
        TfidfMethod,
        TfidfAllMethod,
        EmbedMethod,
        SetFitMethod,
        NearestMethod,
        KeywordsMethod,
        ShuffledMethod,
        OtherTaskMethod,
    )
}


def method_named(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """The method with this name and these options. Raises `ConfigError`; for an unknown name, it suggests another."""
    if name not in METHODS:
        raise ConfigError(f"Unknown method {name!r}. {nearest(name, METHODS)}")
    try:
        return METHODS[name].of(**(options or {}))
    except ConfigError as error:
        raise ConfigError(f"Method {name}: {error}") from error
