"""The examples run as a user runs them, with the smallest model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from promptmii.data.sources import bundled_folder

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def test_scripts_are_short() -> None:
    assert len(SCRIPTS) == 3
    assert max(len(script.read_text(encoding="utf-8").splitlines()) for script in SCRIPTS) < 40


@pytest.mark.smol
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_runs(script: Path, tmp_path: Path) -> None:
    more = [] if script.stem == "induce_and_predict" else [tmp_path / "run", bundled_folder("suite") / "tone.json"]
    done = subprocess.run(
        [sys.executable, script, "smol", *more], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "macro-F1" in done.stdout
    assert ("frequent-words: mean" in done.stdout) == (script.stem == "own_method")


@pytest.mark.smol
def test_the_notebook_runs(tmp_path: Path) -> None:
    """Run its cells in order as one program, without Jupyter."""
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "clear the outputs before you commit"
    program = "\n".join(code)
    for own, small in (('MODEL = "qwen"', 'MODEL = "smol"'), ("ROWS = 24", "ROWS = 4"), ("n=12", "n=6")):
        assert own in program
        program = program.replace(own, small)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
