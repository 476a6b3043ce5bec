"""Reinforcement learning: GRPO by TRL, with the follower's score as reward."""
