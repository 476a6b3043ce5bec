"""Good and bad repositories, as people publish them."""

import csv
import io
import json
import random
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

NOUNS = (
    "parcel",
    "invoice",
    "battery",
    "garden",
    "violin",
    "harbour",
    "pepper",
    "window",
    "engine",
    "letter",
    "museum",
    "pillow",
)
VERBS = (
    "arrived",
    "vanished",
    "broke",
    "shines",
    "waits",
    "returned",
    "sings",
    "froze",
    "opened",
    "moved",
    "burned",
    "slept",
)


def texts(topic: str, count: int, seed: int = 0) -> list[str]:
    """Different sentences without near-duplicates."""
    stream = random.Random(f"{topic}{seed}")
    words = [f"{stream.choice(NOUNS)}{stream.randrange(100)}" for _ in range(60)]
    return [
        f"{topic} {i}: " + " ".join(f"{stream.choice(words)} {stream.choice(VERBS)}" for _ in range(6))
        for i in range(count)
    ]


def card(**values: Any) -> bytes:
    """A README with metadata."""
    return f"---\n{json.dumps({'task_categories': ['text-classification']} | values)}\n---\n# Card\n".encode()


def as_csv(rows: Sequence[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_parquet(
    rows: Sequence[dict[str, Any]], classes: dict[str, list[str]] | None = None, group: int | None = None
) -> bytes:
    """A Parquet file, with the features that `datasets` writes if there are classes."""
    table = pa.Table.from_pylist(list(rows))
    if classes:
        kinds = {"string": {"dtype": "string", "_type": "Value"}, "int64": {"dtype": "int64", "_type": "Value"}}
        features: dict[str, Any] = {field.name: kinds[str(field.type)] for field in table.schema}
        features |= {name: {"names": names, "_type": "ClassLabel"} for name, names in classes.items()}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=group)
    return out.getvalue()


def rows(
    topic: str, labels: Sequence[Any], count: int = 60, text: str = "text", label: str = "label"
) -> list[dict[str, Any]]:
    return [{text: sentence, label: labels[i % len(labels)]} for i, sentence in enumerate(texts(topic, count))]
