"""The parts of a build in isolation: sampling, reading in parts, near-duplicates, columns, cleaning."""

import gzip
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.corpus.repositories import as_csv, as_lines, as_parquet, rows, texts

from promptmii import Example, ScriptedModel, Task
from promptmii.corpus.card import write_card
from promptmii.corpus.clean import clean_task, find_columns, may_be_in
from promptmii.corpus.fetch import Sample, fetch
from promptmii.corpus.listing import Candidate, list_local
from promptmii.corpus.overlap import check_corpus
from promptmii.corpus.rows import MIB, Reading, read_rows
from promptmii.corpus.settings import CleanSettings, FetchSettings, ListSettings
from promptmii.data import read_table
from promptmii.data.load import Table
from promptmii.errors import DataError, EndpointError
from promptmii.models.base import Failure, FailureKind

duplicates = pytest.importorskip("promptmii.corpus.overlap")


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

    def test_decompression_is_bounded(self, tmp_path: Path) -> None:
        path = tmp_path / "bomb.csv.gz"
        path.write_bytes(gzip.compress(b"text,label\n" + b"word,a\n" * 2_000_000, 1))
        reading = Reading(rows=100, size=MIB)
        assert sum(1 for _ in read_rows([str(path)], reading)) < 160_000
        assert "packed" in reading.notes[0]

    def test_unreadable_rows_are_counted_with_their_position(self, tmp_path: Path) -> None:
        path = tmp_path / "ragged.csv"
        path.write_text("text,label\nfine,a\ntoo,many,fields\nfine again,b\n")
        reading = Reading(rows=100, size=MIB)
        assert [row["label"] for row in read_rows([str(path)], reading)] == ["a", "b"]
        assert reading.skipped == {"not readable": 1}
        assert "line 3" in reading.faults[0]


def test_only_rows_with_a_value_are_fetched_and_some_may_lack_the_column(tmp_path: Path) -> None:
    all_rows = [
        row | ({"lang": "de" if i % 3 else "en"} if i else {}) for i, row in enumerate(rows("where", ["a"], 31))
    ]
    (tmp_path / "t.jsonl").write_bytes(as_lines(all_rows))
    candidate = Candidate(name="t", repository="t", revision="r", path=str(tmp_path / "t.jsonl"))
    assert fetch(candidate, FetchSettings(where={"lang": "en"}), tmp_path / "sample")["rows"] == 10
    with pytest.raises(DataError, match=r"no column 'kind' \(fetch\.where\)"):
        fetch(candidate, FetchSettings(where={"kind": "x"}), tmp_path / "sample")


class TestNearDuplicates:
    def test_small_changes_keep_texts_together_and_others_apart(self) -> None:
        originals = texts("near", 200)
        changed = [text.upper().replace("ARRIVED", "ARRIVES") + "!" for text in originals]
        numbers = duplicates.clusters(duplicates.sign([*originals, *changed]), 0.7).tolist()
        together = sum(numbers[i] == numbers[200 + i] for i in range(200))
        assert together > 190
        assert len(set(numbers[:200])) == 200

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

    def test_label_sets_of_the_wrong_size(self) -> None:
        with pytest.raises(DataError, match="4 labels are left; expected 2 to 3"):
            self.cleaned(rows("many", ["a", "b", "c", "d"], 60), most_labels=3)

    @pytest.mark.parametrize(
        ("text", "language", "fits"),
        [
            ("the parcel that you sent is not here", "en", True),
            ("das Paket ist nicht da und ich warte", "en", False),
            ("посылка ещё не пришла", "en", False),
            ("посылка ещё не пришла", "ru", True),
            ("ok", "en", True),
        ],
    )
    def test_languages(self, text: str, language: str, fits: bool) -> None:
        assert may_be_in(text, [language]) is fits


def test_check_finds_planted_leaks(tmp_path: Path) -> None:
    from promptmii.data.corpus_files import write_split

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
