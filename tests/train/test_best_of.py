"""Rejection sampling with a generator and a follower that are scripted: the better draft is kept, once, across a stop."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.models.test_local import trained  # noqa: E402, F401  the fixture
from tests.train.test_follower_stage import world  # noqa: E402, F401  the fixture

from promptmii.errors import ConfigError  # noqa: E402
from promptmii.train.best_of import BestOfSettings, best_of  # noqa: E402
from promptmii.train.pairs import read_pairs  # noqa: E402


def given(world: Path, **changes: Any) -> BestOfSettings:  # noqa: F811
    usual: dict[str, Any] = {
        "model": f"hf:{world / 'tiny'}",
        "tasks": (str(world / "tasks"),),
        "only": ("films",),
        "schedule": {3: 1.0},
        "query": 4,
        "validation": {"share": 0.0},
        "drafts": 3,
        "visits": 4,
        "together": 2,
        "margin": 0.0,
        "least": -1.0,
        "budget": 8,
        "reward": {"followers": (f"hf:{world / 'tiny'}",), "mode": "choose", "measure": "gold_probability"},
    }
    return BestOfSettings.of(**usual | changes)


def numbers(run: Path) -> list[int]:
    return [json.loads(line)["visit"] for line in (run / "pairs.jsonl").read_text().splitlines()]


def test_the_best_drafts_become_pairs(world: Path) -> None:  # noqa: F811
    told: list[dict[str, float]] = []
    path = best_of(given(world), world / "run", report=lambda line: told.append(dict(line)))
    assert len(told) == 4
    assert all(line["best"] >= line["train/reward"] for line in told)
    kept = [line for line in told if line["kept"]]
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert [row["reward"] for row in rows] == [round(line["best"], 6) for line in kept]
    if rows:
        assert read_pairs(path)[0].support.labels == ("bad", "good")


def test_a_stopped_run_goes_on_after_the_last_visit(world: Path) -> None:  # noqa: F811
    whole = best_of(given(world), world / "whole")
    best_of(given(world, visits=2), world / "torn")
    torn = best_of(given(world), world / "torn", resume=True)
    assert torn.exists() == whole.exists()
    if whole.exists():
        assert torn.read_text() == whole.read_text()
        assert len(set(numbers(world / "torn"))) == len(numbers(world / "torn"))


def test_settings_of_reinforcement_that_do_not_fit_are_refused(world: Path) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match="drafts"):
        given(world, drafts=1)
