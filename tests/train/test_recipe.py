"""Settings, the split of tasks, what is drawn, and the plan of a run."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from tests.train.toys import settings, write_model, write_tasks
from typer.testing import CliRunner

from promptmii import Example, ScriptedModel, Task
from promptmii.cli import app
from promptmii.errors import ConfigError, DataError
from promptmii.inducers import MetaInducer
from promptmii.train.asking import writer_for
from promptmii.train.config import TrainSettings, ValidationSettings
from promptmii.train.episodes import Deck, draw_visit, plan, readable
from promptmii.train.estimate import estimate
from promptmii.train.recipe import algebra, options
from promptmii.train.source import read_source, split

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_tasks(tmp_path / "tasks")
    write_model(tmp_path / "tiny")
    return tmp_path


def test_the_papers_settings_are_the_default_line_by_line() -> None:
    given = TrainSettings.read(CONFIGS / "llama-3.1-8b.toml")
    chosen = options(given)
    paper = {
        "learning_rate": 2e-6,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 0.033,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "num_generations": 5,
        "num_iterations": 1,
        "epsilon": 0.2,
        "epsilon_high": 0.4,
        "delta": 3.0,
        "beta": 0.0,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "temperature": 1.0,
        "top_p": 1.0,
        "max_completion_length": 1024,
        "save_steps": 50,
        "vllm_importance_sampling_correction": False,
    }
    assert {name: chosen[name] for name in paper} == paper
    assert (given.longest_prompt, given.query, given.passes, given.schedule) == (4096, 20, 30, {5: 1.0, 10: 0.3, 20: 0.2, 50: 0.1})
    batches = algebra(given, 3430 * 1.6, given.plan.processes)
    assert (batches.prompts, batches.per_update, batches.boundary, batches.accumulation) == (64, 32, 2, 10)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_this_stage_divides(path: Path) -> None:
    if path.stem in ("poster", "small-follower", "small-writer-sft") or path.stem.startswith("corpus-"):
        pytest.skip("of another command or stage")
    given = TrainSettings.read(path, tasks=("suite",))
    assert algebra(given, 100, given.plan.processes).steps > 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trl": {"lerning_rate": 1.0}}, "Unknown option trl.lerning_rate. Did you mean 'learning_rate'"),
        ({"trl": {"generation_batch_size": 10}}, "Set prompts instead"),
        ({"prompts": 3, "prompts_per_update": 2}, "does not divide into updates"),
        ({"trl": {"per_device_train_batch_size": 3}}, "does not divide into 1 process"),
        (
            {"prompts": 2, "prompts_per_update": 1, "trl": {"save_steps": 3, "per_device_train_batch_size": 4}},
            "save_steps = 3 is no multiple",
        ),
        (
            {"prompts": 2, "prompts_per_update": 1, "trl": {"max_steps": 3, "per_device_train_batch_size": 4}},
            "max_steps = 3 is no multiple",
        ),
        ({"trl": {"num_generations": 1, "per_device_train_batch_size": 1}}, "2 or more"),
        ({"trl": {"loss_type": "nonsense"}}, None),
    ],
)
def test_what_does_not_divide_or_is_unknown_is_refused(world: Path, changes: dict[str, Any], reason: str | None) -> None:
    given = settings(world, **changes)
    if reason is None:
        estimate(given, world / "run")  # only the trainer itself knows its losses
        return
    with pytest.raises(ConfigError, match=reason.replace("(", r"\(")):
        estimate(given, world / "run")


def test_the_plan_is_counted_without_weights_and_writes_nothing(world: Path) -> None:
    (world / "tiny" / "model.safetensors").unlink()
    rates = {"writes": 100, "reads": 1000, "learns": 500, "parameters": 1e6, "layers": 2, "width": 48}
    found = estimate(settings(world, plan=rates), world / "run")
    assert found.counted
    assert found.calls == 4 * 2 * 4 * 12  # steps, prompts, generations, query rows
    assert {name for name, _ in found.hours} == {"generate", "reward", "update"}
    assert all(value > 0 for _, value in (*found.memory, *found.hours))
    assert not (world / "run").exists()


def test_the_command_plans(world: Path) -> None:
    config = world / "config.toml"
    config.write_text('model = "hf:nowhere/at-all"\nquery = 10\nprompts = 4\nschedule = { 4 = 1.0 }\n[trl]\nmax_steps = 10\n')
    done = CliRunner().invoke(app, ["train", str(config), "--tasks", str(world / "tasks"), "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["batches"]["accumulation"] == 5
    wrong = CliRunner().invoke(app, ["train", str(config), "--stage", "lr"])
    assert "Unknown stage 'lr'. Did you mean 'rl'" in wrong.stderr


def test_unusable_tasks_are_named_and_sources_stay_together(world: Path) -> None:
    (world / "tasks" / "few.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    (world / "tasks" / "broken.jsonl").write_text("{")
    found = read_source(settings(world))
    assert [task.name for task in found.train] == ["films", "plays"]
    assert [task.name for task in found.validation] == ["songs"]
    assert sorted(line.partition(":")[0] for line in found.skipped) == ["broken", "few"]
    with pytest.raises(ConfigError, match=r"no task 'song'. Did you mean 'songs'"):
        read_source(settings(world, only=("song",)))
    index = "task_id,source_repo,licence\nfilms,a/b,MIT\nplays,a/b,MIT\nsongs,c/d,MIT\n"
    (world / "tasks" / "index.csv").write_text(index)
    with pytest.raises(DataError, match="No task is left to learn from"):
        read_source(settings(world, validation={"tasks": ("songs", "films")}))


def test_a_source_is_on_one_side_and_the_share_is_kept() -> None:
    def task(number: int) -> Task:
        rows = tuple(Example(f"{number} {i}", "ab"[i % 2]) for i in range(4))
        return Task(str(number), ("a", "b"), rows, (), source={"group": f"group {number // 3}"})

    tasks = [task(number) for number in range(60)]
    train, validation = split(tasks, ValidationSettings(share=0.25))
    sides = [{t.source["group"] for t in part} for part in (train, validation)]
    assert not sides[0] & sides[1]
    assert (len(train), len(validation)) == (45, 15)
    assert split(tasks[::-1], ValidationSettings(share=0.25))[1] == validation[::-1]


def test_passes_follow_the_schedule_with_few_tasks_too() -> None:
    visits = [visit for one in islice(plan(3, {5: 1.0, 10: 0.3, 50: 0.1}, seed=1), 400) for visit in one]
    counts = Counter(n for _, n in visits)
    assert counts[5] == 1200
    assert counts[10] == pytest.approx(360, rel=0.15)
    assert counts[50] == pytest.approx(120, rel=0.25)


def test_a_visit_is_asked_as_instructions_are_made_and_drawn_anew_each_time(world: Path) -> None:
    given = settings(world)
    model = ScriptedModel(reply=["an instruction"])
    deck = Deck(read_source(given).train, given, writer_for(given, model))
    visits = [deck.visit(number) for number in range(8)]
    assert deck.visit(3) == Deck(read_source(given).train, given, writer_for(given, model)).visit(3)
    assert len({visit.episode.query for visit in visits}) == 8
    for visit in visits:
        counts = Counter(row.label for row in visit.episode.query)
        assert set(counts.values()) == {6}
        MetaInducer(writer_for(given, model)).induce(visit.episode.support)
        assert tuple(model.calls[-1]) == visit.chat


def test_long_prompts_read_fewer_examples_and_are_counted(world: Path) -> None:
    given = settings(world, longest_prompt=310, schedule={20: 1.0})
    deck = Deck(read_source(given).train, given, writer_for(given, ScriptedModel()))
    visit = deck.visit(0)
    assert visit.shortened
    assert 0 < len(visit.episode.support.examples) < 20


def test_a_task_of_which_no_example_fits_is_named_before_the_first_step(world: Path) -> None:
    none = settings(world, longest_prompt=64)
    kept, skipped = readable(read_source(none).train, writer_for(none, ScriptedModel()))
    assert kept == []
    assert [line.partition(":")[0] for line in skipped] == ["films", "plays"]


def test_a_visit_whose_draws_are_all_too_long_reads_the_shortest_example(world: Path) -> None:
    long = "word " * 300
    task = Task(
        "books", ("a", "b"), (*(Example(f"{long}{i}", "ab"[i % 2]) for i in range(200)), Example("short", "a")), (Example("x", "a"),)
    )
    given = settings(world, longest_prompt=310)
    writer = writer_for(given, ScriptedModel())
    assert readable([task], writer) == ([task], [])
    visits = [draw_visit(task, 2, number, given, writer) for number in range(20)]
    assert {visit.episode.support.examples for visit in visits} == {(Example("short", "a"),)}
