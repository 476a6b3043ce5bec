"""One thread per test process: `pytest -n` starts a process per core, and tiny models need no more."""

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A slow example on a busy machine must not fail a property.
settings.register_profile("busy", deadline=None)
# For `make test-core`: fewer examples of each property. `make test` tries all.
settings.register_profile("quick", settings.get_profile("busy"), max_examples=15)
settings.load_profile("busy")
# A shell's background job ignores Ctrl-C, and programs that the tests start and interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The garbage collector would search the modules of torch and its like again and again, while they load and ever after.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture
def new_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data folder of a user who has imported no styles."""
    for name in ("XDG_DATA_HOME", "HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
