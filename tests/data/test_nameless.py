"""Hidden label names are unique and deterministic, and change nothing else about a task."""

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from promptmii import Example, Task
from promptmii.data.nameless import hide_names, nameless, rename_labels

TASK = Task(
    "animals",
    ("bird", "fish", "none"),
    tuple(Example(f"{label} {i}", label) for i in range(4) for label in ("bird", "fish", "none")),
    (Example("swims", "fish"), Example("flies", "bird")),
    instruction="Say whether it is a bird or a fish.",
)


@given(st.lists(st.text("abcdef", min_size=1, max_size=8), min_size=2, max_size=90, unique=True), st.integers())
def test_every_label_gets_a_unique_name(labels: list[str], seed: int) -> None:
    shown = hide_names(labels, random.Random(seed))
    assert list(shown) == labels
    assert len(set(shown.values())) == len(labels)
    assert hide_names(labels, random.Random(seed)) == shown


def test_a_renamed_task_keeps_only_the_rows_of_its_labels() -> None:
    fewer = rename_labels(TASK, {"fish": "B", "bird": "A"})
    assert fewer.labels == ("B", "A")
    assert [e.text for e in fewer.train] == [e.text for e in TASK.train if e.label != "none"]
    assert [e.label for e in fewer.test] == ["B", "A"]
    assert fewer.instruction is None


def test_nameless_is_deterministic_and_changes_only_labels() -> None:
    first, second = nameless(TASK), nameless(TASK)
    assert first == second
    assert first.key != TASK.key
    assert first.name == "animals:nameless"
    assert [e.text for e in first.train] == [e.text for e in TASK.train]
    assert not set(first.labels) & set(TASK.labels)
    groups = {old.label: new.label for old, new in zip(TASK.train, first.train, strict=True)}
    assert sorted(groups.values()) == sorted(first.labels)


@given(count=st.integers(2, 40), name=st.text(min_size=1, max_size=5))
def test_numbered_names_are_in_ascending_order(count: int, name: str) -> None:
    labels = tuple(f"topic {chr(0x4E00 + i)}" for i in range(count))
    rows = tuple(Example(f"text {i} of {part}", label) for i, label in enumerate(labels) for part in ("one", "two"))
    numbers = [re.search(r"\d+$", label) for label in nameless(Task(name, labels, rows[::2], rows[1::2])).labels]
    values = [int(number[0]) for number in numbers if number]
    assert values == sorted(values)
