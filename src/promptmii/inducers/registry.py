"""The table of methods. A new method is a module with a subclass of `Method`, and a line here."""

from collections.abc import Mapping
from typing import Any

from promptmii.errors import ConfigError, nearest
from promptmii.inducers.ape import APEMethod
from promptmii.inducers.best_of import BestOfMethod
from promptmii.inducers.classifiers import EmbedMethod, SetFitMethod, TfidfAllMethod, TfidfMethod
from promptmii.inducers.controls import KeywordsMethod, OtherTaskMethod, ShuffledMethod
from promptmii.inducers.fixed import HumanMethod, ICLMethod, NaiveMethod
from promptmii.inducers.gepa import GEPAMethod
from promptmii.inducers.meta import MIIMethod, ZeroMethod
from promptmii.inducers.method import Method
from promptmii.inducers.nearest import NearestMethod
from promptmii.inducers.sft import SFTMethod

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


def method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """The method of that name with these options. Raises `ConfigError` that names the nearest known one."""
    if name not in METHODS:
        raise ConfigError(f"Unknown method {name!r}. {nearest(name, METHODS)}")
    try:
        return METHODS[name].of(**(options or {}))
    except ConfigError as error:
        raise ConfigError(f"Method {name}: {error}") from error
