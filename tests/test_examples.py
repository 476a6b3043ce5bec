"""The examples run as a user runs them, with the smallest model on a few rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from promptmii.data.sources import bundled_folder

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
SIZES = {"evaluate=12": "evaluate=4", "ROWS = 24": "ROWS = 4", "n=12": "n=4", "budget=60": "budget=24"}


def smaller(program: str) -> str:
    """The program on fewer rows and examples."""
    assert any(size in program for size in SIZES)
    for size, small in SIZES.items():
        program = program.replace(size, small)
    return program


def test_scripts_are_short() -> None:
    assert len(SCRIPTS) == 3
    assert max(len(script.read_text(encoding="utf-8").splitlines()) for script in SCRIPTS) < 40


@pytest.mark.smol
@pytest.mark.parametrize("name", [script.name for script in SCRIPTS])
def test_a_script_runs(name: str, tmp_path: Path) -> None:
    for script in SCRIPTS:  # one imports another
        program = script.read_text(encoding="utf-8")
        (tmp_path / script.name).write_text(program if "import main" in program else smaller(program), encoding="utf-8")
    more = [] if name == "induce_and_predict.py" else [tmp_path / "run", bundled_folder("suite") / "tone.json"]
    done = subprocess.run(
        [sys.executable, name, "smol", *more], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "macro-F1" in done.stdout
    assert ("frequent-words: mean" in done.stdout) == (name == "own_method.py")


@pytest.mark.smol
def test_the_notebook_runs(tmp_path: Path) -> None:
    """Run its cells in order as one program, without Jupyter."""
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "clear the outputs before you commit"
    program = smaller("\n".join(code))
    assert 'MODEL = "qwen"' in program
    program = program.replace('MODEL = "qwen"', 'MODEL = "smol"')
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
