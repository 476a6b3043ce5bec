"""Progress: bars on terminals of any width, lines elsewhere, nothing if quiet."""

import io
import re
import time

import pytest

from promptmii.cli.bars import listener, listening
from promptmii.cli.terminal import Terminal
from promptmii.progress import QUIET


class Screen(io.StringIO):
    """A standard error stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(**environment: str) -> str:
    screen = Screen()
    with listener(Terminal(file=screen, _environ=environment)) as progress:
        progress.step("Scoring [red]x[/] :smile: \x1b[31m", 200, "rows")
        for _ in range(100):
            progress.advance()
        progress.note("Waiting for the server")
        progress.step("Fetching", 98_000_000, "bytes")
        progress.advance(24_000_000)
        time.sleep(0.05)
        progress.advance(25_000_000)
    return screen.getvalue()


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_a_terminal_shows_a_bar_with_the_time_left(columns: str) -> None:
    text = shown(TERM="xterm", COLUMNS=columns)
    assert "Waiting for the server" in text
    assert "49/98 MB" in text
    assert "left" in text
    assert "[red]" in text or columns == "40", "labels are never read as markup"


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 80, 100, 200])
def test_a_bar_with_a_long_result_stays_one_line(columns: int) -> None:
    screen = Screen()
    with listener(Terminal(file=screen, _environ={"TERM": "xterm", "COLUMNS": str(columns)})) as progress:
        progress.step("Running the cells", 2500, "cells")
        for number in range(3):
            progress.advance(1, f"a task of a long name / mii / n=20 / seed {number} / openai:a-model: macro-F1 0.123")
            time.sleep(0.05)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert all(len(line.strip()) <= columns for line in re.split(r"[\r\n]+", plain))


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_lines(term: str) -> None:
    text = shown(TERM=term)
    assert text.splitlines() == [
        "Scoring [red]x[/] :smile: \\x1b[31m ...",
        "Waiting for the server",
        "Fetching ...",
    ]


def test_without_a_terminal_each_result_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with listening() as progress:
        progress.step("Running the cells", 2, "cells")
        progress.advance(1, "shop, mii: macro-F1 0.500")
    assert capsys.readouterr().err.splitlines() == ["Running the cells ...", "[1/2 cells] shop, mii: macro-F1 0.500"]


def test_without_a_terminal_lines_tell_the_time_left_and_that_a_silent_step_runs() -> None:
    file = io.StringIO()
    with listener(Terminal(file=file), first=0.05, silence=0.1) as progress:
        progress.step("Labelling", 200)
        for _ in range(6):
            progress.advance()
            time.sleep(0.02)
        time.sleep(0.3)
    step, count, silent, *_ = file.getvalue().splitlines()
    assert step == "Labelling ..."
    assert re.fullmatch(r"\[[3-6]/200 rows, [\d.]+ rows/s, 0:\d\d left\] Labelling", count)
    assert silent == "Labelling: running for 0:00"


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(quiet=True) as progress:
        progress.step("Scoring", 2)
        progress.note("hello")
    assert progress is QUIET
    assert capsys.readouterr() == ("", "")
