"""One thread per test process: `pytest -n` starts a process per core, and tiny models need no more."""

import os
import signal

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A busy machine makes no property false.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
# A shell's background job ignores Ctrl-C, and so would the programs that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
