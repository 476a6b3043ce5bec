"""The command line: a module per command, which gathers options, makes one call, and shows the result.

`promptmii --help` lists commands in the order of these imports. Heavy imports are inside the functions.
"""

# isort: off
from promptmii.cli import induce, predict, score, compare, calibrate, edit, extend, review, show, export, ui
from promptmii.cli import evaluate, report, corpus, train, launch, models, styles, mcp
from promptmii.cli.group import app

__all__ = [
    "app",
    "calibrate",
    "compare",
    "corpus",
    "edit",
    "evaluate",
    "export",
    "extend",
    "induce",
    "launch",
    "mcp",
    "models",
    "predict",
    "report",
    "review",
    "score",
    "show",
    "styles",
    "train",
    "ui",
]
