"""What an extra asks for and does not find, and the error that says it."""

import pickle
from pathlib import Path

import pytest

from promptmii.errors import MissingDependencyError
from promptmii.extras import unmet


def install(folder: Path, version: str) -> None:
    about = folder / f"vllm-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


@pytest.mark.parametrize(
    ("version", "said"), [("0.33.0", " (0.33.0 is installed)"), ("0.30.0+cu129", None), ("0.27.0", None)]
)
def test_another_version_is_as_bad_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, said: str | None
) -> None:
    install(tmp_path, version)
    monkeypatch.syspath_prepend(tmp_path)
    found = unmet("gpu").get("vllm")
    assert found == (said and f"vllm<0.31,>=0.27{said}")


def test_an_extra_holds_the_extras_inside_it() -> None:
    assert unmet("nothing of the kind") == {}
    assert "pytest" not in unmet("gpu")


def test_the_error_says_what_is_missing_and_survives_pickling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "0.33.0")
    monkeypatch.syspath_prepend(tmp_path)
    error = MissingDependencyError("Training", "gpu")
    assert "vllm<0.31,>=0.27 (0.33.0 is installed)" in str(error)
    assert "pip install 'promptmii[gpu]'" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_import_that_fails_otherwise_is_told_as_it_failed() -> None:
    try:
        raise ImportError("cannot import name 'x' from 'y'")
    except ImportError:
        error = MissingDependencyError("Searching", "nothing of the kind")
    assert "(an import fails: cannot import name 'x' from 'y')" in str(error)
