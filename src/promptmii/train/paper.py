"""The authors' settings.

`PAPER` and `TRL` hold the paper's values; `RELEASE` holds those of the authors' code (millix19/promptmii at 2722f12)
that differ from the paper or are not in it. `preset = "paper"` uses both for everything that the user does not set.
"""

from collections.abc import Mapping
from typing import Any

PAPER_SCHEDULE = {5: 1.0, 10: 0.3, 20: 0.2, 50: 0.1}
TRL: Mapping[str, Any] = {
    "learning_rate": 2e-6,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 0.033,  # below 1: a share of all steps
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "num_generations": 5,
    "num_iterations": 1,
    "temperature": 1.0,
    "top_p": 1.0,
    "max_completion_length": 1024,
    "beta": 0.0,
    "epsilon": 0.2,
    "epsilon_high": 0.4,
    "delta": 3.0,
    "entropy_coef": 0.0,
    "loss_type": "grpo",
    "scale_rewards": "group",
    "vllm_importance_sampling_correction": False,
}
"""The paper's TRL options, which are the defaults of every run."""
VALIDATE_EVERY, SAVE_EVERY = 15, 50
"""Rollouts between validations and between checkpoints. The authors count rollouts; TRL counts optimiser steps."""
PAPER: Mapping[str, Any] = {
    "schedule": PAPER_SCHEDULE,
    "query": 20,
    "prompts": 64,
    "prompts_per_update": 32,
    "passes": 30.0,
    "longest_prompt": 4096,
    "few_labels": None,
    "nameless": 0.0,
    "budget": None,
    "reward.mode": "generate",
    "reward.calibration": "none",
    "reward.measure": "macro_f1",
    "reward.token_price": 0.0,
    "reward.copy_penalty": 0.0,
    "reward.unfinished_penalty": 0.0,
    "validation.share": 0.1,
}
"""The paper's other settings, by promptmii's dotted names."""
RELEASE: Mapping[str, Any] = {
    "reward.measure": "released_f1",
    "draw": "random",
    "fixed": True,
    "overlong": "drop",
    "validation.n": (5, 10, 20, 50),
    "validation.most": 381,
    "validation.rows": 20,
}


def authors_style(model: str) -> str:
    """The authors' style for a model: Qwen's, or Llama's for any other. `promptmii styles import` installs it."""
    return f"promptmii-{'qwen' if 'qwen' in model.casefold() else 'llama'}-train"


def paper_preset(user: Mapping[str, Any]) -> dict[str, Any]:
    """The authors' settings, for the user's to be merged into."""
    style = {} if user.get("template") else {"style": authors_style(str(user.get("model", "")))}
    updates = PAPER["prompts"] // PAPER["prompts_per_update"]
    settings: dict[str, Any] = {"validation": {"every": VALIDATE_EVERY * updates}, **style}
    for name, value in (*PAPER.items(), *RELEASE.items()):
        table, dot, inner = name.rpartition(".")
        if dot:
            settings.setdefault(table, {})[inner] = value
        elif name not in user:  # merging would combine the two schedules
            settings[name] = value
    return settings
