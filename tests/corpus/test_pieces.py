"""The parts of a build in isolation: sampling, reading in parts, near-duplicates, columns, cleaning."""

import gzip
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from decimal import Decimal
from email.utils import formatdate
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.corpus.repositories import as_csv, as_lines, as_parquet, rows, texts

from promptmii import Example, ScriptedModel, Task
from promptmii.corpus.card import write_card
from promptmii.corpus.clean import clean_task, find_columns, may_be_in
from promptmii.corpus.fetch import Sample, UnreadableError, fetch, read_sample
from promptmii.corpus.hub import with_patience
from promptmii.corpus.journal import Entry, Journal
from promptmii.corpus.listing import Candidate, distinct, licence_and_languages, list_local, rejection
from promptmii.corpus.overlap import check_corpus
from promptmii.corpus.rows import MIB, Reading, read_rows
from promptmii.corpus.settings import CleanSettings, FetchSettings, ListSettings, SplitSettings
from promptmii.corpus.split import TaskName, assign
from promptmii.data import read_table
from promptmii.data.clean import clean
from promptmii.data.columns import ChosenColumns, choose_columns
from promptmii.data.corpus_files import write_split
from promptmii.data.readers import Table
from promptmii.errors import ConfigError, DataError, EndpointError, OutputError
from promptmii.models.base import Failure, FailureKind

duplicates = pytest.importorskip("promptmii.corpus.overlap")


def test_missing_packages_are_named() -> None:
    code = (
        "import sys; sys.modules['fsspec'] = None\n"
        "from promptmii.corpus.rows import Reading, read_rows\n"
        "from promptmii.errors import MissingDependencyError\n"
        "try: next(read_rows(['a.jsonl'], Reading(1, 1)))\n"
        "except MissingDependencyError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "promptmii[corpus]" in done.stdout, done.stderr


class TestSampling:
    def test_order_and_column_names_change_nothing(self) -> None:
        all_rows = [{"text": text, "label": i % 2} for i, text in enumerate(texts("sample", 500))]
        sample, shuffled_sample = Sample(50), Sample(50)
        for row in all_rows:
            sample.add(row)
        for row in random.Random(0).sample(all_rows, len(all_rows)):
            shuffled_sample.add({"id": row["label"], "content": row["text"].upper()})
        assert [row["text"].upper() for row in sample] == [row["content"] for row in shuffled_sample]
        assert sample.seen == 500

    def test_repeated_texts_leave_room_for_others(self) -> None:
        sample = Sample(10)
        for i in range(1000):
            sample.add({"text": f"text {i % 10}", "label": i % 2})
        assert Counter(row["text"] for row in sample) == {f"text {i}": 3 for i in range(10)}
        assert sample.repeated == 970


class TestReadingInParts:
    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
    def test_a_large_sorted_file_is_read_in_spread_parts(self, tmp_path: Path, kind: str) -> None:
        content = [{"text": f"a text, number {i} " + "x" * 90, "label": f"label {i // 10_000}"} for i in range(50_000)]
        write = {"csv": as_csv, "jsonl": as_lines, "parquet": lambda file_rows: as_parquet(file_rows, group=50_000)}[
            kind
        ]
        path = tmp_path / f"big.{kind}"
        path.write_bytes(write(content))
        reading = Reading(rows=5000, size=MIB // 2)
        counts = Counter(row["label"] for row in read_rows([str(path)], reading))
        assert len(counts) == 5
        assert sum(counts.values()) < 6000
        assert max(counts.values()) < 1.5 * min(counts.values())
        assert reading.notes

    @pytest.mark.parametrize("level", [1, 0])
    def test_decompression_is_bounded(self, tmp_path: Path, level: int) -> None:
        path = tmp_path / "bomb.csv.gz"
        path.write_bytes(gzip.compress(b"text,label\n" + b"word,a\n" * 2_000_000, level))
        reading = Reading(rows=100, size=MIB)
        assert sum(1 for _ in read_rows([str(path)], reading)) < 160_000
        assert reading.notes == ["only the first 1 MiB were read: the file is packed"]

    def test_unreadable_rows_are_counted_with_their_position(self, tmp_path: Path) -> None:
        path = tmp_path / "ragged.csv"
        path.write_text("text,label\nfine,a\ntoo,many,fields\nfine again,b\n")
        reading = Reading(rows=100, size=MIB)
        assert [row["label"] for row in read_rows([str(path)], reading)] == ["a", "b"]
        assert reading.skipped == {"not readable": 1}
        assert "line 3" in reading.faults[0]

    def test_parts_within_a_long_line_are_skipped(self, tmp_path: Path) -> None:
        path = tmp_path / "long.jsonl"
        path.write_bytes(as_lines([{"text": "語" * 600}]).replace(b"\\u8a9e", "語".encode()) * 200)
        read = list(read_rows([str(path)], Reading(rows=100, size=40_000)))
        assert read == [{"text": "語" * 600}] * len(read)
        assert len(read) > 50

    def test_small_files_are_read_whole_whatever_their_sizes_and_endings(self, tmp_path: Path) -> None:
        for name, count in {"a.jsonl": 15_000, "b.jsonl": 1}.items():
            (tmp_path / name).write_bytes(as_lines([{"text": "a" * 120}]) * count)
        urls = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
        reading = Reading(rows=100, size=MIB * 2)
        assert sum(1 for _ in read_rows(urls, reading)) == 15_001
        assert not reading.notes
        (tmp_path / "C.PARQUET").write_bytes(as_parquet([{"text": "a"}]))
        assert list(read_rows([str(tmp_path / "C.PARQUET")], reading)) == [{"text": "a"}]

    def test_other_encodings_are_read_and_what_is_no_data_is_refused(self, tmp_path: Path) -> None:
        path, reading = tmp_path / "a.csv", Reading(rows=100, size=MIB)
        path.write_text("text,label\nschön,a\n", "utf-16")
        assert list(read_rows([str(path)], reading)) == [{"text": "schön", "label": "a"}]
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        with pytest.raises(DataError, match="git lfs pull"):
            list(read_rows([str(path)], reading))

    def test_files_that_are_left_out_are_noted(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_bytes(b'{"text":"a"}\n')
        reading = Reading(rows=100, size=MIB)
        assert sum(1 for _ in read_rows([str(tmp_path / "a.jsonl")] * 5, reading)) == 1
        assert reading.notes == ["only 1 of 5 files were read"]


def test_only_rows_with_a_value_are_fetched_and_some_may_lack_the_column(tmp_path: Path) -> None:
    all_rows = [
        row | ({"lang": "de" if i % 3 else "en"} if i else {}) for i, row in enumerate(rows("where", ["a"], 31))
    ]
    (tmp_path / "t.jsonl").write_bytes(as_lines(all_rows))
    candidate = Candidate(name="t", repository="t", revision="r", path=str(tmp_path / "t.jsonl"))
    assert fetch(candidate, FetchSettings(where={"lang": "en"}), tmp_path / "sample")["rows"] == 10
    with pytest.raises(DataError, match=r"no column 'kind' \(fetch\.where\)"):
        fetch(candidate, FetchSettings(where={"kind": "x"}), tmp_path / "sample")


@pytest.mark.slow  # imports datasets
def test_an_archive_that_is_cut_short_is_unreadable_and_no_bug(tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    (folder / "train.csv.zip").write_bytes(b"PK\x03\x04 cut")
    candidate = Candidate(name="cut", repository="cut", revision="r", path=str(folder))
    with pytest.raises(UnreadableError, match="not a zip file"):
        fetch(candidate, FetchSettings(), tmp_path / "sample")


def test_rows_that_an_annotator_rejected_are_not_fetched(tmp_path: Path) -> None:
    answers = ["accept", "reject", "ignore", "accept"]
    raw_rows = [{"text": f"text {i}", "_task_hash": i, "answer": answer} for i, answer in enumerate(answers)]
    (tmp_path / "t.jsonl").write_bytes(as_lines(raw_rows))
    candidate = Candidate(name="t", repository="t", revision="r", path=str(tmp_path / "t.jsonl"))
    detail = fetch(candidate, FetchSettings(), tmp_path / "sample")
    assert (detail["rows"], detail["notes"]) == (2, ["2 rows whose answer is not 'accept'"])


def fetched(tmp_path: Path, columns: dict[str, Any], name: str = "t.parquet") -> Table:
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        path.write_bytes(
            as_lines([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
        )
    fetch(Candidate(name="t", repository="t", revision="r", path=str(path)), FetchSettings(), tmp_path / "sample")
    return read_sample(tmp_path / "sample", "t")


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl"])
def test_tokenised_texts_are_sampled_by_their_words(tmp_path: Path, name: str) -> None:
    words = [text.split() for text in texts("words", 40)]
    table = fetched(tmp_path, {"tokens": words, "label": ["a", "b"] * 20}, name)
    assert sorted(row["tokens"] for row in table.rows) == sorted(words)


def test_decimals_and_string_views_of_parquet_files_are_fetched(tmp_path: Path) -> None:
    labels = [Decimal("1.00"), Decimal("2.00")] * 20
    table = fetched(tmp_path, {"text": pa.array(texts("view", 40), pa.string_view()), "label": labels})
    examples = clean(table, choose_columns(table, None, None)).examples
    assert Counter(example.label for example in examples) == {"1": 20, "2": 20}


def test_two_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a", "b"])] * 2, names=["label", "label"]), path)
    with pytest.raises(DataError, match="two columns 'label'"):
        fetch(Candidate(name="t", repository="t", revision="r", path=str(path)), FetchSettings(), tmp_path / "sample")


def test_a_column_name_that_is_no_unicode_does_not_end_the_build(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "a text", "label \ud83d": 1}))
    candidate = Candidate(name="t", repository="t", revision="r", path=str(tmp_path / "t.jsonl"))
    detail = fetch(candidate, FetchSettings(), tmp_path / "sample")
    Journal(tmp_path, "fetch").add(Entry(key="k", name="t", kept=True, detail=detail))
    entry = Journal(tmp_path, "fetch").get("k")
    assert entry is not None
    assert entry.detail["columns"] == ["label \ufffd", "text"]


class TestListing:
    def test_names_are_distinct_and_repeats_are_left_out(self) -> None:
        first = Candidate(name="a", repository="a", revision="1").entry(None)
        second = Candidate(name="a", repository="a", revision="2").entry("too large")
        listed = list(distinct([first, second, first]))
        assert [entry.name for entry in listed] == ["a", "a#2"]
        assert listed[0] == first
        assert listed[1].detail["name"] == "a#2"
        assert (listed[1].kept, listed[1].reason) == (False, "too large")

    def test_norwegian_is_a_language(self) -> None:
        assert licence_and_languages({"language": [False, "sv"]})["languages"] == ("no", "sv")

    def test_languages_may_be_in_capitals_and_have_commas(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(as_csv(rows("a", ["x", "y"], 4)))
        (tmp_path / "index.csv").write_text('task_id,source_repo,licence,language\na,b,mit,"DE, fr"\n')
        (entry,) = list_local(ListSettings(local=(str(tmp_path),), languages=("de",)))
        assert (entry.kept, entry.detail["languages"]) == (True, ["DE", "fr"])

    @pytest.mark.parametrize(("allowed", "fits"), [(("MIT",), False), (("MIT", "apache-2.0"), True)])
    def test_all_licences_must_be_allowed(self, allowed: tuple[str, ...], fits: bool) -> None:
        candidate = Candidate(name="a", repository="a", revision="1", licence="mit, apache-2.0")
        assert (rejection(candidate, (), ListSettings(licences=allowed)) is None) is fits

    @pytest.mark.skipif(sys.platform != "linux", reason="names may be any bytes")
    def test_a_file_name_that_is_not_unicode_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / os.fsdecode(b"\xff.csv")).write_bytes(as_csv(rows("bytes", ["a", "b"])))
        with pytest.raises(DataError, match="not valid Unicode"):
            list(list_local(ListSettings(local=(str(tmp_path),))))


class TestNearDuplicates:
    def test_small_changes_keep_texts_together_and_others_apart(self) -> None:
        originals = texts("near", 200)
        changed = [text.upper().replace("ARRIVED", "ARRIVES") + "!" for text in originals]
        numbers = duplicates.clusters(duplicates.sign([*originals, *changed]), 0.7).tolist()
        together = sum(numbers[i] == numbers[200 + i] for i in range(200))
        assert together > 190
        assert len(set(numbers[:200])) == 200

    def test_equal_texts_are_together_among_many_similar_ones(self) -> None:
        cities = [
            "Berlin",
            "Paris",
            "London",
            "Madrid",
            "Rome",
            "Vienna",
            "Oslo",
            "Dublin",
            "Lisbon",
            "Athens",
            "Warsaw",
        ]
        originals = [
            f"I would like to book a cheap flight from {a} to {b} next week" for a, b in permutations(cities, 2)
        ]
        numbers = duplicates.clusters(duplicates.sign(originals * 2), 0.95).tolist()
        assert numbers[: len(originals)] == numbers[len(originals) :]

    def test_no_texts_and_empty_texts(self) -> None:
        assert duplicates.clusters(duplicates.sign([]), 0.7).tolist() == []
        assert len(set(duplicates.clusters(duplicates.sign(["", "a", "something else"]), 0.7).tolist())) == 3


def table(raw_rows: list[dict]) -> Table:
    return read_table(raw_rows)


AMBIGUOUS = [
    {"left": a, "right": b, "kind": i % 3, "group": i % 2}
    for i, (a, b) in enumerate(zip(texts("l", 40), texts("r", 40), strict=True))
]


class TestColumns:
    def test_a_pair_becomes_a_template(self) -> None:
        chosen = find_columns(table([{"Question1": "a b", "question2": "c d", "label": str(i % 2)} for i in range(10)]))
        assert chosen.text == ("Question1", "question2")
        row = {"Question1": "a b", "question2": "c d", "label": "0"}
        assert chosen.render(row) == "Question1: a b\nquestion2: c d"

    def test_a_given_column_is_used_and_the_other_is_detected(self) -> None:
        raw_rows = [row | {"stars": i % 5, "label": i % 2} for i, row in enumerate(AMBIGUOUS)]
        assert find_columns(table(raw_rows), text="right").label == "label"
        assert find_columns(table(raw_rows), text="right", label="stars").label == "stars"
        chosen = find_columns(
            table(AMBIGUOUS), ScriptedModel(reply=['{"text": "left", "label": "group"}']), label="kind"
        )
        assert (chosen.text, chosen.label) == (("left",), "kind")

    def test_without_a_model_ambiguous_columns_are_refused(self) -> None:
        with pytest.raises(DataError, match="; a model could decide"):
            find_columns(table(AMBIGUOUS))

    def test_a_model_decides_ambiguous_columns(self) -> None:
        model = ScriptedModel(reply=['Sure: {"text": ["left", "right"], "label": "group"}'])
        chosen = find_columns(table(AMBIGUOUS), model)
        assert (chosen.text, chosen.label) == (("left", "right"), "group")
        assert "left" in model.calls[0][0]["content"]

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            ('{"text": "premise", "label": "kind"}', "has no column 'premise'"),
            ('{"text": "left", "label": "left"}', "is both text and label"),
            ('{"text": "left", "label": "right"}', "'right' has 40 different values"),
            ('{"text": [], "label": null}', "no text and label columns"),
            ("I think left.", "no text and label columns"),
        ],
    )
    def test_columns_that_a_model_invents_are_refused(self, answer: str, words: str) -> None:
        with pytest.raises(DataError, match=words):
            find_columns(table(AMBIGUOUS), ScriptedModel(reply=[answer]))

    def test_a_failing_model_stops_the_run_instead_of_dropping_the_dataset(self) -> None:
        with pytest.raises(EndpointError, match="down"):
            find_columns(table(AMBIGUOUS), ScriptedModel(reply=[Failure(FailureKind.SERVER, "down")]))


class TestCleaning:
    candidate = Candidate(name="t", repository="t", revision="r")

    def cleaned(self, raw_rows: list[dict], **settings):
        read = table(raw_rows)
        return clean_task(
            read, find_columns(read), self.candidate, CleanSettings(least_train=5, least_test=2, **settings)
        )

    def test_every_dropped_row_is_counted(self) -> None:
        good = rows("clean", ["a", "b"], 40)
        bad = ["", "<br/><p> http://x.org/y </p>", "z" * 9000, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", good[0]["text"].upper()]
        task, dropped = self.cleaned(
            good + [{"text": text, "label": "a"} for text in bad] + [{"text": "the only one of its kind", "label": "c"}]
        )
        assert dropped == {
            "no text": 1,
            "only markup, links or punctuation": 1,
            "longer than 8000 characters": 1,
            "broken encoding, or nearly all one character": 1,
            "the same text as an earlier row": 1,
            "labels with fewer than 2 rows": 1,
        }
        assert len(task.train) + len(task.test) == 40
        assert task.labels == ("a", "b")

    def test_personal_data(self) -> None:
        raw_rows = [
            row | {"text": f"{row['text']} call +49 170 1234567 or a.b@example.org"}
            for row in rows("person", ["a", "b"], 40)
        ]
        masked, _ = self.cleaned(raw_rows, personal="mask")
        assert all(example.text.endswith("call [personal] or [personal]") for example in masked.train)
        with pytest.raises(DataError, match="40 rows: personal data"):
            self.cleaned(raw_rows, personal="drop")
        tokenised = [row | {"text": row["text"].split()} for row in raw_rows]
        columns = ChosenColumns(("text",), None, "label")
        settings = CleanSettings(least_train=5, least_test=2, personal="mask")
        masked, _ = clean_task(table(tokenised), columns, self.candidate, settings)
        assert all(example.text.endswith("call [personal] or [personal]") for example in masked.train)

    @pytest.mark.parametrize("date", ["2024-05-06 12:30", "06.05.2024", "5/6/2024", "1999-12-31T23:59"])
    def test_dates_are_not_personal(self, date: str) -> None:
        raw_rows = [row | {"text": f"{row['text']} on {date}"} for row in rows("dated", ["a", "b"], 40)]
        masked, dropped = self.cleaned(raw_rows, personal="mask")
        assert all(example.text.endswith(f" on {date}") for example in masked.train)
        assert self.cleaned(raw_rows, personal="drop")[1] == dropped

    @pytest.mark.parametrize(
        "number", ["010-1234-5678", "6222 0212 3456 7890", "192.168.1.20", "DE12 5001 0517 0648 4898"]
    )
    @pytest.mark.parametrize(("before", "after"), [("", "입니다"), ("号码", "谢谢"), ("is ", " today")])
    def test_personal_numbers_in_any_script(self, number: str, before: str, after: str) -> None:
        raw_rows = [row | {"text": f"{row['text']} {before}{number}{after}"} for row in rows("id", ["a", "b"], 40)]
        masked, _ = self.cleaned(raw_rows, personal="mask")
        assert all(example.text.endswith(f" {before}[personal]{after}") for example in masked.train)

    def test_label_sets_of_the_wrong_size(self) -> None:
        with pytest.raises(DataError, match="4 labels are left; expected 2 to 3"):
            self.cleaned(rows("many", ["a", "b", "c", "d"], 60), most_labels=3)
        parts = {"train": rows("few", ["a", "b"], 60), "test": rows("all", ["a", "b", "c"], 30)}
        read = read_table(parts)
        with pytest.raises(DataError, match="2 labels are left in the training rows; least_labels is 3"):
            clean_task(read, find_columns(read), self.candidate, CleanSettings(least_labels=3))

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("text", "language", "fits"),
        [
            ("the parcel that you sent is not here", "en", True),
            ("das Paket ist nicht da und ich warte", "en", False),
            ("das Paket ist nicht da und ich warte", "EN", False),
            ("посылка ещё не пришла", "en", False),
            ("посылка ещё не пришла", "ru", True),
            ("ok", "en", True),
        ],
    )
    def test_languages(self, text: str, language: str, fits: bool) -> None:
        assert may_be_in(text, [language]) is fits


def test_check_finds_planted_leaks(tmp_path: Path) -> None:
    def task(name: str, topic: str) -> Task:
        examples = tuple(Example(row["text"], row["label"]) for row in rows(topic, ["a", "b"], 30))
        return Task(name, ("a", "b"), examples[:20], examples[20:], source={"repository": name, "group": name})

    write_split(tmp_path, "train", [task("one", "alpha"), task("two", "beta")])
    write_split(tmp_path, "validation", [task("three", "gamma")])
    write_split(tmp_path, "heldout", [task("four", "beta")])
    report = check_corpus(tmp_path)
    assert not report.clean
    assert report.exact["train / heldout"] == 30
    assert (report.leaks[0].first, report.leaks[0].second, report.leaks[0].texts) == ("two", "four", 30)
    write_split(tmp_path, "heldout", [task("four", "delta")])
    assert check_corpus(tmp_path).clean


def test_a_card_needs_a_folder_for_its_figures(tmp_path: Path) -> None:
    examples = tuple(Example(row["text"], row["label"]) for row in rows("card", ["a", "b"], 30))
    write_split(tmp_path, "train", [Task("t", ("a", "b"), examples[:20], examples[20:])])
    (tmp_path / "figures").touch()
    with pytest.raises(OutputError, match="figures cannot be created"):
        write_card(tmp_path)


def small_tasks(*topics: str) -> list[Task]:
    return [
        Task(
            f"r:{topic}",
            ("a", "b"),
            tuple(Example(row["text"], row["label"]) for row in rows(topic, ["a", "b"], 9)),
            (),
        )
        for topic in topics
    ]


@pytest.mark.parametrize(
    ("topics", "heldout", "expected"),
    [
        (("one", "two", "three", "four"), (), {"train": 3, "validation": 1}),
        (("one", "two"), ("r:one",), {"train": 1, "heldout": 1}),
        (("one",), (), {"train": 1}),
    ],
)
def test_a_small_corpus_has_a_task_for_validation_if_one_is_left_to_train_on(
    topics: tuple[str, ...], heldout: tuple[str, ...], expected: dict[str, int]
) -> None:
    tasks = small_tasks(*topics)
    names = [TaskName(task.name, task.name) for task in tasks]
    assigned = assign(names, [], duplicates.sign_texts(tasks, 0.7), SplitSettings(heldout_tasks=heldout))
    assert Counter(assigned.split.values()) == expected


def test_a_dropped_task_cannot_be_held_out() -> None:
    tasks = small_tasks("one", "two")
    names = [TaskName(task.name, "r") for task in tasks]
    settings = SplitSettings(per_repository=1, heldout_tasks=("r:one", "r:two"))
    with pytest.raises(ConfigError, match=r"'r:\w+', which was dropped: r has 2 configurations"):
        assign(names, [], duplicates.sign_texts(tasks, 0.7), settings)


def test_a_null_in_a_corpus_is_one_error(tmp_path: Path) -> None:
    task = {"name": "a", "labels": ["x", "y"], "train": [{"text": None, "label": "x"}], "test": []}
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist([task]), tmp_path / "data" / "heldout-00000-of-00001.parquet")
    for act in (check_corpus, write_card):
        with pytest.raises(DataError, match="'a' is not a task"):
            act(tmp_path)


def test_hidden_files_inside_the_folder_are_ignored_wherever_the_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = tmp_path / ".cache" / "parent" / "shop"
    shop.mkdir(parents=True)
    (shop / "train.csv").write_bytes(as_csv(rows("shop", ["a", "b"])))
    for name in ("shop/._train.csv", "._shop", "._other.csv"):
        (shop.parent / name).write_bytes(b"\x00\x05\x16\x07")
    (entry,) = list_local(ListSettings(local=(str(shop.parent),)))
    monkeypatch.chdir(shop)
    (same,) = list_local(ListSettings(local=("..",)))
    assert (same.name, same.key) == (entry.name, entry.key) == ("shop", entry.key)


class BusyError(Exception):
    """The hub asks to come back at a time."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__("busy")
        self.response = SimpleNamespace(status_code=429, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": formatdate(time.time() + 3600, usegmt=True)},
        {"ratelimit": '"api";r=0;t=3600', "ratelimit-policy": '"fixed window";"api";q=500;w=3600'},
    ],
)
def test_the_hub_may_name_the_end_of_a_wait(headers: dict[str, str]) -> None:
    answers = iter([BusyError(headers), None])

    def ask() -> None:
        if error := next(answers):
            raise error

    with pytest.raises(EndpointError, match="Run the same command again later"):
        with_patience(ask, patience=10)
