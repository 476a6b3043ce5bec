"""Warm-up: supervised fine-tuning on pairs, and pairs made of a model's own best drafts."""
