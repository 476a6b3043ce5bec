"""Settings, the split of tasks, the visits drawn from them, and the dry run."""

import inspect
import json
import re
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import pyarrow as pa
import pyarrow.parquet as pq
from tests.command_line import promptmii
from tests.recorder import Recorder
from tests.train.toys import settings, writer_of
from transformers import BloomConfig

from promptmii import Example, ScriptedModel, Task
from promptmii.configs import recipes
from promptmii.data.corpus_files import SCHEMA, task_row, write_split
from promptmii.errors import ConfigError, DataError
from promptmii.inducers import MetaInducer
from promptmii.train.paper import SAVE_EVERY, TRL, VALIDATE_EVERY
from promptmii.train.rl.estimate import estimate
from promptmii.train.rl.plan import CHOICES, grpo_plan
from promptmii.train.settings import RewardSettings, TrainSettings, ValidationSettings, stage_of
from promptmii.train.tasks import TaskSplit, read_split, split
from promptmii.train.visits import Visits, draw_visit, passes, readable

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
RECIPES = {name: path for name, path in recipes("train").items() if stage_of(path) == "rl"}


@pytest.mark.parametrize("recipe", ["llama-3.1-8b", "llama-3.1-8b-16gpu", "qwen-2.5-7b"])
def test_big_recipes_use_the_papers_settings(recipe: str) -> None:
    recipe_settings = TrainSettings.read(RECIPES[recipe])
    grpo = grpo_plan(recipe_settings)
    assert {name: grpo.options[name] for name in TRL} == TRL
    assert (recipe_settings.longest_prompt, recipe_settings.query, recipe_settings.passes) == (4096, 20, 30)
    assert recipe_settings.schedule == {5: 1.0, 10: 0.3, 20: 0.2, 50: 0.1}
    batches = grpo.batches(3430 * 1.6)
    assert (batches.prompts, batches.per_update, batches.steps_per_rollout) == (64, 32, 2)
    assert batches.accumulation * batches.per_device * batches.processes == 160
    # The authors count rollouts; here each rollout is two optimiser steps.
    assert (recipe_settings.validation.every, grpo.options["save_steps"]) == (VALIDATE_EVERY * 2, SAVE_EVERY * 2)


def test_checkpoints_are_fifty_rollouts_apart_by_default() -> None:
    assert grpo_plan(TrainSettings()).options["save_steps"] == 50
    assert grpo_plan(TrainSettings(prompts=64, prompts_per_update=16)).options["save_steps"] == 200


def test_loss_types_match_the_installed_trl() -> None:
    from trl.trainer.grpo_trainer import GRPOTrainer

    code = inspect.getsource(GRPOTrainer._compute_loss)
    comparisons = re.findall(r"self\.loss_type (?:==|in) (\[.*?\]|\".*?\")", code)
    loss_types = {name for comparison in comparisons for name in re.findall(r'"(\w+)"', comparison)}
    assert loss_types == set(CHOICES["loss_type"])


@pytest.mark.parametrize("path", RECIPES.values(), ids=lambda path: path.stem)
def test_batches_of_every_rl_recipe_divide_evenly(path: Path) -> None:
    recipe = TrainSettings.read(path, tasks=("suite",))
    assert grpo_plan(recipe).batches(100).steps > 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trl": {"lerning_rate": 1.0}}, "Unknown option trl.lerning_rate. Did you mean 'learning_rate'"),
        ({"trl": {"generation_batch_size": 10}}, "Set prompts instead"),
        ({"trl": {"gradient_checkpointing": True}}, "Set trl.activation_checkpointing instead"),
        ({"prompts": 3, "prompts_per_update": 2}, "does not divide into updates"),
        ({"trl": {"per_device_train_batch_size": 3}}, "does not divide into 1 process"),
        (
            {"prompts": 2, "prompts_per_update": 1, "trl": {"save_steps": 3, "per_device_train_batch_size": 4}},
            "save_steps = 3 is not a multiple",
        ),
        (
            {"prompts": 2, "prompts_per_update": 1, "trl": {"max_steps": 3, "per_device_train_batch_size": 4}},
            "max_steps = 3 is not a multiple",
        ),
        ({"trl": {"num_generations": 1, "per_device_train_batch_size": 1}}, "2 or more"),
        ({"trl": {"loss_type": "gropo"}}, "trl.loss_type = 'gropo' is unknown to TRL. Did you mean 'grpo'"),
        ({"trl": {"vllm_mode": "collocate"}}, "Did you mean 'colocate'"),
        ({"trl": {"use_vllm": True, "vllm_max_model_length": 407}}, "Set it to 408 or more"),
        ({"trl": {"max_steps": 0}}, "trl.max_steps is 0; expected a number of 1 or more"),
        ({"trl": {"max_steps": -3}}, "trl.max_steps is -3"),
        ({"trl": {"temperature": -1.0}}, "trl.temperature is -1.0"),
        ({"trl": {"temperature": float("nan")}}, "trl.temperature is nan"),
        ({"trl": {"top_p": 0}}, "trl.top_p is 0; expected a number above 0, up to 1"),
        ({"trl": {"top_p": 1.1}}, "trl.top_p is 1.1"),
        ({"trl": {"save_steps": "x"}}, "trl.save_steps is 'x'"),
        ({"trl": {"num_generations": "x"}}, "trl.num_generations is 'x'"),
        ({"trl": {"num_iterations": 0}}, "trl.num_iterations is 0"),
        ({"trl": {"report_to": "tensorbord"}}, "trl.report_to names 'tensorbord', which is unknown or not installed"),
        ({"trl": {"hub_token": "hf_x"}}, "Set HF_TOKEN in the environment"),
    ],
)
def test_invalid_or_indivisible_settings_are_refused(world: Path, changes: dict[str, Any], reason: str) -> None:
    run_settings = settings(world, **changes)
    with pytest.raises(ConfigError, match=reason.replace("(", r"\(")):
        estimate(run_settings, world / "run")


def test_password_in_a_follower_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds a user name or password") as caught:
        RewardSettings.of(followers=("openai:m@http://bob:hunter2@localhost:9/v1",))
    assert "hunter2" not in str(caught.value)


def test_dry_run_needs_no_weights_and_writes_nothing(world: Path) -> None:
    (world / "tiny" / "model.safetensors").unlink()
    rates = {"writes": 100, "reads": 1000, "learns": 500}
    planned = estimate(settings(world, plan=rates), world / "run")
    assert planned.counted
    assert planned.calls == 4 * 2 * 4 * 12  # steps, prompts, generations, query rows
    # One case of 24 rows, at steps 0, 2 and 4.
    assert (planned.validations, planned.validation_cases, planned.validation_calls) == (3, 1, 3 * 24)
    assert {name for name, _ in planned.hours} == {"generate", "reward", "update", "validation"}
    assert planned.warnings == ()
    assert all(value > 0 for _, value in planned.hours)
    assert not (world / "run").exists()


@pytest.mark.slow
def test_update_hours_count_every_iteration_over_a_rollout(world: Path) -> None:
    rates = {"writes": 100, "reads": 1000, "learns": 500}
    once, twice = (
        estimate(settings(world, plan=rates, trl={"num_iterations": number, "max_steps": 4 * number}), world / "run")
        for number in (1, 2)
    )
    assert dict(twice.hours)["update"] == pytest.approx(2 * dict(once.hours)["update"])
    assert dict(twice.hours)["generate"] == dict(once.hours)["generate"]


def test_a_dry_run_refuses_a_model_that_cannot_be_trained(world: Path) -> None:
    options = ["train", "smoke", "--tasks", str(world / "tasks"), "--dry-run", "--model"]
    for model in ("nosuch", "openai:gpt-5", "gguf:model.gguf"):
        result = promptmii(*options, model)
        assert result.exit_code == 2, result.output
        assert f"The model to train is {model!r}" in result.stderr


def test_train_command_prints_the_dry_run(world: Path) -> None:
    config = world / "config.toml"
    config.write_text(
        'model = "hf:nowhere/at-all"\nquery = 10\nprompts = 4\nschedule = { 4 = 1.0 }\n[trl]\nmax_steps = 10\n'
    )
    result = promptmii("train", config, "--tasks", world / "tasks", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["batches"]["accumulation"] == 5
    assert plan["settings"]["query"] == {"value": 10, "origin": "given", "paper": 20, "release": None}
    assert plan["settings"]["reward.mode"] == {
        "value": "generate",
        "origin": "paper",
        "paper": "generate",
        "release": None,
    }
    assert plan["settings"]["prompts_per_update"]["origin"] == "promptmii"  # the paper has 32
    assert plan["options"]["learning_rate"] == {"value": 2e-6, "origin": "paper", "paper": 2e-6, "release": None}
    assert plan["options"]["logging_steps"] == {"value": 1, "origin": "promptmii", "paper": None, "release": None}
    table = promptmii("train", config, "--tasks", world / "tasks", "--dry-run")
    assert "validation.every" in table.stdout
    assert "per_device_train_batch_size" in table.stdout
    assert "= 1 process x 4 x 5 accumulated" in table.stdout
    other_stage = promptmii("train", config, "--stage", "best-of", "--dry-run")
    assert "work for the stage rl only" in other_stage.stderr
    unknown_stage = promptmii("train", config, "--stage", "lr")
    assert "stage = 'lr' is refused: Input should be 'rl', 'sft' or 'best-of'" in unknown_stage.stderr


def test_unusable_tasks_are_named_and_sources_are_not_split(world: Path) -> None:
    (world / "tasks" / "few.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    (world / "tasks" / "broken.jsonl").write_text("{")
    tasks = read_split(settings(world))
    assert [task.name for task in tasks.train] == ["films", "plays"]
    assert [task.name for task in tasks.validation] == ["songs"]
    assert sorted(line.partition(":")[0] for line in tasks.skipped) == ["broken", "few"]
    with pytest.raises(DataError, match=r"typo\.csv does not exist"):
        read_split(settings(world, tasks=(str(world / "tasks"), str(world / "typo.csv"))))
    recorder = Recorder()
    with pytest.raises(ConfigError, match=r"Unknown task 'song'. Did you mean 'songs'"):
        read_split(settings(world, only=("song",), validation={"tasks": ("films",)}), recorder)
    assert not recorder.steps, "it is refused before any task is read"
    index = "task_id,source_repo,licence\nfilms,a/b,MIT\nplays,a/b,MIT\nsongs,c/d,MIT\n"
    (world / "tasks" / "index.csv").write_text(index)
    with pytest.raises(DataError, match="No training task is left"):
        read_split(settings(world, validation={"tasks": ("songs", "films")}))


def test_validation_tasks_need_not_be_listed_in_only(world: Path) -> None:
    tasks = read_split(settings(world, only=("films",)))
    assert [task.name for task in tasks.train] == ["films"]
    assert [task.name for task in tasks.validation] == ["songs"]


def test_a_recipes_bundled_validation_tasks_do_not_bind_a_run_on_other_tasks(world: Path) -> None:
    def validated(*names: str) -> int:
        tasks = read_split(settings(world, validation={"tasks": names}))
        return len(tasks.validation)

    smoke = TrainSettings.read(RECIPES["smoke"]).validation.tasks
    assert validated(*smoke) == validated() == 1
    assert validated(*smoke, "songs", "plays") == 2
    with pytest.raises(ConfigError, match="Unknown task 'song'"):
        validated("song")


def test_validation_split_of_a_corpus_is_never_trained_on(world: Path) -> None:
    write_split(world / "corpus", "train", [letter_task("first"), letter_task("second")])
    write_split(world / "corpus", "validation", [letter_task("third"), letter_task("fourth")])
    for names, expected in (((), ["third", "fourth"]), (("third",), ["third"]), (("second",), ["second"])):
        run_settings = settings(world, tasks=(str(world / "corpus"),), validation={"tasks": names})
        tasks = read_split(run_settings)
        assert [task.name for task in tasks.validation] == expected
        assert [task.name for task in tasks.train] == [name for name in ("first", "second") if name not in expected]


def test_sources_are_never_split_and_the_share_is_respected() -> None:
    def task(number: int) -> Task:
        rows = tuple(Example(f"{number} {i}", "ab"[i % 2]) for i in range(4))
        return Task(str(number), ("a", "b"), rows, (), source={"group": f"group {number // 3}"})

    tasks = [task(number) for number in range(60)]
    train, validation = split(tasks, ValidationSettings(share=0.25))
    sides = [{t.source["group"] for t in part} for part in (train, validation)]
    assert not sides[0] & sides[1]
    assert (len(train), len(validation)) == (45, 15)
    assert split(tasks[::-1], ValidationSettings(share=0.25))[1] == validation[::-1]


@pytest.mark.parametrize(("sources", "share", "expected"), [(1, 0.1, 0), (2, 0.1, 1), (5, 0.1, 1), (5, 0.0, 0)])
def test_one_source_of_several_is_for_validation_however_small_the_share(
    sources: int, share: float, expected: int
) -> None:
    train, validation = split([letter_task(str(n)) for n in range(sources)], ValidationSettings(share=share))
    assert (len(train), len(validation)) == (sources - expected, expected)


def letter_task(name: str, rows: int = 30) -> Task:
    return Task(
        name,
        ("a", "b"),
        tuple(Example(f"{name} {i}", "ab"[i % 2]) for i in range(rows)),
        tuple(Example(f"{i}", "a") for i in range(rows)),
    )


def test_validation_tasks_are_sampled(world: Path) -> None:
    tasks = [letter_task(f"{number:02}") for number in range(40)]
    samples = [[task.name for task in split(tasks, ValidationSettings(share=0.99, most=5), seed)[1]] for seed in (0, 1)]
    assert all(len(names) == 5 and names == sorted(names) for names in samples)
    assert samples[0] != samples[1]
    write_split(world / "corpus", "train", [letter_task("first")])
    write_split(world / "corpus", "validation", tasks)
    run_settings = settings(world, tasks=(str(world / "corpus"),), validation={"most": 5})
    names = [task.name for task in read_split(run_settings).validation]
    assert len(names) == 5
    assert names != [task.name for task in tasks[:5]]


def test_invalid_corpus_rows_are_named_and_the_others_used(world: Path) -> None:
    path = write_rows(world / "corpus", [letter_task(name) for name in ("good", "null", "one", "fine")])
    tasks = read_split(settings(world, tasks=(str(path),), validation={}))
    assert [task.name for task in tasks.train] == ["good", "fine"]
    assert [line.partition(": ")[0] for line in tasks.skipped] == [f"{path}:train row 2", f"{path}:train row 3"]
    assert "'one'" in tasks.skipped[1]


def write_rows(folder: Path, tasks: list[Task]) -> Path:
    """Write a corpus in which the task `null` has a null training row, and the task `one` has only one label."""
    rows = [task_row(task) for task in tasks]
    for row in rows:
        if row["name"] == "null":
            row["train"][0] = None
        elif row["name"] == "one":
            row["labels"] = ["a"]
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "data" / "train-00000-of-00001.parquet")
    return folder


def test_invalid_rows_of_the_released_corpus_are_skipped_and_named(world: Path) -> None:
    def row(name: str, test: int) -> dict[str, Any]:
        examples = [{"text": f"{name} {i}", "label": "ab"[i % 2]} for i in range(30)]
        return {
            "dataset_name": name,
            "config_name": "",
            "train_examples": examples,
            "test_examples": examples[:test],
            "label_names": ["a", "b"],
        }

    (world / "released").mkdir()
    pq.write_table(pa.Table.from_pylist([row("good", 20), row("empty", 0)]), world / "released" / "train.parquet")
    tasks = read_split(settings(world, tasks=(str(world / "released"),), validation={}))
    assert [task.name for task in tasks.train] == ["good"]
    assert tasks.skipped == (f"{world / 'released'}:train: empty has 30 training and 0 test rows; a task needs both.",)


def test_passes_follow_the_schedule_even_with_few_tasks() -> None:
    train_settings = TrainSettings.of(schedule={5: 1.0, 10: 0.3, 50: 0.1}, seed=1)
    visits = [visit for single_pass in islice(passes(3, train_settings), 400) for visit in single_pass]
    counts = Counter(n for _, n in visits)
    assert counts[5] == 1200
    assert counts[10] == pytest.approx(360, rel=0.15)
    assert counts[50] == pytest.approx(120, rel=0.25)


def test_visits_use_the_users_prompt_and_fresh_reproducible_draws(world: Path) -> None:
    run_settings = settings(world)
    model = ScriptedModel(reply=["an instruction"])
    visits = Visits(read_split(run_settings).train, run_settings, writer_of(run_settings, model))
    first = [visits.visit(number) for number in range(8)]
    assert first[3] == Visits(read_split(run_settings).train, run_settings, writer_of(run_settings, model)).visit(3)
    assert len({visit.episode.query for visit in first}) == 8
    for visit in first:
        counts = Counter(row.label for row in visit.episode.query)
        assert set(counts.values()) == {6}
        MetaInducer(writer_of(run_settings, model)).induce(visit.episode.support)
        assert tuple(model.calls[-1]) == visit.chat


def test_overlong_prompts_are_shortened_and_marked(world: Path) -> None:
    run_settings = settings(world, longest_prompt=310, schedule={20: 1.0})
    visits = Visits(read_split(run_settings).train, run_settings, writer_of(run_settings))
    visit = visits.visit(0)
    assert visit.shortened
    assert 0 < len(visit.episode.support.examples) < 20


def test_task_without_a_fitting_example_is_named_by_the_dry_run(world: Path) -> None:
    with pytest.raises(DataError, match=r"No task has an example that fits .* films: Not one of 1 examples fits"):
        estimate(settings(world, longest_prompt=64), world / "run")


def test_dry_run_takes_a_model_without_a_maximum_length(world: Path) -> None:
    BloomConfig(hidden_size=32, n_layer=1, n_head=2).save_pretrained(world / "bloom")
    assert estimate(settings(world, model=f"hf:{world / 'bloom'}"), world / "run").counted is False


def test_dry_run_skips_unreadable_tasks(world: Path) -> None:
    long = "".join(json.dumps({"text": f"{'word ' * 500}{i}", "label": "ab"[i % 2]}) + "\n" for i in range(120))
    (world / "tasks" / "long.jsonl").write_text(long)
    run_settings = settings(world)
    plan = estimate(run_settings, world / "run")
    assert (plan.tasks, plan.validation) == (2, 1)
    assert [line.partition(":")[0] for line in plan.skipped] == ["long"]
    usable = readable(read_split(run_settings), run_settings, writer_of(run_settings))
    assert [task.name for task in usable.train] == ["films", "plays"]


def readable_tasks(task: Task, run_settings: TrainSettings) -> tuple[Task, ...]:
    """The task if an example fits the generator's prompt, else nothing."""
    return readable(TaskSplit((task,), (), ()), run_settings, writer_of(run_settings)).train


def test_visit_falls_back_to_the_shortest_example(world: Path) -> None:
    long = "word " * 300
    task = Task(
        "books",
        ("a", "b"),
        (*(Example(f"{long}{i}", "ab"[i % 2]) for i in range(200)), Example("short", "a")),
        (Example("x", "a"),),
    )
    run_settings = settings(world, longest_prompt=310)
    writer = writer_of(run_settings)
    assert readable_tasks(task, run_settings) == (task,)
    visits = [draw_visit(task, 2, number, run_settings, writer) for number in range(20)]
    assert {visit.episode.support.examples for visit in visits} == {(Example("short", "a"),)}


def test_visits_can_show_few_labels_and_hide_their_names(world: Path) -> None:
    rows = tuple(Example(f"{label} {i}", label) for i in range(6) for label in ("red", "blue", "green", "grey"))
    task = Task("colours", ("red", "blue", "green", "grey"), rows, rows[:8])
    run_settings = settings(world, few_labels=(2, 3), nameless=0.5, query=6)
    writer = writer_of(run_settings)
    visits = [draw_visit(task, 8, number, run_settings, writer) for number in range(60)]
    assert visits == [draw_visit(task, 8, number, run_settings, writer) for number in range(60)]
    supports = [visit.episode.support for visit in visits]
    assert {len(support.labels) for support in supports} == {2, 3}
    named = [support for support in supports if set(support.labels) <= set(task.labels)]
    assert 15 < len(named) < 45
    for visit in visits:
        assert (
            {e.label for e in visit.episode.query}
            <= {e.label for e in visit.episode.support.examples}
            == set(visit.episode.support.labels)
        )
    small_visits = [draw_visit(task, 2, number, run_settings, writer) for number in range(20)]
    assert {len(visit.episode.support.labels) for visit in small_visits} == {2}
    with pytest.raises(ConfigError, match="two ascending numbers"):
        settings(world, few_labels=(3, 2))


def test_few_labels_skips_a_task_with_one_label_in_its_test_rows(world: Path) -> None:
    rows = tuple(Example(f"{i}", "ab"[i % 2]) for i in range(40))
    task = Task("one", ("a", "b"), rows, tuple(row for row in rows if row.label == "a"))
    assert readable_tasks(task, settings(world)) == (task,)
    with pytest.raises(DataError, match="needs at least two"):
        readable_tasks(task, settings(world, few_labels=(2, 3)))


def test_few_labels_skips_a_task_whose_test_rows_share_no_label_with_its_training_rows(world: Path) -> None:
    labels = ("red", "blue", "green", "grey")
    train, test = (
        tuple(Example(f"{label} {i}", label) for i in range(6) for label in half) for half in (labels[:2], labels[2:])
    )
    task = Task("colours", labels, train, test)
    assert readable_tasks(task, settings(world)) == (task,)
    with pytest.raises(DataError, match="colours: no training row has a label of the test rows"):
        readable_tasks(task, settings(world, few_labels=(2, 3)))


def test_few_labels_makes_a_task_with_many_labels_readable(world: Path) -> None:
    labels = tuple(f"a label with a long name, number {i}" for i in range(60))
    rows = tuple(Example(f"row {i}", label) for i, label in enumerate(labels * 3))
    task = Task("many", labels, rows, rows[:100])
    with pytest.raises(DataError, match="many: Not one of 1 examples fits"):
        readable_tasks(task, settings(world, longest_prompt=400))
    few = settings(world, longest_prompt=400, few_labels=(2, 3))
    writer = writer_of(few)
    assert readable_tasks(task, few) == (task,)
    both = readable(TaskSplit((task,), (replace(task, name="watched"),), ()), few, writer)
    assert (len(both.train), len(both.validation)) == (1, 0)  # validation shows every label
    assert {len(draw_visit(task, 4, number, few, writer).episode.support.labels) for number in range(20)} == {2, 3}
