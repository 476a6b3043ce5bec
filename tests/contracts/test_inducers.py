"""The contract of `Inducer`, tested for every method of the registry."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptmii import (
    BestOf,
    Example,
    Follower,
    Inducer,
    Instruction,
    MetaInducer,
    ScriptedModel,
    Support,
    Writer,
)
from promptmii.errors import EndpointError, ScoreRefusedError
from promptmii.inducers import METHODS, Kit, Method, WrittenBy, method_named
from promptmii.models.base import Chat, Failure, FailureKind
from promptmii.task import content_key, row_key

SUPPORT = Support(
    ("parcel", "money", "other"),
    tuple(
        Example(f"{label} text number {i}{', and so on' * 20 * i}", label)
        for i in range(3)
        for label in ("money", "parcel", "other")
    ),
)


class Bench:
    """A generator and a follower that record their calls. Their answers depend on the whole prompt."""

    def __init__(self, failing: Callable[[int], bool] = lambda _: False) -> None:
        """Call number i fails if `failing(i)` is true."""
        self._failing = failing
        self.generator = ScriptedModel(self._reply, name="generator")
        self.follower = ScriptedModel(score=self._score, name="follower")

    @property
    def kit(self) -> Kit:
        return Kit(Writer(self.generator), Follower(self.follower), human="Label the ticket.")

    @property
    def calls(self) -> list[Chat]:
        return [*self.generator.calls, *self.follower.calls]

    @property
    def _failure(self) -> Failure | None:
        return Failure(FailureKind.SERVER, "down") if self._failing(len(self.calls) - 1) else None

    def _reply(self, chat: Chat, i: int) -> str | Failure:
        return self._failure or f"Draft {i} after {content_key(list(chat))[:8]}"

    def _score(self, chat: Chat, option: str) -> float | Failure:
        return self._failure or -int(content_key([*chat, option])[:4], 16) / 1000


FEW_CALLS: dict[str, dict[str, int]] = {"best-of-k": {"k": 3}, "ape": {"calls": 30, "rounds": 1}, "gepa": {"calls": 12}}
"""Options that keep the searches short."""
ELSEWHERE = {"sft", "shuffled"}
"""Methods that need a follower to train, or labels in the draft; `test_sft` and `test_rivals` test them."""
INDUCERS: dict[str, Callable[[Bench], Inducer]] = {
    **{
        name: lambda bench, name=name: method_named(name, FEW_CALLS.get(name)).inducer(bench.kit)
        for name in METHODS
        if name not in ELSEWHERE
    },
    "mii, over its budget": lambda bench: MetaInducer(Writer(bench.generator, budget=2)),
    "best-of-k, calibrated": lambda bench: BestOf(
        Writer(bench.generator), Follower(bench.follower, "choose", "support"), k=3
    ),
}


def method_of(name: str) -> type[Method]:
    return METHODS[name.split(",")[0]]


@pytest.fixture(params=INDUCERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def induced(name: str, support: Support = SUPPORT, *, seed: int = 0, bench: Bench | None = None) -> Instruction:
    return INDUCERS[name](bench or Bench()).induce(support, seed=seed)


labels = st.text("abc é体,-1", min_size=1, max_size=6).map(lambda text: " ".join(text.split())).filter(bool)
supports = st.lists(labels, min_size=2, max_size=4, unique=True).map(
    lambda names: Support(tuple(names), tuple(Example(f"text {i} of {name}", name) for i in range(2) for name in names))
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(support=supports, seed=st.integers(0, 2**31))
def test_the_instruction_has_the_labels_of_the_support_in_order(support: Support, seed: int) -> None:
    for name in INDUCERS:
        instruction = induced(name, support, seed=seed)
        assert instruction.labels == support.labels
        assert instruction.provenance.seed == seed


@settings(max_examples=8, deadline=None)
@given(support=supports, seed=st.integers(0, 2**31))
def test_equal_support_and_seed_give_equal_instructions(support: Support, seed: int) -> None:
    for name in INDUCERS:
        copy = Support(support.labels, tuple(support.examples))
        assert induced(name, support, seed=seed).key == induced(name, copy, seed=seed).key


def test_the_cost_covers_every_model_call(name: str) -> None:
    bench = Bench()
    cost = induced(name, bench=bench).cost
    assert cost.calls == len(bench.calls)
    assert cost.prompt_tokens == sum(len(message["content"].split()) for chat in bench.calls for message in chat)


def test_a_second_instruction_does_not_include_the_cost_of_the_first(name: str) -> None:
    inducer = INDUCERS[name](Bench())
    assert inducer.induce(SUPPORT).cost == inducer.induce(SUPPORT).cost


def test_a_failed_call_raises_and_never_becomes_an_instruction(name: str) -> None:
    healthy = Bench()
    induced(name, bench=healthy)
    for number in range(len(healthy.calls)):
        with pytest.raises((EndpointError, ScoreRefusedError)):
            induced(name, bench=Bench(failing=lambda i, number=number: i == number))


def test_a_method_without_model_calls_works_if_every_call_would_fail(name: str) -> None:
    bench = Bench(failing=lambda _: True)
    if method_of(name).written_by is WrittenBy.NOBODY:
        assert induced(name, bench=bench).cost.calls == len(bench.calls) == 0
    else:
        with pytest.raises((EndpointError, ScoreRefusedError)):
            induced(name, bench=bench)


def test_inducer_and_instruction_name_the_same_method(name: str) -> None:
    inducer = INDUCERS[name](Bench())
    assert inducer.induce(SUPPORT).method == inducer.name == name.split(",")[0]


def test_the_rows_that_an_instruction_was_made_from_are_recorded(name: str) -> None:
    recorded = induced(name).provenance.support_rows
    rows = tuple(row_key(example.text) for example in SUPPORT.examples)
    if not method_of(name).reads_examples or name == "other-task":
        assert set(rows).isdisjoint(recorded)
    else:
        assert recorded == rows, "end with .fitted_on(support), with the support as it was given"


def test_an_instruction_survives_saving_and_loading(name: str, tmp_path: Path) -> None:
    instruction = induced(name, seed=3)
    assert Instruction.load(instruction.save(tmp_path / "instruction.json")) == instruction
