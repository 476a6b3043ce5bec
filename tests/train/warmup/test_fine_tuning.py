"""Fine-tuning a tiny random generator on pairs: its prompt, its loss, and exact resumption."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.models.test_transformers import SIZES, trained  # noqa: E402, F401  the fixture
from tests.recorder import Recorder  # noqa: E402
from tests.train.toys import write_jsonl  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: E402

from promptmii import ScriptedModel, load_model  # noqa: E402
from promptmii.config import LoraSettings  # noqa: E402
from promptmii.configs import config_path  # noqa: E402
from promptmii.errors import ConfigError, DataError, ModelError, OutputError  # noqa: E402
from promptmii.inducers import MetaInducer, Writer  # noqa: E402
from promptmii.train.settings import SftSettings  # noqa: E402
from promptmii.train.warmup.pairs import pair_line, read_pairs  # noqa: E402
from promptmii.train.warmup.sft import IGNORED, PairDataset, fine_tune  # noqa: E402
from promptmii.tuning import TrainableModel  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers warns about its own code
PAIR = {"labels": ["good", "bad"], "examples": [{"text": "lovely", "label": "good"}], "instruction": "good: lovely"}
WORDS = {"films": {"good": "lovely", "bad": "waste"}, "plays": {"warm": "warm", "well": "well"}}


@pytest.fixture
def world(tmp_path: Path, trained: Any) -> Path:  # noqa: F811
    """A folder with a tiny model, two tasks and a bank."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZES
        | {
            "vocab_size": len(trained),
            "eos_token_id": trained.eos_token_id,
            "initializer_range": 0.1,
            "max_position_embeddings": 2048,
        }
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "tiny")
    trained.save_pretrained(tmp_path / "tiny")
    for name, words in WORDS.items():
        rows = [{"text": f"{i} {word} {i % 3}", "label": label} for i in range(12) for label, word in words.items()]
        write_jsonl(tmp_path / "tasks" / f"{name}.jsonl", rows)
        guide = [{"task": name, "description": "Say which."}]
        guide += [{"label": label, "descriptions": [f"says {word}", f"has {word}"]} for label, word in words.items()]
        write_jsonl(tmp_path / "bank" / f"{name}.jsonl", guide)
    return tmp_path


def make_settings(world: Path, **changes: Any) -> SftSettings:
    defaults: dict[str, Any] = {
        "model": f"hf:{world / 'tiny'}",
        "tasks": (str(world / "tasks"),),
        "bank": str(world / "bank"),
        "train": ("films",),
        "validate_on": ("plays",),
        "lora": {"rank": 4},
        "steps": 4,
        "batch": 2,
        "warmup": 1,
        "examples": (2, 3),
        "check_every": 2,
        "check_pairs": 2,
        "save_every": 2,
    }
    return SftSettings.of(**defaults | changes)


def test_prompt_equals_the_inducers(world: Path) -> None:
    policy = TrainableModel.load(f"hf:{world / 'tiny'}", LoraSettings(rank=2), 0)
    model = policy.local()
    write_jsonl(world / "pairs.jsonl", [PAIR])
    (pair,) = read_pairs(world / "pairs.jsonl")
    scripted = ScriptedModel(reply=["An instruction."])
    MetaInducer(Writer(scripted)).induce(pair.support)
    row = PairDataset(lambda _: pair, 1, policy)[0]
    prompt = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == IGNORED]
    assert prompt == model.prompts(scripted.calls)[0]
    answer = row["labels"][len(prompt) :]
    assert model.tokenizer.decode(answer) == PAIR["instruction"] + "<|im_end|>"


@pytest.mark.slow
def test_loss_covers_only_the_instruction(world: Path) -> None:
    policy = TrainableModel.load(f"hf:{world / 'tiny'}", LoraSettings(rank=2), 0)
    write_jsonl(world / "pairs.jsonl", [PAIR])
    (pair,) = read_pairs(world / "pairs.jsonl")
    row = PairDataset(lambda _: pair, 1, policy)[0]
    expected = policy.model(**{name: torch.tensor([ids]) for name, ids in row.items()}).loss
    settings = make_settings(world, pairs=str(world / "pairs.jsonl"), validate_on=(), steps=1)
    fine_tune(settings, world / "run")
    losses = losses_of(world / "run")
    assert losses == [pytest.approx(expected.item(), abs=1e-3)]


def losses_of(run: Path) -> list[float]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row["train/loss"] for row in rows if "train/loss" in row]


@pytest.mark.slow
def test_one_pair_is_memorised(world: Path) -> None:
    write_jsonl(world / "pairs.jsonl", [PAIR])
    settings = make_settings(
        world,
        pairs=str(world / "pairs.jsonl"),
        validate_on=(),
        steps=40,
        batch=1,
        warmup=5,
        learning_rate=2e-2,
        lora={"rank": 8},
    )
    best = fine_tune(settings, world / "run")
    losses = losses_of(world / "run")
    # The frozen embeddings are so small that no token can be more likely than one in four.
    assert losses[-1] < 2 < losses[0]
    (pair,) = read_pairs(world / "pairs.jsonl")
    written = MetaInducer(Writer(load_model(f"hf:{world / 'tiny'}+{best}"))).induce(pair.support)
    assert written.text == PAIR["instruction"]


@pytest.mark.slow
def test_resumed_fine_tuning_equals_an_uninterrupted_run(world: Path) -> None:
    uninterrupted = fine_tune(make_settings(world), world / "uninterrupted")
    rows = map(json.loads, (world / "uninterrupted" / "metrics.jsonl").read_text().splitlines())
    names = {name for row in rows for name in row}
    assert {"train/loss", "validation/named_loss", "validation/hidden_loss"} <= names

    class StoppedError(Exception):
        pass

    def stop(recorder: Recorder) -> None:
        if recorder.counts[-1] == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        fine_tune(make_settings(world), world / "resumed", progress=Recorder(stop))
    resumed = fine_tune(make_settings(world), world / "resumed", resume=True)
    name = "adapter_model.safetensors"
    assert (uninterrupted / name).read_bytes() == (resumed / name).read_bytes()


@pytest.mark.slow
def test_training_continues_an_adapter_of_the_same_rank(world: Path) -> None:
    first = fine_tune(make_settings(world, validate_on=()), world / "first")
    model = f"hf:{world / 'tiny'}+{first}"
    assert fine_tune(make_settings(world, model=model, steps=1, validate_on=()), world / "second").is_dir()
    with pytest.raises(ConfigError, match="r = 4"):
        fine_tune(make_settings(world, model=model, lora={"rank": 2}), world / "third")


def test_pairs_file_is_checked_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, [PAIR, {"labels": ["a", "b"], "examples": []}])
    with pytest.raises(DataError, match="line 2: instruction"):
        read_pairs(path)
    write_jsonl(path, [PAIR])
    (pair,) = read_pairs(path)
    path.write_bytes(pair_line(pair, task="films", visit=3, reward=0.5))
    assert read_pairs(path) == [pair]
    path.write_text("")
    with pytest.raises(DataError, match="no pair"):
        read_pairs(path)


def test_invalid_settings_are_refused_before_the_first_step(world: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'films'"):
        fine_tune(make_settings(world, train=("film",)), world / "run")
    with pytest.raises(ConfigError, match="in train and in validate_on"):
        make_settings(world, validate_on=("films",))
    with pytest.raises(ConfigError, match="on this machine"):
        fine_tune(make_settings(world, model="openai:m"), world / "other")
    with pytest.raises(ConfigError, match="ascending"):
        make_settings(world, labels=(1, 3))
    for examples in ((), (0, 5)):
        with pytest.raises(ConfigError, match="examples"):
            make_settings(world, examples=examples)


@pytest.mark.slow
def test_task_unusable_for_pairs_is_skipped_and_reported(world: Path) -> None:
    long = [{"text": f"{'word ' * 99}{i}", "label": "ab"[i % 2]} for i in range(12)]
    write_jsonl(world / "tasks" / "long.jsonl", long)
    write_jsonl(world / "tasks" / "other.jsonl", [{"text": f"{i}", "label": "ab"[i % 2]} for i in range(24)])
    best = fine_tune(make_settings(world, train=(), steps=1), world / "run", progress=(recorder := Recorder()))
    assert recorder.notes == [
        "Skipped long: fewer than two labels have three texts of up to 300 characters",
        "Skipped other: the bank does not describe it",
    ]
    card = (best / "README.md").read_text()
    assert "| films |" in card
    assert "| long |" not in card
    with pytest.raises(DataError, match=r"No task is usable for pairs \(other: the bank does not"):
        fine_tune(make_settings(world, train=("other",)), world / "none")


@pytest.mark.slow
def test_bundled_validation_tasks_do_not_bind_a_run_on_other_tasks(world: Path) -> None:
    recipe = SftSettings.read(config_path("train", "warm-start"))
    settings = make_settings(world, validate_on=recipe.validate_on, steps=1)
    progress = Recorder()
    assert fine_tune(settings, world / "run", progress=progress).is_dir()
    assert any("best/ will hold the last weights" in note for note in progress.notes)
    with pytest.raises(DataError, match="no task 'play'"):
        fine_tune(make_settings(world, validate_on=("play",)), world / "other")


@pytest.mark.slow
def test_a_run_folder_belongs_to_one_run(world: Path) -> None:
    fine_tune(make_settings(world, steps=2), world / "run")
    with pytest.raises(OutputError, match="--resume"):
        fine_tune(make_settings(world, steps=2), world / "run")
    with pytest.raises(ConfigError, match="lora"):
        fine_tune(make_settings(world, lora={"rank": 8}), world / "run", resume=True)
    fine_tune(make_settings(world, steps=3), world / "run", resume=True)
    assert json.loads((world / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 3


@pytest.mark.slow
def test_nan_loss_stops_the_run(world: Path) -> None:
    with pytest.raises(ModelError, match="lower learning_rate"):
        fine_tune(make_settings(world, steps=50, learning_rate=1e30, warmup=0), world / "run")
    assert not (world / "run" / "checkpoint-50").exists()
