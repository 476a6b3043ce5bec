"""The unmet requirements of an extra, and the error that names them."""

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
    ("version", "reason"), [("0.33.0", " (0.33.0 is installed)"), ("0.30.0+cu129", None), ("0.27.0", None)]
)
def test_a_wrong_version_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, reason: str | None
) -> None:
    install(tmp_path, version)
    monkeypatch.syspath_prepend(tmp_path)
    requirement = unmet("gpu").get("vllm")
    assert requirement == (reason and f"vllm<0.31,>=0.27{reason}")


def test_an_extra_includes_its_nested_extras() -> None:
    assert unmet("nothing of the kind") == {}
    assert "pytest" not in unmet("gpu")


def test_the_error_says_what_is_missing_and_survives_pickling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "0.33.0")
    monkeypatch.syspath_prepend(tmp_path)
    error = MissingDependencyError("Training", "gpu")
    assert "vllm<0.31,>=0.27 (0.33.0 is installed)" in str(error)
    assert "pip install 'promptmii[gpu]'" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_reason_for_another_failed_import_is_reported() -> None:
    try:
        raise ImportError("cannot import name 'x' from 'y'")
    except ImportError:
        error = MissingDependencyError("Searching", "nothing of the kind")
    assert "(an import fails: cannot import name 'x' from 'y')" in str(error)
