"""The history, stored in a folder: uploaded tables and trials.

data/<hash>/<file name>
trials/<key>/trial.json         settings and results
trials/<key>/instruction.json   as soon as it is written
reports/<hash>/index.html
"""

import hashlib
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from platformdirs import user_data_path
from pydantic import ValidationError

from promptmii.break_even import BreakEven
from promptmii.config import InduceSettings
from promptmii.data import LoadedTask, demo_path, load_task, read_table
from promptmii.data.table import Table
from promptmii.errors import ArtefactError, DataError
from promptmii.files import atomic_file, private_folder, write_text
from promptmii.instruction import Instruction
from promptmii.metrics import Difference
from promptmii.schema import Frozen
from promptmii.scoring import Scored
from promptmii.task import Example

SAMPLE = "sample"
"""Key of the bundled sample table."""
MAX_NAME_BYTES = 255
"""Maximum length of a file name on most file systems."""
_KEY = re.compile(r"[\w-]+")


def home_folder() -> Path:
    """The default folder of the history."""
    return user_data_path("promptmii", appauthor=False) / "ui"


class Answers(Frozen):
    """The answers to the held-back rows under one prompt."""

    name: str
    """The prompt's name on the page."""
    instruction: Instruction
    labels: tuple[str | None, ...]
    probabilities: tuple[float | None, ...]
    """The probability of each predicted label."""
    seconds: float

    @classmethod
    def of(cls, name: str, instruction: Instruction, scored: Scored) -> "Answers":
        """The answers in a score."""
        best = tuple(max(p.probabilities) if p.probabilities else None for p in scored.predictions)
        return cls(
            name=name,
            instruction=instruction,
            labels=tuple(scored.labels),
            probabilities=best,
            seconds=scored.usage.seconds,
        )


class Trial(Frozen):
    """One trial: an instruction that a model wrote or a user edited, and its measurement."""

    key: str
    made: datetime
    data: str
    """Key of the table."""
    settings: InduceSettings
    parent: str | None = None
    """The trial whose instruction was edited."""
    query: tuple[Example, ...] = ()
    answers: tuple[Answers, ...] = ()
    """One entry per prompt. The instruction's own is the last; the others are compared with it."""
    differences: tuple[Difference, ...] = ()
    """The instruction minus each other prompt."""
    break_even: BreakEven | None = None
    notes: tuple[str, ...] = ()
    failure: str = ""

    @property
    def own(self) -> Answers | None:
        """The instruction's own answers, once it is measured."""
        return self.answers[-1] if self.answers else None

    @property
    def gold(self) -> list[str]:
        """The true labels of the held-back rows."""
        return [row.label for row in self.query]


class Store:
    """Reads and writes the history folder."""

    def __init__(self, home: Path) -> None:
        self.home = private_folder(home)
        self.task = lru_cache(maxsize=8)(self._task)
        self.table = lru_cache(maxsize=8)(self._table)
        self._read = lru_cache(maxsize=1024)(_trial_in)

    def add(self, name: str, content: bytes) -> str:
        """Store an uploaded table, and return its key. Raises `OutputError`."""
        safe_name = re.sub(r"[^\w.() -]", "_", Path(name.replace("\\", "/")).name)[-120:]
        safe_name = safe_name.encode()[-MAX_NAME_BYTES:].decode(errors="ignore").lstrip(". ") or "data.csv"
        digest = hashlib.sha256(content)
        digest.update(safe_name.encode())  # its suffix decides the format
        key = digest.hexdigest()[:16]
        folder = private_folder(self.home / "data" / key)
        if not _table_in(folder):
            with atomic_file(folder / safe_name) as temporary:
                temporary.write_bytes(content)
        return key

    def path(self, key: str) -> Path:
        """The path of a table. Raises `DataError` if it is gone."""
        if key == SAMPLE:
            return demo_path()
        folder = self.home / "data" / key
        table = _table_in(folder) if _KEY.fullmatch(key) and folder.is_dir() else None
        if table is None:
            raise DataError("This table no longer exists. Upload it again.")
        return table

    def title(self, key: str) -> str:
        """The name of a table on the page."""
        try:
            return "Sample: support tickets" if key == SAMPLE else self.path(key).name
        except DataError:
            return "a table that is no longer here"

    def _table(self, key: str) -> Table:
        return read_table(self.path(key))

    def _task(
        self, key: str, text: tuple[str, ...] | str | None, label: str | None, labels: tuple[str, ...] | None, seed: int
    ) -> LoadedTask:
        return load_task(self.table(key), text=text, label=label, labels=labels, seed=seed)

    def loaded(self, trial: Trial) -> LoadedTask:
        """The task of a trial. Raises `DataError`."""
        columns = trial.settings.columns
        return self.task(trial.data, columns.text, columns.label, columns.labels, trial.settings.seed)

    def new(self, data: str, settings: InduceSettings, parent: str | None = None) -> Trial:
        """A new trial."""
        now = datetime.now().astimezone()
        return Trial(
            key=f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}", made=now, data=data, settings=settings, parent=parent
        )

    def folder(self, key: str) -> Path:
        """The folder of a trial."""
        return self.home / "trials" / key

    def save(self, trial: Trial) -> None:
        """Write a trial to its folder. Raises `OutputError`."""
        write_text(
            private_folder(self.folder(trial.key)) / "trial.json", trial.model_dump_json(indent=1) + "\n", force=True
        )

    def trial(self, key: str) -> Trial | None:
        """The trial with this key, if it exists. Raises `ArtefactError` if it cannot be read."""
        path = self.folder(key) / "trial.json"
        if not _KEY.fullmatch(key) or not path.is_file():
            return None
        return self._read(path, path.stat().st_mtime_ns)

    def instruction(self, trial: Trial) -> Instruction | None:
        """The instruction of a trial, measured or not, if it is written yet."""
        if trial.own:
            return trial.own.instruction
        path = self.folder(trial.key) / "instruction.json"
        return Instruction.load(path) if path.is_file() else None

    def trials(self) -> Iterator[Trial]:
        """All readable trials, newest first."""
        for key in sorted((path.parent.name for path in (self.home / "trials").glob("*/trial.json")), reverse=True):
            with suppress(ArtefactError):
                if trial := self.trial(key):
                    yield trial


def _table_in(folder: Path) -> Path | None:
    return next((path for path in folder.iterdir() if not path.name.startswith(".")), None)


def _trial_in(path: Path, _modified: int) -> Trial:
    """Read a trial. The modification time is a cache key. Raises `ArtefactError`."""
    try:
        return Trial.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtefactError(f"{path} cannot be read: it is from another version, or damaged.") from error
