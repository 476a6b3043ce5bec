"""The command line. Each module defines a few commands, which parse options, make one call and print the result.

Heavy imports are inside functions, so that `--help` is fast.
"""

from importlib import import_module

from promptmii.cli.group import app

__all__ = ["app"]

MODULES = "compare corpus edit evaluate induce measure models predict serve show train"

for _name in MODULES.split():
    import_module(f"promptmii.cli.{_name}")
