"""The contact with TRL: what `PolicyTrainer` overrides and uses is still there, with the same parameters.

If this fails, TRL or transformers moved. Read the new code of the methods named, mend `train/rl/trainer.py`, then raise
the cap in pyproject.toml.
"""

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("trl")

from packaging.requirements import Requirement
from trl.trainer.grpo_trainer import GRPOTrainer

from promptmii.train.rl.trainer import OVERRIDDEN, USED, PolicyTrainer

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_an_overridden_method_has_the_parameters_it_had(name: str) -> None:
    method = getattr(GRPOTrainer, name, None)
    assert method is not None, f"TRL {version('trl')} has no {name} any more; see {__file__}"
    assert " ".join(list(inspect.signature(method).parameters)[1:]) == OVERRIDDEN[name][0]


def test_every_override_is_listed() -> None:
    own = {name for name, value in vars(PolicyTrainer).items() if inspect.isfunction(value) and name != "__init__"}
    assert {name for name in own if hasattr(GRPOTrainer, name)} == set(OVERRIDDEN)


@pytest.mark.parametrize("name", USED)
def test_a_name_that_is_used_is_still_there(name: str) -> None:
    assert f"self.{name}" in inspect.getsource(GRPOTrainer), f"TRL {version('trl')} has no {name} any more"


def test_the_versions_that_are_installed_are_inside_the_cap() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {r.name: r for r in map(Requirement, project["optional-dependencies"]["train"])}
    for name in ("trl", "transformers"):
        assert "<" in str(asked[name].specifier), f"{name} has no cap in the extra train"
        assert asked[name].specifier.contains(version(name))
