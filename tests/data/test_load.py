"""The law of reading files: whatever is in one, it becomes a table or one line that names it."""
# pyright: reportOptionalMemberAccess=false

import gzip
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from promptmii.data import load_task
from promptmii.data.load import SUFFIXES
from promptmii.errors import DataError

FRAME = pd.DataFrame({"text": [f"text, number {i}" for i in range(45)], "label": ["x", "y", "z"] * 15, "n": range(45)})


def whole() -> dict[str, bytes]:
    """A good file of each kind."""
    made = {
        "a.csv": FRAME.to_csv(index=False).encode(),
        "a.tsv": FRAME.to_csv(index=False, sep="\t").encode(),
        "a.json": FRAME.to_json(orient="records").encode(),
        "columns.json": FRAME.to_json().encode(),
        "a.jsonl": FRAME.to_json(orient="records", lines=True).encode(),
        "a.parquet": FRAME.to_parquet(),
        "a.txt": "\n".join(FRAME["text"]).encode(),
    }
    try:
        book = io.BytesIO()
        FRAME.to_excel(book, index=False)
        made["a.xlsx"] = book.getvalue()
    except ImportError:
        pass
    return made | {f"{name}.gz": gzip.compress(content) for name, content in made.items()}


def test_every_format_has_a_good_file_here() -> None:
    optional = {".ndjson", ".xlsx"}  # read as .jsonl; needs openpyxl
    assert set(SUFFIXES) - optional <= {Path(name).suffix for name in whole()}


def spoilt(content: bytes, draw: random.Random) -> bytes:
    """The content cut, turned over in places, filled up, or with another piece of itself in the middle."""
    changed = bytearray(content)
    match draw.randrange(6):
        case 0:
            return content[: draw.randrange(len(content))]
        case 1:
            for _ in range(draw.choice([1, 3, 50])):
                changed[draw.randrange(len(changed))] ^= draw.randrange(1, 256)
        case 2:
            start = draw.randrange(len(content))
            changed[start : start + draw.randrange(60)] = draw.randbytes(draw.randrange(60))
        case 3:
            start = draw.randrange(len(content))
            changed[start:start] = draw.choice(
                [b"\0" * 20, b'"', b"[" * 5000, b"{" * 5000, b"\xff\xfe", b"9" * 5000, b"\n\n"]
            )
        case 4:
            start, stop = sorted(draw.randrange(len(content)) for _ in range(2))
            changed = changed[start:stop] + changed[:start]
        case _:
            for start in range(draw.randrange(len(content)), len(content), 7):
                changed[start] = 0
    return bytes(changed)


def malformed() -> Iterator[tuple[str, bytes]]:
    """Three hundred files that are not as they should be, the same at every run."""
    draw = random.Random(18)
    kinds = whole()
    for number in range(300):
        name = list(kinds)[number % len(kinds)]
        yield name, spoilt(kinds[name], draw)
    readable = [suffix for suffix in SUFFIXES if f"a{suffix}" in kinds or suffix == ".ndjson"]
    for name in (f"a{suffix}" for suffix in readable):
        yield from (
            (name, content) for content in (b"", b"\0", b"\n", b"\xff\xfe", draw.randbytes(500), b"null", b"{}")
        )


def fault_of(path: Path) -> str:
    """Why the file is refused; empty where it is read."""
    try:
        load_task(path)
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_no_file_is_a_traceback(tmp_path: Path) -> None:
    refused = 0
    for name, content in malformed():
        path = tmp_path / name
        path.write_bytes(content)
        if fault := fault_of(path):
            refused += 1
            assert str(path) in fault
            assert "\n" not in fault
    assert refused > 200


HOSTILE = {
    "deep.json": b"[" * 100_000 + b"]" * 100_000,
    "deep.jsonl": b"[" * 100_000 + b"\n",
    "number.json": b'[{"text": "a", "label": ' + b"9" * 6000 + b"}]",
    "null.json": b'{"data": null}',
    "labels.json": json.dumps({"data": [{"text": "a", "label": "x"}], "labels": "xyz"}).encode(),
    "wide.csv": (",".join(f"c{i}" for i in range(5000)) + "\n" + ",".join("1" * 5000)).encode(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_too_deep_too_wide_or_too_large_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name])
    with pytest.raises(DataError) as caught:
        load_task(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 60_000


@pytest.mark.slow
def test_one_huge_cell_does_not_refuse_a_table(tmp_path: Path) -> None:
    rows = b"".join(b"text %d,%s\n" % (i, b"xy"[i % 2 : i % 2 + 1]) for i in range(10))
    (tmp_path / "a.csv").write_bytes(b"text,label\n" + b"a" * (17 << 20) + b",x\n" + rows)
    task = load_task(tmp_path / "a.csv").task
    assert len(task.train) + len(task.test) == 11


def test_dates_beyond_the_calendar_are_one_line(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {"text": ["a"] * 9, "when": pa.array([2**62] * 9, pa.timestamp("us")), "label": ["x", "y", "z"] * 3}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet is not a readable"):
        load_task(tmp_path / "a.parquet")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mem\.csv"):
        load_task("/proc/self/mem.csv")
    with pytest.raises(DataError, match="does not exist"):
        load_task(tmp_path / "a\0b.csv")
