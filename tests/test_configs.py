"""Recipes ship with the package and are found by name or path."""

from pathlib import Path

import pytest
from tests.command_line import promptmii

from promptmii.configs import config_path, recipes, summary
from promptmii.errors import ConfigError
from promptmii.evaluation.plan import EvaluateSettings


@pytest.mark.parametrize("command", ["train", "evaluate", "corpus"])
def test_every_recipe_is_found_by_name_and_has_a_summary(command: str) -> None:
    found = recipes(command)
    assert found
    for name, path in found.items():
        assert config_path(command, name) == path
        assert len(summary(path)) > 30


def test_a_file_of_the_user_takes_precedence_over_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("poster").write_text("n = [5]")
    assert EvaluateSettings.read(config_path("evaluate", "poster"), tasks=("suite",)).n == (5,)
    assert EvaluateSettings.read(recipes("evaluate")["poster"], tasks=("suite",)).n == (5, 10, 20, 50, 100)


def test_an_unknown_recipe_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'smol-cpu'\? Known: .*warm-start"):
        config_path("train", "smol_cpu")
    done = promptmii("evaluate", tmp_path / "none.toml")
    assert done.exit_code == 2
    assert "poster" in done.stderr


@pytest.mark.parametrize("program", ["promptmii", "python -m promptmii"])
@pytest.mark.parametrize("command", [["train"], ["launch"], ["evaluate"], ["corpus", "build"]])
def test_the_list_names_every_recipe(command: list[str], program: str) -> None:
    done = promptmii(*command, "--list", program=program)
    assert done.exit_code == 0
    listed = recipes("train" if command == ["launch"] else command[0])
    assert listed
    assert all(f"{name}: " in done.stdout for name in listed)
