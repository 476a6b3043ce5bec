"""Shows `Progress` on standard error with rate and remaining time: a bar, or plain lines without a terminal."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from threading import Event, Thread

from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from promptmii.cli.terminal import Terminal, err, styled
from promptmii.progress import QUIET, Progress, Unit

NARROW = 70
"""Terminal width in columns below which the bar is hidden."""
SPEED_PERIOD = 600.0
"""Seconds over which the speed is averaged. It is long because grid cells take minutes."""
FIRST_REPORT = 5.0
"""Seconds until the first progress line of a step."""
REPORT_EVERY = 30.0
"""Seconds between two progress lines of a step."""
SILENCE = 60.0
"""Seconds without a line after which one says that the step still runs."""
SCALED = {"bytes": ("MB", 1e6)}
"""Units shown in multiples: symbol and size."""


@contextmanager
def listening(*, quiet: bool = False) -> Generator[Progress]:
    """Show progress on standard error, or nowhere if `quiet`."""
    if quiet:
        yield QUIET
    else:
        with listener(err) as progress:
            yield progress


@contextmanager
def listener(terminal: Terminal, *, first: float = FIRST_REPORT, silence: float = SILENCE) -> Generator[Progress]:
    """Show a bar on a terminal, lines elsewhere."""
    if not terminal.is_terminal or terminal.is_dumb_terminal:
        lines, ended = _Lines(terminal, first), Event()
        Thread(target=lines.keep_reporting, args=(ended, silence), daemon=True).start()
        try:
            yield lines
        finally:
            ended.set()
    else:
        wide = terminal.width >= NARROW
        bar = [BarColumn(bar_width=24)] if wide else []
        columns = [SpinnerColumn(), _NameColumn(terminal.width), *bar, _CountColumn(wide)]
        bars = Bars(*columns, console=terminal, transient=True, speed_estimate_period=SPEED_PERIOD)
        try:
            yield _Bar(bars, terminal)
        finally:
            bars.stop()


class _Bar:
    def __init__(self, bars: Bars, terminal: Terminal) -> None:
        self._bars, self._say = bars, terminal.write_line
        self._task: TaskID | None = None
        self._spent = 0.0

    def step(self, name: str, total: int | None = None, unit: Unit = "rows") -> None:
        self._spent = 0.0
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._bars.start()  # not earlier, because the command may ask a question before the first step
        self._task = self._bars.add_task(name, total=total, unit=unit, done="", spent=0.0)

    def advance(self, amount: int = 1, done: str = "", *, money: float | None = None) -> None:
        if self._task is not None:
            self._spent += money or 0.0
            self._bars.update(self._task, advance=amount, done=done, spent=self._spent)

    def note(self, message: str) -> None:
        self._say(message)  # rich keeps the bar below printed lines


class _Lines(_Bar):
    """One line per step and per named result, and a count now and then. Its bars only count; they are never shown."""

    def __init__(self, terminal: Terminal, first: float) -> None:
        super().__init__(Bars(console=terminal, disable=True, speed_estimate_period=SPEED_PERIOD), terminal)
        self._first, self._pause, self._reported = first, first, time.monotonic()

    def step(self, name: str, total: int | None = None, unit: Unit = "rows") -> None:
        super().step(name, total, unit)
        self._reported, self._pause = time.monotonic(), self._first
        self._say(f"{name} ...")

    def advance(self, amount: int = 1, done: str = "", *, money: float | None = None) -> None:
        super().advance(amount, done, money=money)
        now = time.monotonic()
        if done or now - self._reported >= self._pause:
            self._reported, self._pause = now, REPORT_EVERY
            for task in self._bars.tasks:
                self._say(f"[{_counted(task)}] {done or task.description}")

    def keep_reporting(self, ended: Event, silence: float) -> None:
        """Until the end, say how long a step has been running if it was silent for so many seconds."""
        while not ended.wait(silence):
            if time.monotonic() - self._reported >= silence:
                for task in self._bars.tasks:
                    if not task.finished:
                        self._say(f"{task.description}: running for {_clock(task.elapsed)}")


class _NameColumn(ProgressColumn):
    """The step and its latest result, truncated to the terminal's width."""

    def __init__(self, width: int) -> None:
        super().__init__(Column(no_wrap=True))
        self._room = max(width - 72, 20)  # 72 columns are for the bar and the counts

    def render(self, task: Task) -> Text:
        done = task.fields["done"]
        text = styled(f"{task.description}: {done}" if done else task.description)
        text.truncate(self._room, overflow="ellipsis")
        return text


class _CountColumn(ProgressColumn):
    def __init__(self, wide: bool) -> None:
        super().__init__(Column(no_wrap=True))
        self._wide = wide

    def render(self, task: Task) -> Text:
        return styled(_counted(task, rate=self._wide), "dim")


def _counted(task: Task, *, rate: bool = True) -> str:
    """Count, rate and remaining time; elapsed time until there is a count."""
    if not task.total and not task.completed:
        return _clock(task.elapsed)
    unit = str(task.fields["unit"])
    name, size = SCALED.get(unit, (unit, 1))
    of_total = "" if task.total is None else f"/{task.total / size:,.0f}"
    parts = [f"{task.completed / size:,.0f}{of_total} {name}"]
    if task.speed and rate:
        speed = task.speed / size
        parts.append(f"{speed:,.1f} {name}/s" if speed >= 1 else f"{1 / speed:,.1f} s each")
    if task.time_remaining is not None:
        parts.append(f"{_clock(task.time_remaining)} left")
    if spent := task.fields["spent"]:
        parts.append(f"{spent:.3g} spent")
    return ", ".join(parts)


def _clock(seconds: float | None) -> str:
    minutes, rest = divmod(int(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
