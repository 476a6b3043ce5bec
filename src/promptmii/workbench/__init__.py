"""Work with an existing instruction: label texts, measure, compare, edit and recalibrate.

The command line, the Python API and the browser page are thin layers over this package. Nothing here prints: functions
report to `progress` and return their results.
"""

from promptmii.workbench.abstain import Abstain
from promptmii.workbench.batch import Pending, batch_followers, predict_by_batch
from promptmii.workbench.compare import Comparison, compare
from promptmii.workbench.edit import Extended, edit, extend
from promptmii.workbench.followers import Followers, calibration_notes
from promptmii.workbench.growing_table import check_output
from promptmii.workbench.measure import recalibrate, score
from promptmii.workbench.predict import Labelled, predict

__all__ = [
    "Abstain",
    "Comparison",
    "Extended",
    "Followers",
    "Labelled",
    "Pending",
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
