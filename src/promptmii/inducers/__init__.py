"""Every way of turning examples into an instruction, behind one protocol (`instruction.Inducer`)."""

from promptmii.inducers.ape import APE
from promptmii.inducers.best_of import BestOf
from promptmii.inducers.copying import copied_runs
from promptmii.inducers.fixed import Given, InContext, Naive
from promptmii.inducers.gepa import GEPA
from promptmii.inducers.keeping import Keeping, marked_lines
from promptmii.inducers.meta import MetaInducer
from promptmii.inducers.method import Expected, Kit, Method, Role, WrittenBy
from promptmii.inducers.registry import METHODS, method
from promptmii.inducers.sft import FineTuning, SFTMethod
from promptmii.inducers.writing import Writer

__all__ = [
    "APE",
    "GEPA",
    "METHODS",
    "BestOf",
    "Expected",
    "FineTuning",
    "Given",
    "InContext",
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
    "method",
]
