"""The methods and names of TRL that `PolicyTrainer` overrides and uses still exist, with the same parameters.

If this fails, TRL or transformers changed. Read the new code of the named methods, fix `train/rl/trainer.py`, then
raise the cap in pyproject.toml.
"""

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("trl")

from packaging.requirements import Requirement
from trl.trainer.grpo_trainer import GRPOTrainer

from promptmii.train.rl.trainer import PolicyTrainer

ROOT = Path(__file__).parents[3]
OVERRIDDEN = {
    "_tokenize_prompts": "prompts",
    "_generate_single_turn": "prompt_ids images multimodal_fields num_generations has_tool_images",
    "_prepare_inputs": "generation_batch",
    "_calculate_rewards": "inputs prompts completions completion_ids_list",
    "_get_per_token_logps_and_entropies": (
        "model input_ids attention_mask logits_to_keep batch_size compute_entropy compute_aux_loss pixel_values "
        "image_grid_thw num_images pixel_attention_mask spatial_shapes num_tiles image_sizes token_type_ids "
        "mm_token_type_ids image_position_ids"
    ),
    "create_model_card": "model_name dataset_name tags",
    "_save_rng_state": "output_dir",
}
"""Overridden methods, with their parameters in TRL 1.16 with transformers 5.23."""
USED = (
    "_generate_and_score_completions",
    "_buffered_inputs",
    "_step",
    "num_iterations",
    "max_completion_length",
    "eos_token_ids",
    "use_vllm",
    "vllm_generation",
    "temperature",
    "use_transformers_continuous_batching",
    "_entropy_bonus_enabled",
)
"""Names of TRL's trainer that `PolicyTrainer` reads or calls."""


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_overridden_methods_keep_their_parameters(name: str) -> None:
    method = getattr(GRPOTrainer, name, None)
    assert method is not None, f"TRL {version('trl')} has no {name} any more; see {__file__}"
    assert " ".join(list(inspect.signature(method).parameters)[1:]) == OVERRIDDEN[name]


def test_every_override_is_listed() -> None:
    own = {name for name, value in vars(PolicyTrainer).items() if inspect.isfunction(value) and name != "__init__"}
    assert {name for name in own if hasattr(GRPOTrainer, name)} == set(OVERRIDDEN)


@pytest.mark.slow
@pytest.mark.parametrize("name", USED)
def test_used_names_still_exist(name: str) -> None:
    assert f"self.{name}" in inspect.getsource(GRPOTrainer), f"TRL {version('trl')} has no {name} any more"


def test_installed_versions_are_within_the_cap() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = {
        requirement.name: requirement for requirement in map(Requirement, project["optional-dependencies"]["train"])
    }
    for name in ("trl", "transformers"):
        assert "<" in str(requirements[name].specifier), f"{name} has no cap in the extra train"
        assert requirements[name].specifier.contains(version(name))
