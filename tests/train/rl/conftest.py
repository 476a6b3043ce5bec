"""The toy world that the tests of reinforcement learning train in."""

from pathlib import Path

import pytest


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with tasks and a tiny model."""
    from tests.train.toys import write_model, write_tasks

    write_tasks(tmp_path / "tasks")
    write_model(tmp_path / "tiny")
    return tmp_path
