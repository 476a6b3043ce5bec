"""Reinforcement learning of a tiny random generator: it learns, resumes exactly and reports what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl")

import torch
from tests.models.faulty_server import FaultyServer, serving
from tests.recorder import Recorder
from tests.train.toys import failing, obedient, settings, write_model, write_tasks
from transformers import TrainerState

from promptmii import ScriptedModel, load_model
from promptmii.errors import ConfigError, EndpointError, ModelError, OutputError, SpendingLimitError
from promptmii.follower import Follower
from promptmii.models.base import Chat, Choice, FailureKind
from promptmii.train.loop import Safeguards, checkpoints
from promptmii.train.rl.run import train
from promptmii.train.run_folder import read_curves
from promptmii.train.settings import TrainSettings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL and peft warn about transformers


def learn(run_settings: TrainSettings, folder: Path, **options: Any) -> Path:
    """Train, by default with an obedient follower."""
    return train(run_settings, folder, **{"followers": [obedient()], **options})


def curves(folder: Path) -> dict[str, dict[int, float]]:
    return {name: curve for name, curve in read_curves([folder])[0].metrics.items() if not name.startswith("seconds/")}


def samples(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]
    return [row for row in rows if "validation" not in row]


@pytest.mark.slow
def test_two_steps_write_a_complete_run_folder(world: Path) -> None:
    run, recorder = world / "run", Recorder()
    held_out = {"tasks": ("songs",), "every": 2, "n": (4,), "rows": 24, "nameless": True}
    best = learn(settings(world, validation=held_out, trl={"max_steps": 2}), run, progress=recorder)
    metrics = curves(run)
    assert "validation/reward/nameless" in metrics
    assert "| films |" in (best / "README.md").read_text("utf-8")
    assert {
        "train/reward",
        "validation/reward",
        "length",
        "entropy",
        "zero_variance",
        "unparsed",
        "clipped",
        "kl_to_start",
        "memory/gib",
    } <= set(metrics)
    assert 0 < metrics["memory/gib"][2] < 24
    assert set(metrics["validation/reward"]) == {0, 2}
    assert set(metrics["train/reward"]) == {1, 2}
    was_best = metrics["validation/reward"][0] >= metrics["validation/reward"][2]
    assert any("so best/ holds these" in note for note in recorder.notes) == was_best
    assert {"text", "reward", "task", "step"} <= set(samples(run)[-1])
    facts = json.loads((run / "run.json").read_text())
    assert facts["validation"] == ["songs"]
    assert facts["train"] == ["films", "plays"]
    assert facts["packages"]["trl"]
    assert {path.name for path in best.iterdir()} >= {"model.safetensors", "README.md", "tokenizer.json"}
    assert [path.name for path in checkpoints(run)] == ["checkpoint-2"]
    assert any(line.startswith("Step 2 of 2: reward") for line in recorder.notes)
    assert load_model(f"hf:{best}").card.revision != load_model(f"hf:{world / 'tiny'}").card.revision


@pytest.mark.slow
def test_saved_adapter_loads_as_a_model(world: Path) -> None:
    run_settings = settings(
        world, lora={"rank": 4}, trl={"max_steps": 2, "learning_rate": 1e-2, "activation_checkpointing": True}
    )
    best = learn(run_settings, world / "run")
    assert (best / "adapter_model.safetensors").exists()
    chat: Chat = [{"role": "user", "content": "red lovely"}]
    alone, merged = load_model(f"hf:{best}"), load_model(f"hf:{world / 'tiny'}+{best}")
    assert alone.choose([chat], ["good", "bad"]) == merged.choose([chat], ["good", "bad"])
    assert set(curves(world / "run")["kl_to_start"]) == {2}


@pytest.mark.slow
def test_training_continues_an_adapter(world: Path) -> None:
    learn(settings(world, lora={"rank": 4}, trl={"max_steps": 2, "learning_rate": 1e-2}), world / "warm")
    warm, continued = (world / name / "checkpoint-2" for name in ("warm", "run"))
    changes: dict[str, Any] = {"model": f"hf:{world / 'tiny'}+{warm}", "trl": {"max_steps": 2, "learning_rate": 1e-12}}
    learn(settings(world, **changes, lora={"rank": 4}), world / "run")
    chat: Chat = [{"role": "user", "content": "red lovely"}]
    answers = [
        load_model(name).choose([chat], ["good", "bad"])[0]
        for name in (f"hf:{continued}", f"hf:{warm}", f"hf:{world / 'tiny'}")
    ]
    scores = [answer.scores for answer in answers if isinstance(answer, Choice)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert scores[0] != pytest.approx(scores[2], abs=1e-6)
    assert curves(world / "run")["kl_to_start"][2] == pytest.approx(0, abs=1e-6)
    with pytest.raises(ConfigError, match="lora_alpha"):
        learn(settings(world, **changes, lora={"rank": 4, "alpha": 4}), world / "other")
    whole = learn(settings(world, **changes), world / "whole")
    assert (whole / "model.safetensors").exists()


@pytest.mark.slow
def test_kl_is_measured_from_the_initial_adapter(world: Path) -> None:
    trl = {"max_steps": 3, "learning_rate": 1e-2, "beta": 0.1}
    warm = learn(settings(world, lora={"rank": 4}, trl=trl), world / "warm")
    run_settings = settings(
        world, lora={"rank": 4}, model=f"hf:{world / 'tiny'}+{warm}", validation={"share": 0.0}, trl=trl
    )
    learn(run_settings, world / "run")
    kl = curves(world / "run")["kl"]
    assert kl[1] == pytest.approx(0, abs=1e-6)
    assert kl[3] > 1e-4


@pytest.mark.slow
def test_kl_is_measured_from_the_initial_weights(world: Path) -> None:
    trl = {"max_steps": 3, "save_steps": 3, "learning_rate": 1e-2, "beta": 0.1}
    learn(settings(world, validation={"share": 0.0}, trl=trl), world / "run")
    kl = curves(world / "run")["kl"]
    assert kl[1] == pytest.approx(0, abs=1e-6)
    assert kl[3] > 1e-4


@pytest.mark.slow
def test_resume_refuses_changed_data(world: Path) -> None:
    run_settings = settings(world, trl={"max_steps": 1, "save_steps": 1})
    learn(run_settings, world / "run")
    write_tasks(world / "tasks", rows=118)
    with pytest.raises(ConfigError, match=r"The data of .* changed since the run began"):
        learn(run_settings, world / "run", resume=True)


def test_copies_and_truncated_checkpoints_are_ignored(world: Path) -> None:
    for name, state in (
        ("checkpoint-2", "{}"),
        ("checkpoint-10", "{}"),
        ("checkpoint-12", "{"),
        ("checkpoint-2-old", "{}"),
    ):
        (world / name).mkdir()
        (world / name / "trainer_state.json").write_text(state)
    assert [path.name for path in checkpoints(world)] == ["checkpoint-2", "checkpoint-10"]


@pytest.mark.slow
def test_resumed_run_equals_an_uninterrupted_run(world: Path) -> None:
    run_settings = settings(world)
    learn(run_settings, world / "whole")
    learn(run_settings.model_copy(update={"trl": run_settings.trl | {"max_steps": 2}}), world / "parts")
    learn(run_settings, world / "parts", resume=True)
    whole, parts = curves(world / "whole"), curves(world / "parts")
    assert set(whole["train/reward"]) == {1, 2, 3, 4}
    for name in ("train/reward", "train/loss", "train/gradient", "entropy", "validation/reward", "length"):
        assert whole[name] == parts[name], name
    resumed_rows = [row for row in samples(world / "parts") if row["step"] == 3]
    assert resumed_rows == [row for row in samples(world / "whole") if row["step"] == 3]
    weights = [(world / name / "best" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]


SCRIPT = """
import sys
from pathlib import Path
from tests.train.toys import obedient, settings
from promptmii.train.rl.run import train
world = Path(sys.argv[1])
train(settings(world, trl={"max_steps": 400, "save_steps": 2}), world / "run", resume=True, followers=[obedient()])
"""


@pytest.mark.slow
def test_killed_run_resumes_exactly(world: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(world)],
        cwd=Path(__file__).parents[3],
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not checkpoints(world / "run") and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    saved = checkpoints(world / "run")
    assert saved
    step = int(saved[-1].name.split("-")[1])
    run_settings = settings(world, trl={"max_steps": 400, "save_steps": 2})
    shorter = run_settings.model_copy(update={"trl": run_settings.trl | {"max_steps": step + 4}})
    learn(shorter, world / "run", resume=True)
    learn(shorter, world / "whole")
    assert curves(world / "run")["train/reward"] == curves(world / "whole")["train/reward"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_reward_rises(world: Path, seed: int) -> None:
    """Chance is 0.5, because an instruction without keywords leaves the follower guessing."""
    write_model(world / "tiny", seed)
    trl = {
        "max_steps": 100,
        "save_steps": 100,
        "learning_rate": 3e-3,
        "num_generations": 8,
        "per_device_train_batch_size": 16,
    }
    learn(settings(world, seed=seed, trl=trl, validation={"tasks": ("songs",), "every": 100}), world / "run")
    rewards = list(curves(world / "run")["train/reward"].values())
    start, end = sum(rewards[:10]) / 10, sum(rewards[-20:]) / 20
    assert end > start + 0.1
    assert end > 0.7


@pytest.mark.slow
def test_followers_can_be_servers(world: Path) -> None:
    with serving(FaultyServer(default="say:good")) as first, serving(FaultyServer(default="say:bad")) as second:
        run_settings = settings(
            world,
            reward={
                "followers": (f"openai:m@{first.url},{second.url}", f"openai:other@{second.url}"),
                "mode": "generate",
            },
            endpoint={"concurrency": 2},
            trl={"max_steps": 2, "save_steps": 2},  # a whole pass, which visits both tasks
        )
        train(run_settings, world / "run")
        assert {body["model"] for body in first.bodies} == {"m"}
        assert {body["model"] for body in second.bodies} == {"m", "other"}
        assert first.peak <= 2
        assert second.peak <= 4
    # The servers' answers are right for at most half of the films, and are no labels of the plays.
    assert {(row["task"], 0 < row["reward"] < 1) for row in samples(world / "run") if row["text"]} == {
        ("films", True),
        ("plays", False),
    }


@pytest.mark.slow
def test_curves_are_sent_to_trls_integrations(world: Path) -> None:
    run_settings = settings(world, trl={"max_steps": 1, "save_steps": 1, "report_to": "tensorboard"})
    learn(run_settings, world / "run")
    (events,) = (world / "run").rglob("events.out.tfevents.*")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(events.parent))
    accumulator.Reload()
    values = curves(world / "run")["validation/reward"]
    logged = {event.step: event.value for event in accumulator.Scalars("train/validation/reward")}
    assert logged == pytest.approx(values)
    assert [event.step for event in accumulator.Scalars("train/reward")] == [1]


@pytest.mark.slow
def test_dead_follower_is_refused_before_the_first_step(world: Path) -> None:
    with pytest.raises(EndpointError, match="failing does not answer, so nothing can be learned: connection: gone"):
        learn(settings(world), world / "run", followers=[failing(FailureKind.CONNECTION)])
    assert not (world / "run" / "metrics.jsonl").exists()
    other = settings(world, query=6, trl={"max_steps": 1, "save_steps": 1})
    learn(other, world / "run")
    assert json.loads((world / "run" / "config.json").read_text())["query"] == 6


@pytest.mark.slow
def test_dying_follower_leaves_a_checkpoint(world: Path) -> None:
    run_settings = settings(
        world,
        reward={"mode": "choose", "wait": 0.1},
        validation={"tasks": ("songs",), "every": 100},
        trl={"max_steps": 100, "save_steps": 100},
    )
    recorder = Recorder()
    with pytest.raises(EndpointError, match=r"\d+% of the instructions of a step could not be scored .*--resume"):
        learn(run_settings, world / "run", followers=[failing(FailureKind.CONNECTION, after=700)], progress=recorder)
    assert "Followers fail; waiting for them" in recorder.notes
    last = checkpoints(world / "run")[-1]
    assert int(last.name.split("-")[1]) == max(curves(world / "run")["train/reward"])


@pytest.mark.slow
def test_reached_spending_limit_leaves_a_checkpoint(world: Path) -> None:
    inner: Any = obedient().model
    calls = iter(range(700))

    def score(chat: Chat, option: str) -> float:
        if next(calls, None) is None:
            raise SpendingLimitError("Stopped at --max-cost")
        return inner._score(chat, option)

    run_settings = settings(world, validation={"share": 0.0}, trl={"max_steps": 100, "save_steps": 100})
    with pytest.raises(SpendingLimitError, match="--max-cost"):
        learn(run_settings, world / "run", followers=[Follower(ScriptedModel(score=score))])
    last = checkpoints(world / "run")[-1]
    assert int(last.name.split("-")[1]) == max(curves(world / "run")["train/reward"])


@pytest.mark.slow
def test_a_spending_limit_reached_in_the_last_validation_is_named(world: Path) -> None:
    inner: Any = obedient().model
    recorder = Recorder()

    def score(chat: Chat, option: str) -> float:
        if recorder.counts[-1] == 2:
            raise SpendingLimitError("Stopped at --max-cost")
        return inner._score(chat, option)

    followers = [Follower(ScriptedModel(score=score))]
    learn(settings(world, trl={"max_steps": 2}), world / "run", followers=followers, progress=recorder)
    assert "Step 2: validation not judged: Stopped at --max-cost" in recorder.notes


def test_resumed_run_uses_the_intervals_that_it_is_given() -> None:
    policy: Any = None
    arguments: Any = SimpleNamespace(logging_steps=1, eval_steps=7, save_steps=3)
    state = TrainerState(max_steps=40, eval_steps=20, save_steps=20)  # as read from a checkpoint
    Safeguards(policy, "").on_train_begin(arguments, state, None)
    assert (state.eval_steps, state.save_steps) == (7, 3)


@pytest.mark.slow
def test_nan_gradient_stops_before_the_weights_change(world: Path) -> None:
    with pytest.raises(ModelError, match=r"lower trl.learning_rate"):
        learn(settings(world, trl={"learning_rate": 1e30, "max_steps": 20, "max_grad_norm": 1e30}), world / "run")
    for path in checkpoints(world / "run"):
        from safetensors.torch import load_file

        assert all(torch.isfinite(tensor).all() for tensor in load_file(path / "model.safetensors").values()), path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stuck", "changes", "steps"),
    [
        (2, {}, 2),
        (4, {"prompts_per_update": 1, "trl": {"per_device_train_batch_size": 4, "max_steps": 6}}, 5),
    ],
)
def test_equal_rewards_are_reported_with_their_cause(
    world: Path, stuck: int, changes: dict[str, Any], steps: int
) -> None:
    recorder = Recorder()
    silent = Follower(ScriptedModel(reply=["no label at all"], score=lambda _c, _o: 0.0), mode="generate")
    run_settings = settings(world, stuck=stuck, reward={"mode": "generate"}, **changes)
    learn(run_settings, world / "run", followers=[silent], progress=recorder)
    beginning = f"In {steps} steps all drafts of each group got the same reward"
    assert any(line.startswith(beginning) and "answers are not labels" in line for line in recorder.notes)


@pytest.mark.slow
def test_failed_checkpoint_leaves_the_previous_one_intact(world: Path) -> None:
    run_settings = settings(world, trl={"max_steps": 2})
    learn(run_settings, world / "run")
    before = {path: path.read_bytes() for path in (world / "run" / "checkpoint-2").iterdir()}
    longer = run_settings.model_copy(update={"trl": run_settings.trl | {"max_steps": 4}})
    (world / "run" / "checkpoint-4").write_text("a file in place of the folder")
    with pytest.raises(OutputError, match="checkpoint before it is valid"):
        learn(longer, world / "run", resume=True)
    assert [path.name for path in checkpoints(world / "run")] == ["checkpoint-2"]
    assert before == {path: path.read_bytes() for path in (world / "run" / "checkpoint-2").iterdir()}


@pytest.mark.slow
def test_run_folder_is_not_overwritten(world: Path) -> None:
    run_settings = settings(world, trl={"max_steps": 2})
    learn(run_settings, world / "run")
    with pytest.raises(OutputError, match="holds a run already"):
        learn(run_settings, world / "run")
    with pytest.raises(ConfigError, match="other values of: query"):
        learn(run_settings.model_copy(update={"query": 6}), world / "run", resume=True)
