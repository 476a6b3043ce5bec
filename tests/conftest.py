"""One thread per test process: tests run in as many processes as there are cores (`pytest -n`), and tiny models need no more."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
