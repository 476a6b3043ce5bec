"""What people do with an instruction once it is written: bind it to a model, label with it, measure it again.

The command line, the Python API and the browser page are thin covers of this package. Nothing here prints: progress
goes to `progress`, and results are values.
"""

from promptmii.workbench.abstain import Abstain, Threshold
from promptmii.workbench.batch import Pending, bound_for_batch, predict_by_batch
from promptmii.workbench.bind import Answering, Confirm, Followers, bind, calibration_notes, refuse
from promptmii.workbench.compare import Comparison, compare
from promptmii.workbench.edit import edit
from promptmii.workbench.extend import Extended, extend
from promptmii.workbench.file_run import Labelled
from promptmii.workbench.given import Prompt
from promptmii.workbench.growing import check_output
from promptmii.workbench.label import predict
from promptmii.workbench.measure import Measured, recalibrate, score

__all__ = [
    "Abstain",
    "Answering",
    "Comparison",
    "Confirm",
    "Extended",
    "Followers",
    "Labelled",
    "Measured",
    "Pending",
    "Prompt",
    "Threshold",
    "bind",
    "bound_for_batch",
    "calibration_notes",
    "check_output",
    "compare",
    "edit",
    "extend",
    "predict",
    "predict_by_batch",
    "recalibrate",
    "refuse",
    "score",
]
