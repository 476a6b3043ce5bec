"""Every way of turning examples into an instruction, behind one protocol (`instruction.Inducer`)."""

from promptmii.inducers.copying import copied_runs
from promptmii.inducers.fixed import Given, InContext, Naive
from promptmii.inducers.meta import BestOf, MetaInducer, Writer

__all__ = ["BestOf", "Given", "InContext", "MetaInducer", "Naive", "Writer", "copied_runs"]
