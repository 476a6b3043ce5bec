"""The command line: parsing only. Each command gathers its options, makes one call, and hands the result to `display`.

Commands stand in the order of these imports in `promptmii --help`.
"""

# isort: off
from promptmii.cli import instructions, evaluation, corpus, train, models
from promptmii.cli.group import app

__all__ = ["app", "corpus", "evaluation", "instructions", "models", "train"]
