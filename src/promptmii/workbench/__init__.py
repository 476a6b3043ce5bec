"""What people do with an instruction once it is written: bind it to a model, label with it, measure it again.

The command line, the Python API and the browser page are thin covers of this package. Nothing here prints: progress
goes to `progress`, and results are values.
"""

from promptmii.workbench.bind import Confirm, bind, refuse
from promptmii.workbench.label import Labelled, predict
from promptmii.workbench.measure import recalibrate, rescore

__all__ = ["Confirm", "Labelled", "bind", "predict", "recalibrate", "refuse", "rescore"]
