"""The stages before reinforcement learning: fine-tuning on pairs, and best-of."""
