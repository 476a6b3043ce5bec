"""Picking tokens within an outline, from logits that would rather say anything else."""

import pytest

torch = pytest.importorskip("torch")

from itertools import pairwise  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tests.models.test_local import trained  # noqa: E402, F401  the fixture

from promptmii.errors import UnknownModelError  # noqa: E402
from promptmii.models.base import Outline, Sampling  # noqa: E402
from promptmii.models.outline import LONGEST, drawing, read_outline, write_outline  # noqa: E402
from promptmii.models.rendering import ChatFormat  # noqa: E402

OUTLINE = Outline("{label}: like", "Answer with the label alone.")


def written(form: ChatFormat, lines: tuple[str, ...], seed: int, temperature: float, loved: list[int]) -> list[int]:
    """What a model says that loves these tokens, and the others by chance."""
    draw = drawing([[1]], Sampling(1, temperature, seed=seed), [lines], form)
    chances = torch.Generator().manual_seed(seed)
    said: list[int] = []
    while not said or said[-1] not in draw.ends:
        logits = torch.randn(1, 322, generator=chances)
        logits[0, loved] += 20
        said += draw(logits, [0])
        assert len(said) < 1000
    return said


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.sampled_from(["good", "bad", "so, so", "7", "label_2"]), min_size=1, max_size=4),
    st.integers(0, 9),
    st.data(),
)
def test_every_line_begins_as_given_and_is_not_endless(
    trained: Any, labels: list[str], seed: int, data: st.DataObject
) -> None:  # noqa: F811
    form = ChatFormat(trained, None)
    word, comma, newline = (form.encode([text])[0] for text in (" waste", ",", "\n"))
    loved = data.draw(st.sampled_from([[], word[:1], comma, newline, form.ends, [word[0], *comma]]))
    lines = OUTLINE.lines(labels)
    tokens = written(form, lines, seed, data.draw(st.sampled_from([0.0, 1.0])), loved)
    said = form.decode(tokens).split("\n")
    assert [found.startswith(line) for found, line in zip(said, lines, strict=True)] == [True] * len(lines)
    assert said[-1] == OUTLINE.closing
    assert len(tokens) <= sum(len(form.encode([f"\n{line}"])[0]) + LONGEST for line in lines) + 1


def test_a_line_lists_nothing_twice(trained: Any) -> None:  # noqa: F811
    form = ChatFormat(trained, None)
    (word,), (comma,), (newline,) = (form.encode([text])[0] for text in (" waste", ",", "\n"))
    draw = drawing([[1]], Sampling(1), [OUTLINE.lines(["good", "bad"])], form)
    said: list[int] = []
    while not said or said[-1] not in draw.ends:
        logits = torch.randn(1, 322, generator=torch.Generator().manual_seed(len(said)))
        logits[0, word] += 9 * (said[-1:] != [word])
        logits[0, comma] += 12 * (said[-1:] == [word])
        said += draw(logits, [0])
    assert said.count(word) >= 2  # once in each line at least
    listed: list[int] = []
    for before, token in pairwise(said):
        if token == newline:
            listed = []
        elif before == comma:
            assert token not in listed
            listed.append(token)


def test_without_lines_tokens_are_picked_freely(trained: Any) -> None:  # noqa: F811
    draw = drawing([[1]], Sampling(1), [()], ChatFormat(trained, None))
    assert draw(torch.eye(322)[5:6], [0]) == [5]


def test_an_outline_travels_with_the_adapter(tmp_path: Path) -> None:
    assert read_outline(tmp_path) is None
    write_outline(None, tmp_path)
    assert read_outline(tmp_path) is None
    write_outline(OUTLINE, tmp_path)
    assert read_outline(tmp_path) == OUTLINE
    (tmp_path / "outline.json").write_text('{"line": "x"}')
    with pytest.raises(UnknownModelError, match="is no outline"):
        read_outline(tmp_path)
