"""The registry of methods: a new method needs only its own file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.command_line import promptmii
from tests.evaluation.labelling_server import LabellingServer
from tests.evaluation.test_evaluate import server, write_task  # noqa: F401  the fixture

from promptmii.errors import ConfigError
from promptmii.evaluation.plan import EvaluateSettings
from promptmii.inducers import METHODS, method_named


def with_toy(*arguments: str, **environment: str) -> str:
    """Run the command line in a process that imported the toy method."""
    code = "import tests.evaluation.toy_method, promptmii.cli; promptmii.cli.app()"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"} | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_method_is_one_file(server: LabellingServer, tmp_path: Path) -> None:  # noqa: F811
    usage = " ".join(with_toy("evaluate", "--help").split()).replace("- ", "-")
    assert "toy: writes some texts and keeps the longest" in usage
    assert "toy.texts=3 (texts to choose from)" in usage
    assert "Written by --generator. --set options.toy.texts" in usage
    run, report = tmp_path / "run", tmp_path / "report"
    grid = [
        "evaluate",
        "--tasks",
        write_task(tmp_path, "shop"),
        "--methods",
        "naive,toy",
        "--set",
        "options.toy.texts=5",
    ]
    grid += ["-n", "6", "--seeds", "1", "--eval", "12", "--mode", "generate", "--generator", "openai:m"]
    grid += ["--follower", "openai:m", "--base-url", server.url, "-o", str(run), "--json"]
    dry = {line["method"]: line["cost"]["calls"] for line in json.loads(with_toy(*grid, "--dry-run"))}
    assert dry == {"naive": 12, "toy": 12 + 5, "all": 12 + 12 + 5}
    assert json.loads(with_toy(*grid))["done"] == 2
    (made,) = (json.loads(line) for line in (run / "records.jsonl").read_text().splitlines() if '"toy"' in line)
    assert made["instruction"]["cost"]["calls"] == 5
    with_toy("report", str(run), "-o", str(report))
    assert "writes some texts and keeps the longest" in (report / "index.html").read_text()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_explains_itself(name: str) -> None:
    assert method_named(name).name == name
    assert method_named(name).summary.rstrip(".") == method_named(name).summary
    assert all(count >= 0 for n in (1, 2, 5, 100) for count in method_named(name).expected(n))


def test_every_option_of_a_method_is_described_in_the_help() -> None:
    options = [(name, option) for name, method in METHODS.items() for option in method.model_fields.items()]
    assert [(name, option) for name, (option, field) in options if not field.description] == []


def test_method_options_are_a_table_in_files_and_dotted_on_the_command_line(tmp_path: Path) -> None:
    config = tmp_path / "grid.toml"
    config.write_text('tasks = ["suite"]\n[options.ape]\ncalls = 500\nrounds = 1\n[options.best-of-k]\nk = 3\n')
    grid = EvaluateSettings.read(config, options={"ape": {"calls": 20}})
    assert grid.method("ape").model_dump() == {"calls": 20, "rounds": 1}
    assert grid.method("best-of-k").model_dump() == {"k": 3}
    assert grid.method("gepa").model_dump() == {"calls": 150}


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("ape.call=5", "Method ape: Unknown setting 'call'. Did you mean 'calls'?"),
        ("apes.calls=5", "Unknown method 'apes'. Did you mean 'ape'?"),
        ("ape.calls=many", "Method ape: The setting calls = 'many' is refused"),
        ("ape.calls=0", "greater than or equal to 1"),
        ("ape", "expected NAME=VALUE"),
        ("naive.calls=5", "Method naive: Unknown setting 'calls'"),
    ],
)
def test_an_invalid_option_is_named(option: str, words: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = promptmii("evaluate", "--tasks", "suite", "--set", f"options.{option}", "-o", run)
    assert done.exit_code == 2
    assert words in done.stderr
    assert not run.exists()


def test_an_unknown_method_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'gepa'"):
        EvaluateSettings.of(tasks=("suite",), methods=("gepq",))
