"""The kinds of calibration and the data that each is fitted on. `calibrate` fits them."""

from collections.abc import Mapping
from enum import Enum
from typing import Literal

FixedCalibration = Literal["none", "contextual", "support", "supervised"]
"""Kinds that an instruction file can hold, because they are fitted before any text is labelled."""
CalibrationKind = Literal[FixedCalibration, "batch"]


class Reads(Enum):
    """The data that a calibration is fitted on."""

    NOTHING = "nothing"
    CONTENT_FREE = "content-free inputs"
    SUPPORT = "the support"
    QUERY = "the query"


READS: Mapping[CalibrationKind, Reads] = {
    "none": Reads.NOTHING,
    "contextual": Reads.CONTENT_FREE,
    "support": Reads.SUPPORT,
    "supervised": Reads.SUPPORT,
    "batch": Reads.QUERY,
}
