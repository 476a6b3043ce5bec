"""What can be measured: an instruction, its file, a file of plain text, or the text itself."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from promptmii.data.decoding import decode, path_name
from promptmii.data.load import SUFFIXES, format_of
from promptmii.errors import ArtefactError, DataError
from promptmii.inducers import Given
from promptmii.instruction import Instruction
from promptmii.notebook import brief
from promptmii.task import Support

Prompt: TypeAlias = Instruction | str | os.PathLike[str]
"""An instruction, the path of an artefact (`.json`) or of a text, or a text of at least two words."""
SLOT = re.compile(r"\{\{? *(?:text|input|query|message) *\}?\}")
"""Where other tools put the text to classify."""


def read(given: Prompt) -> Instruction | str:
    """The instruction, or a text that becomes one once its labels are known.

    Raises `ArtefactError` for a file that cannot be read, `DataError` for an empty text or a table.
    """
    if isinstance(given, Instruction):
        return given
    if isinstance(given, str) and not is_path(given):
        return _checked(given, "The text")
    path = Path(given)
    if path.suffix == ".json":
        return Instruction.load(path)
    if format_of(path) in set(SUFFIXES) - {".txt"}:
        raise DataError(f"{path} is a table; expected an instruction file (.json) or a text. Is the order swapped?")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be read: {error.strerror}. Expected an instruction file (.json), or a file of text."
        ) from error
    return _checked(decode(content, path_name(path)), str(path))


def text_of(given: Prompt) -> str:
    """The text alone. Raises as `read` does."""
    found = read(given)
    return found.text if isinstance(found, Instruction) else found


def is_path(given: str) -> bool:
    """Whether a text names a file: one that exists, or a single word with an ending."""
    one_word = not re.search(r"\s", given.strip())
    try:
        return bool(given) and "\n" not in given and (Path(given).exists() or (one_word and bool(Path(given).suffix)))
    except (OSError, ValueError):  # longer than any file name, or with a null byte
        return False


def _checked(text: str, owner: str) -> str:
    if not text.strip():
        raise DataError(f"{owner} is empty. To measure the label list alone: promptmii compare naive --data DATA")
    if text.isascii() and not re.search(r"\s", text.strip()):
        raise DataError(f"{text.strip()!r} is no file and too short for an instruction. Check the name of the file.")
    return text


def written(text: str, labels: Sequence[str]) -> Instruction:
    """A human's text as an instruction. Another tool's slot stays in it, with a note."""
    made = Given(text).induce(Support(tuple(labels), ()))
    if found := SLOT.search(text):
        return made.noted(f"{found[0]} is not a slot here: promptmii adds the labels and the input after the text")
    return made


def name_of(given: Prompt) -> str:
    """Its name in tables: the path as given, the method, or the beginning of the text."""
    if isinstance(given, Instruction):
        return given.method
    if isinstance(given, str) and not is_path(given):
        return brief(given, 24)
    return path_name(os.fspath(given))
