"""Reinforcement learning: TRL's GRPO, with the follower's score as the reward."""

from importlib import import_module

from promptmii.errors import required_by

with required_by("Training", "train"):  # once for all modules in this folder
    for _name in ("accelerate", "peft", "torch", "trl"):  # these also install datasets and psutil
        import_module(_name)
