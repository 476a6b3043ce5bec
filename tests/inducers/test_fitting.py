"""Which examples a prompt has room for: no long one costs the others, and what is left out is said."""

from hypothesis import given
from hypothesis import strategies as st

from promptmii import Example, InContext, MetaInducer, ScriptedModel, Support, Writer
from promptmii.inducers.writing import fitting_positions

SHORT = tuple(Example(f"short text {i}", "ab"[i % 2]) for i in range(12))
HUGE = Example("word " * 100_000, "a")


def test_one_huge_example_costs_no_other_wherever_it_stands() -> None:
    for place in (0, 5, 12):
        support = Support(("a", "b"), (*SHORT[:place], HUGE, *SHORT[place:]))
        for instruction in (
            MetaInducer(Writer(ScriptedModel(["Guide."]))).induce(support),
            InContext(ScriptedModel()).induce(support),
        ):
            assert instruction.provenance.n == 12
            assert "12 of 13 examples fit" in instruction.provenance.notes[0]


def test_a_long_example_that_fits_alone_goes_before_many_short_ones() -> None:
    assert fitting_positions([10, 900, 10, 10, 10], 920) == [0, 2, 3, 4]
    assert fitting_positions([10, 12, 11, 10], 35) == [0, 1, 2]
    assert fitting_positions([10, 900, 10], 1000) == [0, 1, 2]
    assert fitting_positions([900, 10], 100) == [1]
    assert fitting_positions([], 10) == fitting_positions([5], 4) == fitting_positions([5, 5], -1) == []


@given(st.lists(st.integers(1, 1000), max_size=30), st.integers(-10, 5000))
def test_what_is_kept_fits_and_is_something_where_anything_fits(lengths: list[int], room: int) -> None:
    kept = fitting_positions(lengths, room)
    assert kept == sorted(set(kept))
    assert sum(lengths[i] for i in kept) <= max(room, 0)
    assert bool(kept) == (bool(lengths) and min(lengths) <= room)
    if sum(lengths) <= room:
        assert len(kept) == len(lengths)
