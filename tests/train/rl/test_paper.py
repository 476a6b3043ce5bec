"""The authors' settings: the preset restores them, and every recipe lists where it differs."""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from tests.test_styles import SOURCES
from tests.train.toys import settings, writer_of

from promptmii import Example, Follower, ScriptedModel, Task
from promptmii.configs import recipes
from promptmii.errors import ConfigError, DataError
from promptmii.metrics import released_f1
from promptmii.styles import import_styles, read_style
from promptmii.task import Episode, Support
from promptmii.train.paper import PAPER, RELEASE, TRL
from promptmii.train.reward import Draft, Reward
from promptmii.train.rl.estimate import Estimate, estimate
from promptmii.train.settings import RewardSettings, TrainSettings, stage_of
from promptmii.train.visits import Visits, style_of

pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.usefixtures("new_home")]
RECIPES = {name: path for name, path in recipes("train").items() if stage_of(path) == "rl"}
BIG = ("llama-3.1-8b", "llama-3.1-8b-16gpu", "qwen-2.5-7b")


@pytest.fixture
def _styles(tmp_path: Path, new_home: None) -> None:  # noqa: ARG001
    """The authors' prompts, imported as a user imports them."""
    for name, code in SOURCES.items():
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkout" / name).write_bytes(code.encode())
    import_styles(tmp_path / "checkout", {n: hashlib.sha256(c.encode()).hexdigest() for n, c in SOURCES.items()})


def differing(planned: Estimate) -> set[str]:
    """The settings that differ from the authors'."""
    return {name for name, setting in {**planned.settings, **planned.options}.items() if setting.differs}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_headers_list_every_difference_from_the_authors(name: str, tmp_path: Path) -> None:
    header = (
        RECIPES[name].read_text("utf-8").partition("\nmodel = ")[0].partition("Differences from the authors' run")[2]
    )
    recipe = TrainSettings.read(RECIPES[name])
    if not recipe.tasks:
        recipe = recipe.model_copy(update={"tasks": ("suite",)})
    planned = estimate(recipe, tmp_path / "run")
    names = {*planned.settings, *planned.options}
    listed = {word.rstrip(".") for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)?(?= \()", header)} & names
    assert listed == differing(planned)


@pytest.mark.slow
@pytest.mark.usefixtures("_styles")
@pytest.mark.parametrize("name", BIG)
def test_paper_preset_restores_the_authors_settings(name: str, tmp_path: Path) -> None:
    recipe = TrainSettings.read(RECIPES[name], tasks=("suite",), preset="paper")
    planned = estimate(recipe, tmp_path / "run")
    assert not differing(planned)
    shown = {**planned.settings, **planned.options}
    for table in (PAPER, RELEASE, TRL):
        for setting in table:
            expected = RELEASE.get(setting, table[setting])
            assert (shown[setting].value, setting) == (expected, setting)
    family = "qwen" if "qwen" in name else "llama"
    assert shown["style"].value == f"promptmii-{family}-train"
    assert shown["style"].origin == "preset"
    assert (recipe.validation.every, shown["save_steps"].value) == (30, 100)
    style = read_style(f"promptmii-{family}-train")
    assert style_of(recipe) == style.model_copy(update={"longest": 1024})
    assert (style.answer, style.longest_prompt) == (90, 4096)


def test_user_settings_override_the_preset_and_contradictions_are_refused() -> None:
    preset = TrainSettings.of(
        preset="paper", query=7, reward={"measure": "macro_f1"}, model="hf:Qwen/Qwen2.5-7B-Instruct"
    )
    assert (preset.query, preset.reward.measure, preset.reward.mode) == (7, "macro_f1", "generate")
    assert (preset.fixed, preset.overlong, preset.style) == (True, "drop", "promptmii-qwen-train")
    assert TrainSettings.of(preset="paper", template="mine.txt").style is None
    assert TrainSettings.of(preset="paper", schedule={"5": 1.0}).schedule == {5: 1.0}  # not merged with the paper's
    with pytest.raises(ConfigError, match="needs fixed = true"):
        TrainSettings.of(overlong="drop")
    with pytest.raises(ConfigError, match="give only one"):
        style_of(TrainSettings.of(style="promptmii-qwen-train", template="mine.txt"))
    with pytest.raises(ConfigError, match="mode = 'generate'"):
        TrainSettings.of(reward={"measure": "released_f1", "mode": "choose"})
    with pytest.raises(ConfigError, match="the calibration support needs likelihoods, so mode = 'choose'"):
        TrainSettings.of(reward={"calibration": "support"})
    with pytest.raises(ConfigError, match="promptmii styles import"):
        style_of(TrainSettings.of(style="promptmii-llama-train", tasks=("suite",)))


def test_released_f1_reproduces_the_defects_of_the_authors_code() -> None:
    labels = ("neg", "pos")
    half = ["neg"] * 10 + ["pos"] * 10
    assert released_f1(half, [""] * 20, labels) == pytest.approx(1 / 3)
    assert released_f1(["neg"] * 18 + ["pos"] * 2, [""] * 20, labels) == pytest.approx(0.474, abs=1e-3)
    assert released_f1(["neg"] * 18 + ["pos"] * 2, [""] * 20, labels[::-1]) == pytest.approx(0.091, abs=1e-3)
    assert released_f1(half, ["no idea"] * 10 + [" Pos\n"] * 10, labels) == 1.0
    assert released_f1(half, half, labels) == 1.0


@pytest.mark.usefixtures("_styles")
def test_reward_uses_the_authors_frame_and_measure() -> None:
    model = ScriptedModel(["I would rather say nothing about it"] * 2)
    follower = Follower(model, "generate")
    style = read_style("promptmii-llama-train")
    query = (Example('it says "a"', "a"), Example("x", "b"))
    drafts = [Draft(Episode("t", Support(("a", "b"), query), query, 0), "Decide.", 3)]
    settings = RewardSettings.of(measure="released_f1")
    (judged,) = Reward(settings, [follower], style).judge(drafts)
    assert judged.reward == pytest.approx(1 / 3)
    prompts = [chat[-1]["content"] for chat in model.calls]
    assert prompts[0] == 'Decide.\nSay one of a, b and no "more".\n\nInput: it says "a"'
    (default,) = Reward(RewardSettings.of(), [Follower(ScriptedModel(["a"] * 2), "generate")]).judge(drafts)
    assert default.reward == pytest.approx(2 / 3 / 2)


def long_and_short(name: str) -> Task:
    """A task in which every fifth text is so long that three of them do not fit the prompt."""
    rows = tuple(Example(f"{name} {i} " + "word " * (80 if i % 5 == 0 else 1), "ab"[i % 7 == 0]) for i in range(60))
    return Task(name, ("a", "b"), rows, rows)


def visits_of(world: Path, tasks: list[Task], **changes: Any) -> Visits:
    run_settings = settings(world, **{"longest_prompt": 400, "query": 8, **changes})
    return Visits(tasks, run_settings, writer_of(run_settings))


def test_fixed_passes_reorder_the_same_visits_and_drop_overlong_ones(world: Path) -> None:
    tasks = [long_and_short(f"t{i}") for i in range(12)]
    changes: dict[str, Any] = {"fixed": True, "draw": "random", "overlong": "drop", "schedule": {4: 1.0, 8: 0.5}}
    visits = visits_of(world, tasks, **changes)
    size = int(visits.per_pass)
    assert 0 < size < 12 + 6
    first, second = ([visits.visit(n + k * size) for n in range(size)] for k in range(2))
    assert [v.episode for v in first] != [v.episode for v in second]
    assert Counter(v.episode.support.examples for v in first) == Counter(v.episode.support.examples for v in second)
    assert not any(visit.shortened for visit in first)
    rows = {visit.episode.task: visit.episode.query for visit in first}
    assert all(visit.episode.query == rows[visit.episode.task] for visit in (*first, *second))
    unfixed = visits_of(world, tasks, schedule={4: 1.0})
    assert len({unfixed.visit(n).episode.query for n in range(24)}) == 24
    assert unfixed.per_pass == 12


@pytest.mark.parametrize("changes", [{"overlong": "drop", "schedule": {30: 1.0}}, {"schedule": {4: 0.01}}])
def test_passes_without_visits_are_refused(world: Path, changes: dict[str, Any]) -> None:
    visits = visits_of(world, [long_and_short("t")], fixed=True, **changes)
    with pytest.raises(DataError, match="No visit is left of a pass over 1 task"):
        _ = visits.per_pass
    with pytest.raises(DataError, match="No visit is left"):
        visits.visit(0)


def test_random_draws_may_miss_a_label(world: Path) -> None:
    rows = tuple(Example(f"{i}", "a" if i else "b") for i in range(40))
    task = Task("t", ("a", "b"), rows, rows)
    random, spread = (visits_of(world, [task], draw=draw, schedule={4: 1.0}) for draw in ("random", "spread"))
    shown = {
        name: [{example.label for example in visits.visit(n).episode.support.examples} for n in range(30)]
        for name, visits in (("random", random), ("spread", spread))
    }
    assert {"a"} in shown["random"]
    assert {"a"} not in shown["spread"]
