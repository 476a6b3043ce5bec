"""Every way of turning examples into an instruction, behind one protocol (`instruction.Inducer`)."""

from promptmii.inducers.ape import APE
from promptmii.inducers.copying import copied_runs
from promptmii.inducers.fixed import Given, InContext, Naive
from promptmii.inducers.gepa import GEPA
from promptmii.inducers.meta import MetaInducer
from promptmii.inducers.registry import METHODS, Kit, Method, Written, method
from promptmii.inducers.search import BestOf
from promptmii.inducers.sft import FineTuning, Recipe
from promptmii.inducers.writing import Writer

__all__ = [
    "APE",
    "GEPA",
    "METHODS",
    "BestOf",
    "FineTuning",
    "Given",
    "InContext",
    "Kit",
    "MetaInducer",
    "Method",
    "Naive",
    "Recipe",
    "Writer",
    "Written",
    "copied_runs",
    "method",
]
