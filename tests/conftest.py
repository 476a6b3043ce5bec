"""One thread per test process: `pytest -n` starts a process per core, and tiny models need no more."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A busy machine makes no property false.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
