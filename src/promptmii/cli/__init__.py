"""The command line: a module per command, which gathers options, makes one call, and shows the result.

Heavy imports are inside the functions.
"""

from importlib import import_module

from promptmii.cli.group import app

__all__ = ["app"]

# `promptmii --help` lists them in this order.
for _name in (
    *("induce", "predict", "score", "compare", "calibrate", "edit", "extend", "review", "show", "export", "ui"),
    *("evaluate", "report", "corpus", "train", "models", "styles", "mcp"),
):
    import_module(f"promptmii.cli.{_name}")
