"""Writing within an outline: a model of 135M knows which words to name and forgets which label's turn it is, repeats itself, finds no end.

So the beginnings of the lines are given, whatever the model would rather say there, and nothing in a list begins with the same token as
something before it in the line; a word that can be cut into tokens in two ways may still come twice. A line that comes to no end is ended.
Nothing else is decided for the model: it picks every word.
"""

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.utils.hub import cached_file

from promptmii.errors import UnknownModelError
from promptmii.models.base import Outline, Sampling
from promptmii.models.decoding import Draw
from promptmii.models.rendering import ChatFormat

FILE = "outline.json"
"""Beside an adapter that was trained to fill one in."""
LONGEST = 40
"""Tokens of a line beyond its beginning."""


def read_outline(adapter: str | Path) -> Outline | None:
    """The outline of an adapter, in a folder or on the hub; `None` where it has none. Raises `UnknownModelError` where it is none."""
    absent: dict[str, Any] = dict.fromkeys(
        ("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors"), False
    )
    path = cached_file(str(adapter), FILE, **absent)
    if path is None:
        return None
    try:
        return Outline(**json.loads(Path(path).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UnknownModelError(f"{path} is no outline: {error}. Expected the strings line and closing.") from error


def write_outline(outline: Outline | None, folder: Path) -> None:
    """Put it beside the adapter, where there is one."""
    if outline:
        (folder / FILE).write_text(json.dumps(asdict(outline), indent=2) + "\n", encoding="utf-8")


@dataclass
class _Row:
    """Where one answer stands."""

    coming: deque[list[int]]
    """The beginnings of lines that are still to come."""
    given: deque[int]
    """Tokens that are said next, whatever the model would say."""
    listed: set[int] = field(default_factory=set[int])
    """First tokens of what this line lists already."""
    new: bool = True
    """The next token begins something in the list."""
    length: int = 0


class Outlined(Draw):
    """Picks tokens within the outline of each row."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        ends: Sequence[int],
        lines: Sequence[Sequence[Sequence[int]]],
        text: Callable[[int], str],
    ) -> None:
        """`lines` are the beginnings for each row as tokens, line breaks included; `text` is what a token says."""
        super().__init__(prompts, sampling, ends)
        self._text = text
        self._rows = [
            _Row(deque([*map(list, rest[:-1]), [*rest[-1], ends[0]]]), deque(first)) for first, *rest in lines
        ]

    def __call__(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """See `Draw`."""
        states = [self._rows[row] for row in rows]
        logits = logits.clone()
        for at, state in enumerate(states):
            if state.new and state.listed:
                logits[at, list(state.listed)] = float("-inf")
        return [self._said(state, token) for state, token in zip(states, super().__call__(logits, rows), strict=True)]

    def _said(self, state: _Row, token: int) -> int:
        text = self._text(token)
        if not state.given and (token in self.ends or "\n" in text or state.length >= LONGEST):
            state.given = deque(state.coming.popleft())
        if state.given:
            state.listed, state.new, state.length = set(), True, 0
            return state.given.popleft()
        if state.new:
            state.listed.add(token)
        state.new, state.length = text.rstrip().endswith(","), state.length + 1
        return token


def drawing(
    prompts: Sequence[Sequence[int]], sampling: Sampling, lines: Sequence[Sequence[str]], form: ChatFormat
) -> Draw:
    """What picks the tokens of each row: within its `lines`, or freely where there are none."""
    if not any(lines):
        return Draw(prompts, sampling, form.ends)
    known = {
        one: form.options([line if at == 0 else f"\n{line}" for at, line in enumerate(one)])
        for one in set(map(tuple, lines))
    }
    return Outlined(
        prompts, sampling, form.ends, [known[tuple(one)] for one in lines], lambda token: form.decode([token])
    )
