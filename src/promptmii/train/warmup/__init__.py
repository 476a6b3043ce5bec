"""What comes before reinforcement learning: fine-tuning on pairs of examples and instruction, and best-of."""
