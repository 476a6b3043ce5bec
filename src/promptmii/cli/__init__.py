"""The command line: a module for a command or two, which gather options, make one call, and show the result.

Heavy imports are inside the functions.
"""

from importlib import import_module

from promptmii.cli.group import app

__all__ = ["app"]

MODULES = "compare corpus edit evaluate induce measure models predict review serve show train"

for _name in MODULES.split():
    import_module(f"promptmii.cli.{_name}")
