"""Spellings that look the same become one label, and notes report every decision."""

import unicodedata
from enum import Enum, IntEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii import Support
from promptmii.data import load_task
from promptmii.data.labels import INVISIBLE, label_key, label_text, one_line
from promptmii.errors import DataError


def rows(*labels: object, times: int = 4) -> list[tuple[str, object]]:
    return [(f"text {i} {number}", label) for i in range(times) for number, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("spellings", "label"),
    [
        (["refund", "refund", "Refund"], "refund"),
        (["refund", "refund", "refund "], "refund"),
        (["not spam", "not spam", "not  spam", "not\u00a0spam", "not\nspam"], "not spam"),
        (["0", "0.0", "0.0"], "0"),
        (["-1", "-1.0"], "-1"),
        (["café", "cafe\u0301"], "café"),
        (["\uff33pam", "Spam", "Spam"], "Spam"),
        (["refund", "re\u00adfund", "\u200brefund", "\ufeffrefund", "refund\u200e"], "refund"),
        (["نمی\u200cآید", "نمی\u200cآید", "نمیآید"], "نمی\u200cآید"),
        (["❤", "❤\ufe0f", "❤\ufe0f"], "❤\ufe0f"),
        (["straße", "straße", "STRASSE"], "straße"),
        (["iyi", "iyi", "İyi"], "iyi"),
        (["جيد", "جيد", "جـيد"], "جيد"),
        (["علی", "علی", "علي"], "علی"),
        (["refund", "refund", "refund\u061c", "re\u2063fund"], "refund"),
        (["1", "1", "+1", "1."], "1"),
        (["-1", "-1", "\u22121", "\u22121.0"], "-1"),
    ],
)
def test_spellings_of_a_label_are_merged_with_a_note(spellings: list[str], label: str) -> None:
    loaded = load_task(rows(*spellings, "other"))
    assert set(loaded.task.labels) == {label, "other"}
    (note,) = [note for note in loaded.notes if "are one" in note]
    assert repr(label) in note
    assert note.isascii() or "\u200b" not in note


def test_notes_escape_spellings_that_look_alike() -> None:
    (note,) = [note for note in load_task(rows("café", "cafe\u0301", "tea")).notes if "are one" in note]
    assert "'café' (also 'cafe\\u0301')" in note


def test_different_labels_are_not_merged() -> None:
    loaded = load_task(rows("1", "10", "1.5", "-1", "version 1.0", "a-b", "a b"))
    assert len(loaded.task.labels) == 7
    assert not any("are one" in note for note in loaded.notes)


def test_a_label_list_may_be_case_sensitive_and_matches_other_spellings() -> None:
    assert load_task(rows("US", "us", "UK"), labels=("US", "us", "UK")).task.labels == ("US", "us", "UK")
    task = load_task(rows("0.0", "1.0", "2.0", "3.0"), labels=("0", "1", "2")).task
    assert {e.label for e in (*task.train, *task.test)} == {"0", "1", "2"}
    with pytest.raises(DataError, match=r"outside the given list.*The column holds 'x', 'y'"):
        load_task(rows("x", "y"), labels=("0", "1"))
    long = "a long text that is no label " * 9
    assert max(map(len, load_task(rows("a", "b", long), label="label", labels=("a", "b")).notes)) < 200


@pytest.mark.parametrize(
    "joined",
    [
        *["refund, delivery", "refund|delivery", "refund; delivery", "refund/delivery", "refund#delivery"],
        *["refund and delivery", "['refund', 'delivery']", '["refund","delivery"]'],
    ],
)
def test_cells_with_several_labels_are_noted(joined: str) -> None:
    loaded = load_task([*rows("refund", "delivery"), ("both", joined), ("both again", joined)])
    (note,) = [note for note in loaded.notes if "several labels" in note]
    assert note.startswith("2 rows")
    assert joined[1:-1] in note
    ordinary = load_task(rows("refund", "delivery", "salt and pepper"))
    assert not any("several labels" in note for note in ordinary.notes)


def test_several_labels_are_noted_even_if_single_labels_are_lists() -> None:
    loaded = load_task(rows("['refund']", "['delivery']", "['refund', 'delivery']"))
    assert any("4 rows with what looks like several labels" in note for note in loaded.notes)


@pytest.mark.parametrize(
    "alike",
    [
        *[("bug", "bug."), ("bug", '"bug"'), ("e-mail", "e\u2011mail"), ("a_b", "a b", "a-b")],
        *[("don't", "don\u2019t"), ("01", "1"), ("R&amp;D", "R&D"), ("1", "True")],
        *[("été", "ETE"), ("ёлка", "елка"), ("λάθος", "ΛΑΘΟΣ")],
    ],
)
def test_labels_that_differ_little_are_noted(alike: tuple[str, ...]) -> None:
    loaded = load_task(rows(*alike, "other"))
    assert set(loaded.task.labels) == {*alike, "other"}
    (note,) = [note for note in loaded.notes if "are taken as different" in note]
    assert all(repr(label) in note for label in alike)
    for labels in (
        ("C", "C++", "C#"),
        ("-1", "1", "+1"),
        ("a b", "ab"),
        ("0", "00x", "1.05", "1.5"),
        ("कि", "कु", "が", "か"),
    ):
        assert not any("punctuation" in note for note in load_task(rows(*labels)).notes)


@pytest.mark.parametrize("missing", ["NA", "NaN", "null", "#N/A", "(null)", "."])
def test_labels_that_may_mean_missing_are_noted(missing: str) -> None:
    loaded = load_task(rows("a", "none", missing))
    assert missing in loaded.task.labels
    (note,) = [note for note in loaded.notes if "a missing one" in note]
    assert note.startswith(f"4 rows with {missing!r} as the label")


def test_a_label_of_the_first_or_last_row_alone_is_noted() -> None:
    headers = [("Open-Ended Response", "Response"), ("QID1_TEXT", "QID2")]  # Qualtrics writes three lines of headers
    loaded = load_task([*headers, *rows("a", "b", "c"), ("Total", "13")])
    for label, place in (("Response", "first"), ("QID2", "second")):
        note = f"the label {label!r} occurs in the {place} row alone; if that is a second header, remove the row"
        assert note in loaded.notes
    assert "the label '13' occurs in the last row alone; if that is a total, remove the row" in loaded.notes
    assert not any("row alone" in note for note in load_task([*rows("a", "b", "c"), ("e", "e"), *rows("d")]).notes)


def test_labels_without_a_held_back_row_are_noted() -> None:
    notes = load_task([*rows("a", "b"), ("alone", "other")]).split_notes
    assert "no held-back row of 1 of 3 labels: 'other'" in notes
    assert not any("held-back row of" in note for note in load_task(rows("a", "b")).split_notes)


FLAG = "🏴\U000e0067\U000e0062\U000e007f"


@pytest.mark.parametrize("label", ["نمی\u200cآید", "👨\u200d👩\u200d👧", FLAG, "\U0001fae8", "ක්\u200dෂ", "❤\ufe0f"])
def test_joiners_and_emoji_are_allowed_in_labels(label: str) -> None:
    assert label in load_task(rows(label, "other")).task.labels
    assert Support((label, "b"), ()).labels[0] == label


@pytest.mark.parametrize("label", ["", "a\u200bb", "a\u202eb", "a\x1b[31m", "a\nb", " a", "a\x00b", "\ud800"])
def test_labels_with_invisible_characters_are_rejected(label: str) -> None:
    with pytest.raises(DataError, match="visible text"):
        Support((label, "b"), ())


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        (Enum("Kind", {"BUG": "bug", "WISH": "wish"}), ("bug", "wish")),
        (Enum("Kind", {"BUG": "bug", "WISH": "wish"}, type=str), ("bug", "wish")),
        (Enum("Kind", ["BUG", "WISH"]), ("BUG", "WISH")),
        (IntEnum("Kind", ["BUG", "WISH"]), ("1", "2")),
    ],
)
def test_a_label_may_be_an_enum(kind: type[Enum], labels: tuple[str, ...]) -> None:
    kinds = list(kind)
    assert load_task([(f"text {i}", kinds[i % 2]) for i in range(8)]).task.labels == labels


def test_a_label_may_be_a_set_of_one() -> None:
    rows = [(f"text {i}", {"ab"[i % 2]}) for i in range(8)]
    assert load_task(rows).task.labels == ("a", "b")
    assert "1 row dropped: several labels for one text" in load_task([*rows, ("text", frozenset("ab"))]).notes


@pytest.mark.parametrize("value", [0.5, float("inf"), ["a", "b"], {"a": 1}, b"\xff"])
def test_values_that_are_not_names_are_rejected(value: object) -> None:
    with pytest.raises(DataError, match="expected one name or whole number"):
        label_text(value, "label")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_key_ignores_unicode_form_and_invisible_characters(label: str) -> None:
    for form in ("NFC", "NFD", "NFKC"):
        assert label_key(unicodedata.normalize(form, label)) == label_key(label)
    assert label_key(f" {INVISIBLE.join(label)}\t") == label_key(label)
    assert one_line(one_line(label)) == one_line(label)
