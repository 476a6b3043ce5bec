"""Evaluate methods on a grid of tasks, recording each cell as it finishes."""

from promptmii.evaluation.estimate import MethodEstimate, estimate
from promptmii.evaluation.run import evaluate

__all__ = ["MethodEstimate", "estimate", "evaluate"]
