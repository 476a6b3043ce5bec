"""Bytes to text, lines and names, the same for files and standard input."""

import codecs
import os
from pathlib import Path

from promptmii.errors import DataError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks; that of UTF-32 begins with that of UTF-16."""
_FORMATS = {
    b"PK\x03\x04": "a zip archive or a workbook (.xlsx)",
    b"\x1f\x8b": "packed by gzip (.gz)",
    b"PAR1": "Parquet (.parquet)",
    b"\xd0\xcf\x11\xe0": "an old workbook (.xls); save it as .xlsx",
    b"%PDF": "a PDF, which holds no table",
}
"""First bytes of files that are not text."""


def decode(content: bytes, origin: str) -> str:
    """UTF-8, or what a byte order mark or the zeros of UTF-16 say. Raises `DataError` that names the line."""
    check_is_text(content, origin)
    encoding = encoding_of(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        if encoding not in ("utf-8", "utf-8-sig"):
            raise DataError(f"{origin} is broken {encoding.upper()}: {error}. Save it again.") from error
        shown = content.split(b"\n")[line - 1]
        raise DataError(
            f"{origin} is not UTF-8: byte {error.start} (line {line}) cannot be decoded. If it is "
            f"Windows-1252 or Latin-1, the line reads {shown.decode('cp1252', 'replace').strip()[:60]!r}. Save it as "
            "UTF-8, for instance with: iconv -f WINDOWS-1252 -t UTF-8 (or SHIFT_JIS, GB18030, ... if it is that)."
        ) from error


def check_is_text(start: bytes, origin: str) -> None:
    """Raise `DataError` for a file that begins like one of another format."""
    if known := next((name for mark, name in _FORMATS.items() if start.startswith(mark)), None):
        raise DataError(f"{origin} is no text, whatever its ending says: it is {known}.")


def encoding_of(start: bytes) -> str:
    """The encoding that the beginning of a file shows: a byte order mark, the zeros of UTF-16, or else UTF-8."""
    return next((name for mark, name in _MARKS if start.startswith(mark)), None) or _unmarked(start)


def _unmarked(content: bytes) -> str:
    """UTF-16 without a mark shows in its zeros: every other byte, for text that is mostly ASCII."""
    start = content[:2000]
    for name, first in (("utf-16-le", 1), ("utf-16-be", 0)):
        zeros = start[first::2]
        if len(start) > 3 and zeros.count(0) > len(zeros) * 0.7 and start[1 - first :: 2].count(0) == 0:
            return name
    return "utf-8"


def split_lines(text: str) -> list[str]:
    """The lines as `wc -l` counts them, whichever of \\n, \\r\\n or (alone) \\r ends them.

    Other separators, such as U+2028 or a form feed, are part of a text.
    """
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def path_name(path: str | Path) -> str:
    """A path as text that a file can hold. In the C locale, Python reads the bytes of an umlaut as lone surrogates."""
    return os.fsencode(path).decode("utf-8", "replace")
