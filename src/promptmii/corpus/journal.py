"""The journal of a build: each stage's outcome for each dataset.

A line is written before the next dataset starts, so a killed build can resume. Its key hashes the dataset and all
settings that affect the outcome. Changed settings give new keys, and lines with old keys are ignored.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from promptmii.data.corpus_files import JOURNALS
from promptmii.errors import ArtefactError
from promptmii.files import append_line, private_folder, write_text
from promptmii.schema import Frozen


class Entry(Frozen):
    """The outcome of one stage for one dataset."""

    key: str
    name: str
    kept: bool
    reason: str = ""
    """Why the dataset was dropped, or a note if it was kept."""
    temporary: bool = False
    """The failure may be temporary (gated, gone, timed out); `--retry` tries again."""
    detail: dict[str, Any] = Field(default_factory=dict[str, Any])


class Journal:
    """The entries of one stage."""

    def __init__(self, corpus: Path, stage: str, *, retry: bool = False) -> None:
        """Read the entries, except incomplete lines and, with `retry`, temporary failures."""
        self._path = corpus / JOURNALS / f"{stage}.jsonl"
        self._entries = {entry.key: entry for entry in _read(self._path) if not (retry and entry.temporary)}

    def get(self, key: str) -> Entry | None:
        """The latest entry with this key, if any."""
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
    """Write the entries as CSV: name, kept, reason, then `columns` of their details. Raises `OutputError`."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "kept", "reason", *columns])
    for entry in entries:
        details = [entry.detail.get(column, "") for column in columns]
        cells = [", ".join(map(str, value)) if isinstance(value, list) else value for value in details]
        table.writerow([entry.name, "yes" if entry.kept else "no", entry.reason, *cells])
    return write_text(corpus / f"{stage}.csv", text.getvalue(), force=True)
