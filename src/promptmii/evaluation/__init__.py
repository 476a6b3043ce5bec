"""Every method of the paper on a grid of tasks, recorded cell by cell."""

from promptmii.evaluation.estimate import MethodEstimate, estimate
from promptmii.evaluation.run import evaluate

__all__ = ["MethodEstimate", "estimate", "evaluate"]
