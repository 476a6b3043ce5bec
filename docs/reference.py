"""Generates the reference pages of the site: commands from typer, settings from pydantic."""

import ast
import inspect
from itertools import pairwise
from textwrap import dedent

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic_core import PydanticUndefined
from typer.cli import get_docs_for_click

from promptmii.cli import app
from promptmii.corpus.settings import CorpusSettings
from promptmii.evaluation.plan import EvaluateSettings
from promptmii.schema import Settings
from promptmii.train.settings import BestOfSettings, SftSettings, TrainSettings

TABLES: dict[str, type[Settings]] = {
    "promptmii evaluate": EvaluateSettings,
    "promptmii corpus build": CorpusSettings,
    "promptmii train": TrainSettings,
    "promptmii train --stage sft": SftSettings,
    "promptmii train --stage best-of": BestOfSettings,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages to those on disk; mkdocs calls it."""
    for name, content in (("cli.md", commands()), ("settings.md", settings())):
        files.append(File.generated(config, name, content=content))
    return files


def commands() -> str:
    """Every command with its arguments and options."""
    command = typer.main.get_command(app)
    pages = get_docs_for_click(obj=command, ctx=typer.Context(command), name="promptmii")
    return pages.replace("# `promptmii`", "# Commands", 1)


def settings() -> str:
    """Every setting of a TOML file, with its default."""
    pages = ["# Settings", "Set these in a TOML file, or with `--set NAME=VALUE`. `--list` shows the recipes."]
    for command, kind in TABLES.items():
        pages += [f"## {command}", *_table(kind, "")]
    return "\n\n".join(pages) + "\n"


def _table(kind: type[Settings], prefix: str) -> list[str]:
    described = _docstrings(kind)
    rows = ["| setting | default | |", "| --- | --- | --- |"]
    inner: list[str] = []
    for name, field in kind.model_fields.items():
        default = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
        if isinstance(default, Settings):
            inner += _table(type(default), f"{prefix}{name}.")
            continue
        shown = "required" if default is PydanticUndefined else f"`{_shown(default)}`"
        rows.append(f"| `{prefix}{name}` | {shown} | {described.get(name, '')} |".replace("||", "\\|\\|"))
    return ["\n".join(rows), *inner] if len(rows) > 2 else inner


def _shown(default: object) -> str:
    return str(list(default) if isinstance(default, tuple) else default).replace("|", "\\|")


def _docstrings(kind: type[Settings]) -> dict[str, str]:
    """The docstring under each field of the class and of its base classes."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not issubclass(base, Settings):
            continue
        body = ast.parse(dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in pairwise(body.body):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(described))),
                ):
                    found[name] = " ".join(described.split()).replace("|", "\\|")
                case _:
                    pass
    return found
