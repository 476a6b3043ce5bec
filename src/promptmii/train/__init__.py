"""Training of the instruction generator, and its warm start."""
