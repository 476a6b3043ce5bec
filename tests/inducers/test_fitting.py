"""Selecting the examples that fit a prompt: long ones are dropped first, and a note counts what is left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii import Example, InContext, MetaInducer, ScriptedModel, Support, Writer
from promptmii.inducers.writing import fitting_positions

SHORT = tuple(Example(f"short text {i}", "ab"[i % 2]) for i in range(12))
HUGE = Example("word " * 100_000, "a")


@pytest.mark.slow
def test_a_huge_example_displaces_no_other_at_any_position() -> None:
    for position in (0, 5, 12):
        support = Support(("a", "b"), (*SHORT[:position], HUGE, *SHORT[position:]))
        for instruction in (
            MetaInducer(Writer(ScriptedModel(["Guide."]))).induce(support),
            InContext(ScriptedModel()).induce(support),
        ):
            assert instruction.provenance.n == 12
            assert "12 of 13 examples fit" in instruction.provenance.notes[0]


def test_a_label_whose_examples_are_all_too_long_is_noted() -> None:
    long = Example("word " * 10_000, "c")
    support = Support(("a", "b", "c", "d"), (*SHORT, long))
    for instruction in (
        MetaInducer(Writer(ScriptedModel(["Guide."]))).induce(support),
        InContext(ScriptedModel()).induce(support),
    ):
        assert "no example that fits of 1 of 3 labels: 'c'" in instruction.provenance.notes


def test_a_long_example_is_dropped_before_many_short_ones() -> None:
    assert fitting_positions([10, 900, 10, 10, 10], 920) == [0, 2, 3, 4]
    assert fitting_positions([10, 12, 11, 10], 35) == [0, 1, 2]
    assert fitting_positions([10, 900, 10], 1000) == [0, 1, 2]
    assert fitting_positions([900, 10], 100) == [1]
    assert fitting_positions([], 10) == fitting_positions([5], 4) == fitting_positions([5, 5], -1) == []


@given(st.lists(st.integers(1, 1000), max_size=30), st.integers(-10, 5000))
def test_the_selection_fits_and_is_not_empty_if_any_example_fits(lengths: list[int], limit: int) -> None:
    positions = fitting_positions(lengths, limit)
    assert positions == sorted(set(positions))
    assert sum(lengths[position] for position in positions) <= max(limit, 0)
    assert bool(positions) == (bool(lengths) and min(lengths) <= limit)
    if sum(lengths) <= limit:
        assert len(positions) == len(lengths)
