"""Runs `promptmii` inside the test's process."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from os import PathLike
from typing import Any

import typer
from typer.testing import CliRunner

from promptmii.cli import app


@dataclass(frozen=True)
class Done:
    """A finished command: its exit code and what it printed."""

    exit_code: int
    stdout: str
    stderr: str
    output: str
    """Both streams, in the order of writing."""


def promptmii(
    *arguments: str | PathLike[str],
    stdin: str | bytes = "",
    env: Mapping[str, str | None] | None = None,
    program: str = "promptmii",
) -> Done:
    """Run a command to its end. An exception that would reach the user as a traceback is raised."""
    with CliRunner().isolation(input=stdin, env=env) as streams:
        try:
            _command().main([*map(str, arguments)], program)
        except SystemExit as end:
            code = end.code
        else:
            code = 0
        sys.stdout.flush()
        sys.stderr.flush()
        stdout, stderr, output = (stream.getvalue().decode("utf-8", "replace") for stream in streams)
    return Done(code if isinstance(code, int) else int(code is not None), stdout, stderr, output)


@cache
def _command() -> Any:
    """Built once: typer needs .06 s for all commands, and its own runner builds them for every call."""
    return typer.main.get_command(app)
