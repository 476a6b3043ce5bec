"""GGUF models in this process, by llama.cpp."""

import os

# Threads that spin while they wait take the cores from other programs, and gain nothing on a quiet machine.
# llama.cpp reads this when it starts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
