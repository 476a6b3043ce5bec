"""The documentation keeps what it promises: commands, options, extras and code exist."""
# pyright: reportArgumentType=false

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from promptmii.cli import app
from promptmii.configs import FOLDER
from promptmii.inducers import METHODS, WrittenBy
from promptmii.inducers.method import Role

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted(FOLDER.glob("*/*.toml"))


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command (not group), by its words."""
    inner = getattr(group, "commands", None)
    if inner is None:
        yield path, group
        return
    for name, command in inner.items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def typed(page: Path) -> list[list[str]]:
    """The words of each promptmii command on a page, in code blocks and inline code."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
    lines += re.findall(r"`(promptmii [^`]+)`", text)
    if page.suffix == ".toml":
        lines = re.findall(r"promptmii (?:train|evaluate|corpus|report) .*", text)
    shown = [re.sub(r"^.*?(?:^|\s)promptmii ", "", line) for line in lines if re.search(r"(^|\s)promptmii [a-z]", line)]
    return [shlex.split(line, comments=True) for line in shown if "install" not in line.split("#")[0].split()[:1]]


def test_every_command_is_shown_in_the_docs() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [" ".join(words) for words in COMMANDS if f"promptmii {' '.join(words)}" not in text]
    assert not missing


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_and_option_has_a_help_text(words: tuple[str, ...]) -> None:
    """The site's reference is generated from these texts."""
    command = COMMANDS[words]
    assert command.help
    assert not [parameter.name for parameter in command.params if not getattr(parameter, "help", "")]


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=lambda page: page.name)
def test_commands_in_the_docs_exist_with_their_options(page: Path) -> None:
    for words in typed(page):
        name = next((tuple(words[:k]) for k in (2, 1) if tuple(words[:k]) in COMMANDS), None)
        if name is None:
            assert words[0] in {path[0] for path in COMMANDS} | {"--install-completion", "COMMAND"}, words
            continue
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts + parameter.secondary_opts}
        used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)} - {"--help", "-h"}
        assert used <= known, f"{page.name}: promptmii {' '.join(words)}"


def test_extras_in_docs_and_messages_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    sources = [*PAGES, *sorted((ROOT / "src").rglob("*.py"))]
    for page in sources:
        text = page.read_text(encoding="utf-8")
        named = [name for group in re.findall(r"promptmii\[([a-z,]+)\]", text) for name in group.split(",")]
        named += re.findall(r'(?:MissingDependencyError|required_by)\("[^"]+", "(\w+)"\)', text)
        assert set(named) <= set(extras), page


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_docs_compiles(page: Path) -> None:
    for block in python_blocks(page):
        compile(block, page.name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        *python_blocks(ROOT / "README.md"),
        "from promptmii import *\n" + python_blocks(ROOT / "docs" / "estimator.md")[-1],
    ],
)
def test_code_without_weights_runs(code: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_table_of_methods_is_the_registry() -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \| (.+?) \| (.+?) \|$", (ROOT / "docs" / "evaluate.md").read_text("utf-8"), re.MULTILINE
    )
    table = {name: (what, calls) for name, what, calls in rows}
    assert [name for name in METHODS if name not in table] == [], "add a row to docs/evaluate.md"
    for name, method in METHODS.items():
        what, calls = table.pop(name)
        assert (method.role is Role.METHOD) == (not what.startswith(("rival: ", "control: "))), name
        assert what.startswith(f"{method.role.value}: ") or method.role is Role.METHOD, name
        assert (method.written_by is WrittenBy.NOBODY) == (calls in ("0", "training")), name
    assert [*table] == [], "docs/evaluate.md describes methods that do not exist"
