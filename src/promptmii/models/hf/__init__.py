"""transformers models on this machine."""
