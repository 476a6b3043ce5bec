"""Whatever a file contains, it becomes a table or a one-line error that names it."""
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
from promptmii.data.readers import SUFFIXES
from promptmii.errors import DataError
from promptmii.table_formats import TABLES

FRAME = pd.DataFrame({"text": [f"text, number {i}" for i in range(45)], "label": ["x", "y", "z"] * 15, "n": range(45)})


def valid_files() -> dict[str, bytes]:
    """A valid file of each format."""
    files = {
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
        files["a.xlsx"] = book.getvalue()
    except ImportError:
        pass
    return files | {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def test_every_format_has_a_valid_file_here() -> None:
    optional = {".ndjson", ".xlsx"}  # read as .jsonl; needs openpyxl
    missing = set(SUFFIXES) - optional - {Path(name).suffix for name in valid_files()}
    assert [*missing] == [], "add a file with this ending to valid_files()"


def test_the_formats_in_the_help_are_those_with_a_reader() -> None:
    assert [*set(SUFFIXES) ^ {*TABLES, ".txt"}] == [], "make table_formats.py agree with readers.py"


def test_every_format_is_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "label.md").read_text(encoding="utf-8")
    inputs = page[page.index("Memory does not grow") : page.index("## Stop and continue")]
    assert [ending for ending in SUFFIXES if f"`{ending}`" not in inputs] == [], "add it to docs/label.md"


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Damage the content: truncate, flip, replace, insert or rotate bytes, or set every seventh to zero."""
    changed = bytearray(content)
    match rng.randrange(6):
        case 0:
            return content[: rng.randrange(len(content))]
        case 1:
            for _ in range(rng.choice([1, 3, 50])):
                changed[rng.randrange(len(changed))] ^= rng.randrange(1, 256)
        case 2:
            start = rng.randrange(len(content))
            changed[start : start + rng.randrange(60)] = rng.randbytes(rng.randrange(60))
        case 3:
            start = rng.randrange(len(content))
            changed[start:start] = rng.choice(
                [b"\0" * 20, b'"', b"[" * 5000, b"{" * 5000, b"\xff\xfe", b"9" * 5000, b"\n\n"]
            )
        case 4:
            start, stop = sorted(rng.randrange(len(content)) for _ in range(2))
            changed = changed[start:stop] + changed[:start]
        case _:
            for start in range(rng.randrange(len(content)), len(content), 7):
                changed[start] = 0
    return bytes(changed)


def broken_files() -> Iterator[tuple[str, bytes]]:
    """Three hundred damaged files, and some degenerate ones, the same in every run."""
    rng = random.Random(18)
    valid = valid_files()
    for number in range(300):
        name = list(valid)[number % len(valid)]
        yield name, damaged(valid[name], rng)
    readable = [suffix for suffix in SUFFIXES if f"a{suffix}" in valid or suffix == ".ndjson"]
    for name in (f"a{suffix}" for suffix in readable):
        yield from ((name, content) for content in (b"", b"\0", b"\n", b"\xff\xfe", rng.randbytes(500), b"null", b"{}"))


def error_message(path: Path) -> str:
    """The error message for the file, or an empty string if it can be read."""
    try:
        load_task(path)
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_no_broken_file_causes_a_traceback(tmp_path: Path) -> None:
    rejected = 0
    for name, content in broken_files():
        path = tmp_path / name
        path.write_bytes(content)
        if message := error_message(path):
            rejected += 1
            assert str(path) in message
            assert "\n" not in message
    assert rejected > 200


HOSTILE = {
    "deep.json": b"[" * 100_000 + b"]" * 100_000,
    "deep.jsonl": b"[" * 100_000 + b"\n",
    "number.json": b'[{"text": "a", "label": ' + b"9" * 6000 + b"}]",
    "null.json": b'{"data": null}',
    "labels.json": json.dumps({"data": [{"text": "a", "label": "x"}], "labels": "xyz"}).encode(),
    "wide.csv": (",".join(f"c{i}" for i in range(5000)) + "\n" + ",".join("1" * 5000)).encode(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_extreme_content_gives_a_one_line_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name])
    with pytest.raises(DataError) as caught:
        load_task(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 60_000


@pytest.mark.slow
def test_a_huge_cell_is_accepted(tmp_path: Path) -> None:
    rows = b"".join(b"text %d,%s\n" % (i, b"xy"[i % 2 : i % 2 + 1]) for i in range(10))
    (tmp_path / "a.csv").write_bytes(b"text,label\n" + b"a" * (17 << 20) + b",x\n" + rows)
    task = load_task(tmp_path / "a.csv").task
    assert len(task.train) + len(task.test) == 11


def test_impossible_dates_give_a_one_line_error(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {"text": ["a"] * 9, "when": pa.array([2**62] * 9, pa.timestamp("us")), "label": ["x", "y", "z"] * 3}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet is not a readable"):
        load_task(tmp_path / "a.parquet")


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mem\.csv"):
        load_task("/proc/self/mem.csv")
    with pytest.raises(DataError, match="does not exist"):
        load_task(tmp_path / "a\0b.csv")
