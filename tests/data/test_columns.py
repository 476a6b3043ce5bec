"""Choosing text and label columns by option, name and values, and noting the doubts."""

from collections.abc import Iterable
from datetime import date

import pytest

from promptmii.data import load_task, read_table, read_texts
from promptmii.data.columns import choose_columns
from promptmii.errors import DataError

TEXTS = [f"text number {i} about something" for i in range(12)]


def table(**columns: Iterable[object]) -> list[dict[str, object]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_a_column_name_may_look_like_a_template() -> None:
    rows = table(**{"text {en}": TEXTS, "note": TEXTS[::-1], "label": list("abc") * 4})
    assert load_task(rows, text="text {en}").task.train[0].text in TEXTS
    (first, *_), (last, *_) = TEXTS, TEXTS[::-1]
    task = load_task(rows, text=("text {en}", "note")).task
    texts = {e.text for e in (*task.train, *task.test)}
    assert f"text {{en}}: {first}\nnote: {last}" in texts
    assert load_task(rows, text="{text {en}} / {note}").task.train[0].text.count(" / ") == 1
    with pytest.raises(DataError, match=r"no column 'nota'.*Name the column with --text\."):
        load_task(rows, text="{text {en}} / {nota}")
    with pytest.raises(DataError, match=r"no column 'labl'.*Name the column with --label\."):
        load_task(rows, text="note", label="labl")


def test_the_body_is_preferred_to_the_title() -> None:
    rows = table(title=["a ticket"] * 12, body=TEXTS, label=list("abc") * 4)
    assert load_task(rows).columns.text == ("body",)


def test_both_columns_of_a_text_pair_are_used() -> None:
    chosen = choose_columns(
        read_table(table(idx=range(12), Premise=TEXTS, hypothesis=["so"] * 12, label=list("abc") * 4)), None, None
    )
    assert (chosen.text, chosen.label, chosen.doubts) == (("Premise", "hypothesis"), "label", ())
    assert "text columns: 'Premise', 'hypothesis' (detected)" in chosen.notes


def test_addresses_and_identifiers_are_not_texts_unless_named_so() -> None:
    longer = {
        "page": [f"https://example.org/articles/2024/a-rather-long-address/{i}" for i in range(12)],
        "hash": [f"{i:064x}" for i in range(12)],
        "sender": [f"someone.with.a.rather.long.name.{i}@mail.example.org" for i in range(12)],
        "sent": [f"Mon, {i + 1:02} September 2024 {i:02}:00:00 AM GMT+1 (CEST)" for i in range(12)],
        "phone": [f"{i:040}" for i in range(12)],
    }
    rows = table(**longer, speech=TEXTS, label=list("abc") * 4)
    assert choose_columns(read_table(rows), None, None).text == ("speech",)
    assert choose_columns(read_table(table(text=longer["page"], label=list("abc") * 4)), None, None).text == ("text",)
    with pytest.raises(DataError, match="No column of a list holds text"):
        load_task(table(**longer, label=list("abc") * 4))


def test_file_names_are_texts_only_if_nothing_else_is() -> None:
    rows = table(file=[f"pictures/of/the/first/camera/number_{i:09}.png" for i in range(12)], label=list("abc") * 4)
    assert load_task(rows).columns.text == ("file",)
    speech = [text for i in range(6) for text in (f"well {i}", f"很好{i}")]
    loaded = load_task([row | {"speech": text} for row, text in zip(rows, speech, strict=True)])
    assert (loaded.columns.text, loaded.columns.doubts) == (("speech",), ())


def test_a_short_category_is_not_a_text_whatever_its_name() -> None:
    rows = table(subject=["maths", "physics"] * 6, essay=TEXTS, label=list("abc") * 4)
    assert load_task(rows).columns.text == ("essay",)


def test_a_column_whose_name_contains_a_label_name_is_preferred() -> None:
    rows = table(text=TEXTS, airline=["a", "b"] * 6, airline_sentiment=list("pqr") * 4)
    chosen = choose_columns(read_table(rows), None, None)
    assert (chosen.label, chosen.doubts) == ("airline_sentiment", ("airline",))


def test_label_names_are_preferred_to_label_numbers() -> None:
    rows = table(text=TEXTS, label=[0, 1, 2] * 4, label_text=["bad", "so-so", "good"] * 4)
    loaded = load_task(rows)
    assert loaded.task.labels == ("bad", "good", "so-so")
    assert "label column: 'label_text' (detected, it names the numbers of 'label')" in loaded.notes
    by_number = load_task(rows, label="label")
    assert by_number.task.labels == ("0", "1", "2")
    assert any("'label_text' names the numbers of 'label' (0 is bad" in note for note in by_number.notes)
    rows[3]["label_text"] = "Bad"
    assert load_task(rows).columns.label == "label_text"
    other = table(text=TEXTS, label=[0, 1, 2] * 4, topic=["x", "y", "x", "y"] * 3)
    assert load_task(other).columns.label == "label"


@pytest.mark.parametrize("labels", [[f"class {i}" for i in range(12)], [f"class {i % 8}" for i in range(12)]])
def test_one_row_per_class_is_enough_if_the_column_name_is_a_label_name(labels: list[str]) -> None:
    assert len(load_task(table(text=TEXTS, label=labels)).task.labels) == len(set(labels))
    assert len(load_task(table(text=TEXTS, shelf=labels), label="shelf").task.labels) == len(set(labels))
    with pytest.raises(DataError, match="No column of a list looks like a label"):
        load_task(table(text=TEXTS, shelf=labels))


def test_a_table_of_one_column_needs_a_delimiter() -> None:
    with pytest.raises(DataError, match="That is one column: separate texts and labels by commas"):
        load_task([f"{text}~a" for text in TEXTS])


def test_identifiers_and_texts_are_not_labels_even_if_named() -> None:
    rows = table(text=[f"text {i}" for i in range(40)], id=range(40), long=[f"{'word ' * 20}{i}" for i in range(40)])
    for name in ("id", "long"):
        with pytest.raises(DataError, match="40 different values in 40 rows"):
            load_task(rows, label=name)


@pytest.mark.parametrize(
    ("rows", "doubts"),
    [
        (table(text=TEXTS, label=list("abc") * 4), ()),
        (table(text=TEXTS, label=list("abc") * 4, colour=list("xy") * 6), ()),
        (table(text=TEXTS, shelf=list("abc") * 4, colour=list("xy") * 6), ("shelf",)),
        (table(words=TEXTS, others=TEXTS[::-1], label=list("abc") * 4), ("others",)),
    ],
)
def test_an_ambiguous_choice_names_the_rival_columns(rows: list[dict[str, object]], doubts: tuple[str, ...]) -> None:
    assert choose_columns(read_table(rows), None, None).doubts == doubts


def test_an_empty_result_explains_the_dropped_rows() -> None:
    rows = table(text=["same"] * 12, label=list("abc") * 4)
    with pytest.raises(DataError, match="11 rows: the same text as an earlier row; 1 row: the same text with"):
        load_task(rows)


def test_tokenised_text_is_joined_and_bytes_are_rejected() -> None:
    rows = table(text=[text.split() for text in TEXTS], label=list("abc") * 4)
    assert load_task(rows, text="text", label="label").task.train[0].text in TEXTS
    assert load_task(rows).columns.text == ("text",)
    undecodable = table(text=[b"\xff\xfe"] * 12, label=list("abc") * 4)
    for text in ("text", None):
        with pytest.raises(DataError, match="column 'text' holds bytes that are not UTF-8"):
            load_task(undecodable, text=text)


def test_lists_beside_a_text_are_tags_or_choices() -> None:
    lists = [[f"choice {i} of many", "another long choice"] for i in range(12)]
    loaded = load_task(table(problem=TEXTS, choices=lists, label=list("abc") * 4))
    assert loaded.columns.text == ("problem",)
    assert load_task(table(source=["web", "app"] * 6, words=lists, label=list("abc") * 4)).columns.text == ("words",)


def test_labels_are_never_taken_for_the_texts_to_label() -> None:
    rows = table(text=list(range(12)), label=["red", "green", "blue"] * 4)
    with pytest.raises(DataError, match="No column of a list holds text"):
        read_texts(rows)
    assert read_texts(table(topic=["red", "green", "blue"] * 4)).n == 12  # the only column


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["same"] * 12, "'label' has one value ('same')"),
        ([None] * 12, "'label' is empty"),
        ([["a", "b"]] * 12, "'label' holds several labels per row"),
        ([i + 0.5 for i in range(12)], "'label' holds fractions such as 0.5"),
        (["0.25", "0.5", "0.75"] * 4, "'label' holds fractions such as '0.25'"),
        ([date(2024, 1, 1 + i % 3) for i in range(12)], "'label' holds date, such as '2024-01-01', not names"),
        (["a" * 200, "b" * 200] * 6, "'label' holds texts of more than 120 characters"),
    ],
)
def test_an_unusable_label_column_is_explained(labels: list[object], words: str) -> None:
    with pytest.raises(DataError) as caught:
        load_task(table(text=TEXTS, label=labels))
    assert words in str(caught.value)
