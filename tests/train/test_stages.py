"""Each stage runs from a configuration file on a tiny random model, and the shipped recipes agree."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.models.test_transformers import trained  # noqa: E402, F401  the fixture
from tests.recorder import Recorder  # noqa: E402
from tests.train.warmup.test_fine_tuning import world  # noqa: E402, F401  the fixture

from promptmii.configs import config_path  # noqa: E402
from promptmii.errors import ConfigError  # noqa: E402
from promptmii.train import run_stage  # noqa: E402
from promptmii.train.settings import BestOfSettings, SftSettings, TrainingStage, TrainSettings  # noqa: E402
from promptmii.train.warmup.pairs import SHIPPED, read_bank  # noqa: E402

SMALL = """
lora = {rank = 2}
steps = 2
warmup = 1
train = ["films"]
validate_on = ["plays"]
check_every = 2
save_every = 1
max_chars = 100
"""
CONFIGS: dict[TrainingStage, str] = {
    "sft": SMALL + "batch = 1\nexamples = [2]\ncheck_pairs = 1\n",
    "best-of": """
drafts = 2
visits = 2
query = 2
budget = 8
only = ["films"]
schedule = {2 = 1.0}
validation = {share = 0.0}
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", CONFIGS)
def test_two_steps_of_each_stage(stage: TrainingStage, world: Path) -> None:  # noqa: F811
    config = world / "recipe.toml"
    config.write_text(CONFIGS[stage] + ("" if stage == "best-of" else f'bank = "{world / "bank"}"\n'))
    model = f"hf:{world / 'tiny'}"
    changes: dict[str, Any] = {"model": model, "tasks": [str(world / "tasks")]}
    if stage == "best-of":
        changes["reward"] = {"followers": [model], "mode": "choose"}
    recorder = Recorder()
    output = run_stage(stage, config, world / "run", progress=recorder, **changes)
    assert recorder.counts[-1] == recorder.totals[-1] == {"sft": 2, "best-of": 2 * 2}[stage]  # steps, drafts
    assert output.parent == world / "run"
    assert (world / "run" / "config.toml").read_text() == config.read_text()


def test_unknown_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('train = ["films"]\nlerning_rate = 1\n')
    with pytest.raises(ConfigError, match="learning_rate"):
        run_stage("sft", tmp_path / "recipe.toml", tmp_path / "run")


@pytest.mark.parametrize(
    ("useless", "reason"),
    [
        ({"passes": 2}, "Unknown setting 'passes'"),
        ({"lora": {"rank": 2}}, "Unknown setting 'lora'"),
        ({"validation": {"every": 2}}, "Unknown setting 'validation.every'"),
        ({"trl": {"learning_rate": 1e-6}}, "trl.learning_rate.* Input should be 'max_completion_length'"),
        ({"stage": "rl"}, "stage = 'rl' is refused: Input should be 'best-of'"),
    ],
)
def test_best_of_refuses_settings_that_it_does_not_use(useless: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        BestOfSettings.of(**useless)


def test_bank_describes_the_tasks_of_the_warm_start_recipe() -> None:
    settings = SftSettings.read(config_path("train", "warm-start"), tasks=("anywhere",))
    assert set(settings.train) | set(settings.validate_on) <= set(read_bank(SHIPPED))


def test_recipes_of_the_writers_stages_agree() -> None:
    warm, distil = (SftSettings.read(config_path("train", name)) for name in ("warm-start", "distil"))
    writer = TrainSettings.read(config_path("train", "writer"))
    drafts = BestOfSettings.read(config_path("train", "best-drafts"))
    assert warm.lora == writer.lora == distil.lora
    assert drafts.validation.tasks == writer.validation.tasks == warm.validate_on
    assert drafts.reward == writer.reward
