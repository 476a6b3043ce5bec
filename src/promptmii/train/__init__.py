"""Training: the instruction generator, its warm start, and the follower it writes for."""
