"""What a stage found out of each dataset: a line is on the disk before the next dataset begins, so a killed build goes on there.

A line's key hashes the dataset and every setting that its result depends on. Changed settings give new keys; what is done
under others is left alone.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from promptmii.files import append_line, write_text
from promptmii.schema import Frozen

FOLDER = "stages"


class Entry(Frozen):
    """One dataset in one stage."""

    key: str
    name: str
    kept: bool
    reason: str = ""
    """Why it was dropped; for what was kept, what should be known of it."""
    temporary: bool = False
    """What dropped it may be over by now (gated, vanished, timed out): `--retry` tries again."""
    detail: dict[str, Any] = Field(default_factory=dict[str, Any])

    @property
    def line(self) -> str:
        """One sentence."""
        return f"{self.name}: {'kept' if self.kept else 'dropped'}{', ' + self.reason if self.reason else ''}"


class Journal:
    """The lines of one stage."""

    def __init__(self, corpus: Path, stage: str, *, retry: bool = False) -> None:
        """Reads what is there; lines that a kill cut short count as not written. With `retry`, temporary ones do as well."""
        self._path = corpus / FOLDER / f"{stage}.jsonl"
        self._entries = {entry.key: entry for entry in _read(self._path) if not (retry and entry.temporary)}

    def get(self, key: str) -> Entry | None:
        """What is known under a key."""
        return self._entries.get(key)

    def add(self, entry: Entry) -> Entry:
        """Write a line. Raises `OutputError` on a full disk."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self._path, (entry.model_dump_json(exclude_defaults=True) + "\n").encode("utf-8", "replace"))
        self._entries[entry.key] = entry
        return entry


def _read(path: Path) -> Iterable[Entry]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                yield Entry.model_validate_json(line)
            except ValidationError:
                continue


def write_table(corpus: Path, stage: str, entries: Sequence[Entry], columns: Sequence[str]) -> Path:
    """The lines as a CSV that people read: name, kept, reason, and these details. Raises `OutputError`."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "kept", "reason", *columns])
    for entry in entries:
        details = [entry.detail.get(column, "") for column in columns]
        shown = [", ".join(map(str, value)) if isinstance(value, list) else value for value in details]
        table.writerow([entry.name, "yes" if entry.kept else "no", entry.reason, *shown])
    return write_text(corpus / f"{stage}.csv", text.getvalue(), force=True)
