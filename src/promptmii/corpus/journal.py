"""A log of each stage's decision on each dataset. Every line is written before the next dataset starts, so a killed
build can resume.

The key of a line hashes the dataset and every setting that its result depends on. Changed settings give new keys;
lines under other keys are kept and ignored.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from promptmii.errors import ArtefactError
from promptmii.files import append_line, private_folder, write_text
from promptmii.schema import Frozen

FOLDER = "stages"


class Entry(Frozen):
    """The outcome of one stage for one dataset."""

    key: str
    name: str
    kept: bool
    reason: str = ""
    """Why the dataset was dropped, or a note if it was kept."""
    temporary: bool = False
    """The failure may be temporary (gated, gone, timed out): `--retry` tries again."""
    detail: dict[str, Any] = Field(default_factory=dict[str, Any])

    @property
    def line(self) -> str:
        """The entry as one line of text."""
        return f"{self.name}: {'kept' if self.kept else 'dropped'}{', ' + self.reason if self.reason else ''}"


class Journal:
    """The entries of one stage."""

    def __init__(self, corpus: Path, stage: str, *, retry: bool = False) -> None:
        """Read the entries. Skips incomplete lines and, with `retry`, temporary failures."""
        self._path = corpus / FOLDER / f"{stage}.jsonl"
        self._entries = {entry.key: entry for entry in _read(self._path) if not (retry and entry.temporary)}

    def get(self, key: str) -> Entry | None:
        """The latest entry with this key."""
        return self._entries.get(key)

    def add(self, entry: Entry) -> Entry:
        """Append an entry. Raises `OutputError` if the disk is full."""
        private_folder(self._path.parent)
        append_line(self._path, (entry.model_dump_json(exclude_defaults=True) + "\n").encode("utf-8", "replace"))
        self._entries[entry.key] = entry
        return entry


def _read(path: Path) -> Iterable[Entry]:
    if not path.exists():
        return
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error.strerror}. Move it away, and build again.") from error
    for line in lines:
        try:
            yield Entry.model_validate_json(line)
        except ValidationError:
            continue


def write_table(corpus: Path, stage: str, entries: Sequence[Entry], columns: Sequence[str]) -> Path:
    """Write the entries as CSV: name, kept, reason, then `columns` from the details. Raises `OutputError`."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "kept", "reason", *columns])
    for entry in entries:
        details = [entry.detail.get(column, "") for column in columns]
        cells = [", ".join(map(str, value)) if isinstance(value, list) else value for value in details]
        table.writerow([entry.name, "yes" if entry.kept else "no", entry.reason, *cells])
    return write_text(corpus / f"{stage}.csv", text.getvalue(), force=True)
