"""Labels, texts and server messages reach a terminal only as literal text."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii import Naive, Support
from promptmii.cli.terminal import Terminal, escaped, styled, table

HOSTILE = "[red]x[/] :smile: \x1b]0;title\x07\x1b[31m \x9b2J \u202e ok"


@given(st.text())
def test_no_control_character_survives(text: str) -> None:
    kept = [character for character in escaped(text) if not character.isprintable() and character not in "\n\t"]
    assert all(ord(character) >= 0xA0 for character in kept)
    assert escaped(escaped(text)) == escaped(text)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zl", "Zp"])))
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert escaped(text) == text


def test_family_emoji_and_joiners_stay() -> None:
    assert escaped("👨‍👩‍👧 می‌خواهم") == "👨‍👩‍👧 می‌خواهم"


def test_everything_is_printed_literally() -> None:
    screen = io.StringIO()
    terminal = Terminal(file=screen, force_terminal=True, width=200, color_system=None)
    grid = table(HOSTILE, HOSTILE, HOSTILE)
    grid.add_row(HOSTILE, styled(HOSTILE))
    terminal.print(HOSTILE)
    terminal.print(grid)
    terminal.write_line(HOSTILE)
    assert "\x1b]" not in screen.getvalue()
    assert "\x9b" not in screen.getvalue()
    assert screen.getvalue().count("[red]x[/] :smile:") == 7


def show(path: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "promptmii", "show", str(path), *options]
    return subprocess.run(
        command,
        capture_output=True,
        check=False,
        env=os.environ | environment,
        text=True,
        encoding=environment["PYTHONIOENCODING"],
    )


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    instruction = Naive().induce(Support(("gut [red]", "schlecht 😀"), ()))
    return instruction.model_copy(update={"text": f"Über {HOSTILE}"}).save(tmp_path / "made.json")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_console_of_any_encoding_shows_all(hostile: Path, encoding: str) -> None:
    done = show(hostile, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout
    assert "gut [red]" in done.stdout
    assert ("😀" if encoding == "utf-8" else "\\U0001f600") in done.stdout
    written = show(hostile, "--json", PYTHONIOENCODING=encoding, PYTHONUTF8="0").stdout
    assert json.loads(written)["labels"] == ["gut [red]", "schlecht 😀"]
    assert "\x1b" not in written


@pytest.mark.parametrize("width", [0, 1, 20, 40, 80])
def test_a_terminal_of_any_width_shows_every_number(width: int) -> None:
    target = io.StringIO()
    console = Terminal(file=target, width=width)
    grid = table("On 8 rows", "method", "F1 [95 %]", "tokens", "seconds")
    grid.add_row("a method", "1.000 [0.95, 1.00]", "12,345", "0.1")
    console.write_table(grid)
    for shown in ("On 8 rows", "1.000 [0.95, 1.00]", "12,345", "0.1"):
        assert shown in target.getvalue()


def test_a_title_is_not_broken_at_the_width_of_its_table() -> None:
    target = io.StringIO()
    grid = table("A title that is longer than its table", "a", "b")
    grid.add_row("1", "2")
    Terminal(file=target, width=80).write_table(grid)
    assert target.getvalue().splitlines()[0].rstrip() == "A title that is longer than its table"


@pytest.mark.parametrize("width", [30, 40, 50])
def test_names_are_shown_at_any_width(width: int) -> None:
    target = io.StringIO()
    grid = table("Estimate", "method", "prompt tokens", "money")
    grid.add_row("best-of-k", "2,612", "no price given")
    Terminal(file=target, width=width).write_table(grid)
    assert "best-of-k" in target.getvalue()
    assert "no price given" in target.getvalue()


@pytest.mark.slow
def test_the_c_locale_takes_a_file_with_an_umlaut(tmp_path: Path) -> None:
    task = tmp_path / "größe.csv"
    task.write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20)), "utf-8")
    instruction = Naive().induce(Support(("a", "b"), ())).save(tmp_path / "made.json")
    c_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "promptmii", "score", instruction, task, "--follower", "openai:m"]
    done = subprocess.run(
        [*command, "--base-url", "http://127.0.0.1:9/v1"],
        env=os.environ | c_locale,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No server answers" in done.stderr
    read = "from promptmii.data import load_task; import sys; load_task(sys.argv[1]).task.name.encode()"
    subprocess.run([sys.executable, "-c", read, task], env=os.environ | c_locale, check=True)
