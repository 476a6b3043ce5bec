"""A log of what each stage decided about each dataset. Each line is on disk before the next dataset begins, so a killed
build resumes there.

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
    """One dataset in one stage."""

    key: str
    name: str
    kept: bool
    reason: str = ""
    """Why it was dropped, or a remark on a kept one."""
    temporary: bool = False
    """Dropped for a reason that may have passed (gated, gone, timed out): `--retry` tries again."""
    detail: dict[str, Any] = Field(default_factory=dict[str, Any])

    @property
    def line(self) -> str:
        """One sentence."""
        return f"{self.name}: {'kept' if self.kept else 'dropped'}{', ' + self.reason if self.reason else ''}"


class Journal:
    """The lines of one stage."""

    def __init__(self, corpus: Path, stage: str, *, retry: bool = False) -> None:
        """Read the lines. One cut short by a kill counts as missing; with `retry`, so do temporary ones."""
        self._path = corpus / FOLDER / f"{stage}.jsonl"
        self._entries = {entry.key: entry for entry in _read(self._path) if not (retry and entry.temporary)}

    def get(self, key: str) -> Entry | None:
        """The latest line under a key."""
        return self._entries.get(key)

    def add(self, entry: Entry) -> Entry:
        """Write a line. Raises `OutputError` on a full disk."""
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
    """The entries as CSV: name, kept, reason, and these details. Raises `OutputError`."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "kept", "reason", *columns])
    for entry in entries:
        details = [entry.detail.get(column, "") for column in columns]
        shown = [", ".join(map(str, value)) if isinstance(value, list) else value for value in details]
        table.writerow([entry.name, "yes" if entry.kept else "no", entry.reason, *shown])
    return write_text(corpus / f"{stage}.csv", text.getvalue(), force=True)
