"""The layout of the corpus that the paper's authors released (`milli19/promptmii-dataset`), read as tasks.

Their label lists were made of training and test rows alike and in no order. A row that is no classification task is
refused.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from promptmii.errors import DataError
from promptmii.task import Example, Task

RELEASED_COLUMNS = frozenset({"dataset_name", "config_name", "train_examples", "test_examples", "label_names"})


def released_task(row: Mapping[str, Any]) -> Task:
    """The task of one row. Raises `DataError` where it is none."""
    config = row["config_name"]
    name = row["dataset_name"] if config in (None, "", "default") else f"{row['dataset_name']}:{config}"
    train = tuple(_examples(row["train_examples"]))
    found = Counter(example.label for example in train)
    declared = [_line(label) for label in row["label_names"] or ()]
    # A list that holds every label of the training rows is the schema's; the order of any other is an accident.
    labels = declared if len(set(declared)) == len(declared) and set(declared) >= set(found) else sorted(found)
    known = {label for label in labels if label in found}
    test = tuple(example for example in _examples(row["test_examples"]) if example.label in known)
    if not train or not test:
        raise DataError(f"{name} has {len(train)} training and {len(test)} test rows; a task needs both.")
    columns = f"{row.get('input_column') or '?'} -> {row.get('label_column') or '?'}"
    source = {
        "repository": row["dataset_name"],
        "config": config or "default",
        "group": row["dataset_name"],
        "columns": columns,
    }
    return Task(name, tuple(label for label in labels if label in known), train, test, source=source)


def _examples(given: Any) -> Iterable[Example]:
    """A list of rows, or, as older versions of `datasets` wrote them, a row of lists."""
    if isinstance(given, Mapping):
        pairs = zip(given["text"], given["label"], strict=True)
    else:
        pairs = ((row["text"], row["label"]) for row in given or ())
    for text, label in pairs:
        if text and text.strip() and label and label.strip():
            yield Example(text, _line(label))


def _line(label: str) -> str:
    return " ".join(str(label).split())
