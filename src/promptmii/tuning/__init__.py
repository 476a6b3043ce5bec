"""Local models whose weights are trained: loading, adapters, saving. Fine-tuning and all of training stand on it."""
