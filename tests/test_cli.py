"""The command line as a user types it: arguments, output, exit code."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from promptmii import Naive, Support
from promptmii.cli import app
from promptmii.data import demo_path


def run(*arguments: str | Path, stdin: str = "") -> Result:
    done = CliRunner().invoke(app, [*map(str, arguments)], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture
def made(tmp_path) -> Path:
    instruction = Naive().induce(Support(("good", "bad"), ()))
    return instruction.model_copy(update={"follower": "smol", "mode": "choose"}).save(tmp_path / "made.json")


@pytest.mark.parametrize("command", ["induce", "predict", "score", "show", "doctor", "models", "evaluate", "report"])
def test_every_command_has_help_and_is_documented(command: str) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "Usage" in done.stdout
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"promptmii {command}" in readme


def test_show_prints_the_instruction_and_its_json(made: Path) -> None:
    assert "good, bad" in run("show", made).stdout
    assert json.loads(run("show", made, "--json").stdout)["labels"] == ["good", "bad"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["induce", "nothing.csv"], 2, "does not exist"),
        (["induce", demo_path(), "--label", "lable"], 2, "Did you mean 'label'"),
        (["induce", demo_path(), "-n", "9999"], 2, "the training part"),
        (["induce", demo_path(), "--price", "cheap"], 2, "two numbers"),
        (["induce", demo_path(), "--generator", "gpt"], 3, "Unknown model reference"),
        (["induce", demo_path(), "-o", "/nowhere/out.json"], 2, "does not exist"),
        (["show", demo_path()], 2, "not an instruction file"),
        (["induce"], 2, "Missing argument"),
        (["doctor", "hf:/no/such/folder"], 3, "cannot be loaded"),
    ],
)
def test_bad_input_is_one_clear_error_and_an_exit_code(arguments, code: int, words: str) -> None:
    done = run(*arguments)
    assert done.exit_code == code
    assert words in " ".join((done.stderr + done.stdout).replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_an_existing_output_is_kept_without_force(made: Path) -> None:
    before = made.read_bytes()
    done = run("induce", demo_path(), "-o", made)
    assert done.exit_code == 2
    assert "--force" in done.stderr
    assert made.read_bytes() == before


@pytest.mark.smol
@pytest.mark.timeout(1800)
def test_the_main_job_with_the_embedded_model(tmp_path) -> None:
    out = tmp_path / "demo.json"
    done = run("induce", demo_path(), "-n", "12", "--budget", "24", "--eval", "12", "-o", out, "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert [row["method"] for row in result["comparison"]] == ["naive", "icl", "mii"]
    assert json.loads(out.read_text())["measured"] == result["instruction"]["measured"]
    labelled = run("predict", out, "-", "-o", tmp_path / "out.csv", stdin="my parcel is late\nI want my money back\n")
    assert labelled.exit_code == 0, labelled.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3
    scored = run("score", out, demo_path(), "--json")
    assert json.loads(scored.stdout)["measured"]["n"] == 120
