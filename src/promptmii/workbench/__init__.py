"""What people do with an instruction once it is written: bind it to a model, label with it, measure it again.

The command line, the Python API and the browser page are thin covers of this package. Nothing here prints: progress
goes to `progress`, and results are values.
"""

from promptmii.workbench.abstain import Abstain, Threshold
from promptmii.workbench.batch import Pending, batch_followers, predict_by_batch
from promptmii.workbench.compare import Comparison, compare
from promptmii.workbench.edit import Extended, edit, extend
from promptmii.workbench.followers import Answering, Followers, calibration_notes
from promptmii.workbench.growing import check_output
from promptmii.workbench.label import Labelled, predict
from promptmii.workbench.measure import Measured, recalibrate, score

__all__ = [
    "Abstain",
    "Answering",
    "Comparison",
    "Extended",
    "Followers",
    "Labelled",
    "Measured",
    "Pending",
    "Threshold",
    "batch_followers",
    "calibration_notes",
    "check_output",
    "compare",
    "edit",
    "extend",
    "predict",
    "predict_by_batch",
    "recalibrate",
    "score",
]
