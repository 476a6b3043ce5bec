"""Decodes bytes to text and splits it into lines, the same way for files and standard input."""

import codecs
import os
import re
from pathlib import Path

from promptmii.errors import DataError
from promptmii.messages import counted

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""UTF-32 precedes UTF-16, because its little-endian mark starts with the UTF-16 mark."""
_ISO_2022_JP = re.compile(rb"\x1b(?:\$[@B]|\$\(D|\([IJ])")
"""Where ISO-2022-JP, as in Japanese mail, switches to another character set."""
_BINARY_FORMATS = {
    b"PK\x03\x04": "a zip archive or a workbook (.xlsx)",
    b"\x1f\x8b": "compressed with gzip (.gz)",
    b"BZh9": "compressed with bzip2; decompress it",
    b"\xfd7zXZ": "compressed with xz; decompress it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; decompress it",
    b"SQLite format 3\0": "a database of SQLite; export its table as CSV",
    b"PAR1": "Parquet (.parquet)",
    b"\xd0\xcf\x11\xe0": "an old workbook (.xls); save it as .xlsx",
    b"%PDF": "a PDF, which holds no table",
}
"""Formats by the first bytes of a file."""
_STAND_INS = {
    b"version https://git-lfs": "a pointer of Git LFS; get the file itself with: git lfs pull",
    b"<!doctype html": "a web page; download the file itself",
    b"<html": "a web page; download the file itself",
    b"<?xml version": "XML; export the table as CSV",
    b"{\\rtf": "formatted text (RTF); save it as plain text",
}
"""What may be saved under the name of a table in its place, by its first bytes in lower case."""


def decode(content: bytes, origin: str) -> str:
    """Decode UTF-8, or the encoding that `encoding_of` detects. Raises `DataError` that names the line."""
    check_is_text(content, origin)
    encoding = encoding_of(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding not in ("utf-8", "utf-8-sig"):
            name = "ISO-2022-JP" if encoding.startswith("iso2022_jp") else encoding.upper()
            raise DataError(f"{origin} is broken {name}: {error}. Save it as UTF-8.") from error
        # The error holds the content without the byte order mark.
        raise DataError(f"{origin} is {_not_utf8(error.object, error.start)}") from error


def _not_utf8(content: bytes, bad: int) -> str:
    """What to do about the byte at position `bad`, after "FILE is"."""
    line = content.count(b"\n", 0, bad) + 1
    first = max(content.rfind(b"\n", 0, bad) + 1, bad - 30)
    excerpt = content[first : bad + 30].split(b"\n")[0].decode("cp1252", "replace").strip()
    text = content.decode("utf-8", "replace")
    n_bad = text.count("\ufffd")
    n_good = sum(not character.isascii() for character in text) - n_bad
    if n_good > n_bad:
        return (
            f"mostly UTF-8, but byte {bad} (line {line}) cannot be decoded. As Windows-1252, it reads {excerpt!r}. "
            "Correct such lines in a text editor, or leave out the bytes that cannot be decoded "
            f"({n_bad}) with: iconv -c -f UTF-8 -t UTF-8 OLD > NEW"
        )
    advice = (
        f"not UTF-8: byte {bad} (line {line}) cannot be decoded. If it is Windows-1252, as Excel often writes, it "
        f'reads {excerpt!r}. Save it as UTF-8 in a text editor, as "CSV UTF-8" in Excel, or with: '
        "iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW (or WINDOWS-1251, SHIFT_JIS, GB18030, ... if it is that)."
    )
    if n_good:
        advice += f" But {counted(n_good, 'character')} may be UTF-8: if they are, correct only the other lines."
    return advice


def check_is_data(start: bytes, origin: str) -> None:
    """Raise `DataError` if a file starts like something saved in place of a table, such as a web page."""
    for beginning, name in _STAND_INS.items():
        if start[:100].removeprefix(codecs.BOM_UTF8).lstrip().lower().startswith(beginning):
            raise DataError(f"{origin} holds no table, despite its ending: it is {name}.")


def check_is_text(start: bytes, origin: str) -> None:
    """Raise `DataError` if a file starts like a binary format."""
    for magic, name in _BINARY_FORMATS.items():
        if start.startswith(magic):
            raise DataError(f"{origin} is not text, despite its ending: it is {name}.")


def encoding_of(start: bytes) -> str:
    """Detect UTF-16 and UTF-32 by byte order mark, UTF-16 also by its zero bytes, and ISO-2022-JP by its escapes.

    Anything else is UTF-8.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return encoding
    if start.isascii() and _ISO_2022_JP.search(start):
        return "iso2022_jp_ext"
    return _encoding_without_mark(start[:2000])


def _encoding_without_mark(start: bytes) -> str:
    """In UTF-16, every other byte of mostly ASCII text is zero; of other text at least one byte of each line end is."""
    for encoding, high_byte in (("utf-16-le", 1), ("utf-16-be", 0)):
        high_bytes, low_bytes = start[high_byte::2], start[1 - high_byte :: 2]
        zeros, stray_zeros = high_bytes.count(0), low_bytes.count(0)
        if len(start) > 3 and zeros > len(high_bytes) * 0.7 and not stray_zeros:
            return encoding
        if zeros > 3 + 2 * stray_zeros and "\n" in start.decode(encoding, "ignore"):
            return encoding
    return "utf-8"


def split_lines(text: str) -> list[str]:
    """Split text into lines that end in \\n or \\r\\n, or in \\r if the text has no \\n.

    Other separators, such as U+2028 or a form feed, stay in the line.
    """
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def path_name(path: str | Path) -> str:
    """The path as valid Unicode: in the C locale, Python decodes the bytes of an umlaut to lone surrogates."""
    return os.fsencode(path).decode("utf-8", "replace")
