"""CSV and TSV files as people and programs write them: preambles, delimiters and quotes."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii.data import load_task, read_table
from promptmii.data.delimited import csv_rows, read_delimited
from promptmii.errors import DataError

ROWS = [{"text": f"the {thing} number {i}", "label": "ab"[i % 2]} for i, thing in enumerate(["lamp", "bag"] * 6)]
BODY = "".join(f"{row['text']},{row['label']}\n" for row in ROWS)


def columns_and_rows(text: str, delimiter: str | None = None) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    table = read_delimited(text, "rows.csv", delimiter)
    return table.columns, list(table.rows)


@pytest.mark.parametrize(
    "above",
    [
        "",
        "\n\n\n",
        " \n",
        ",,\n",
        "sep=,\n",
        '"sep=,"\n',
        "SEP=,\r\n",
        "\nsep=,\n\n",
        "Tickets of May\n",
        '"Tickets, of May"\n\n',
        "Tickets, of May\n",
        "Tickets of May,\n",
        "Report\nmade on Monday\n\n",
        "# made by hand\n# for a test\n",
        "# made by hand, for a test, on Monday\n",
    ],
)
def test_lines_above_the_header_are_not_rows(above: str) -> None:
    assert columns_and_rows(f"{above}text,label\n{BODY}") == (("text", "label"), ROWS)


@pytest.mark.parametrize(
    "above", ["Report\nby,Ann\n\n", "Report,,\nby,Ann,\n,,\n", "# by Ann, on Monday, at home, by hand\n"]
)
def test_titles_and_remarks_are_skipped_even_if_the_header_has_unusual_names(above: str) -> None:
    body = "".join(f"{i},{row['text']},{row['label']}\n" for i, row in enumerate(ROWS))
    assert columns_and_rows(f"{above}number,what,kind\n{body}")[0] == ("number", "what", "kind")
    for rows in (body, "one,a,x\ntwo,b,y\n"):  # whose first row is data
        assert columns_and_rows(f"what,kind,\n{rows}")[0] == ("what", "kind", "column 3")


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_row_numbers_without_a_name_are_not_texts(delimiter: str) -> None:  # as R's write.table writes them
    body = "".join(f'"{7 + i}"{delimiter}"{row["text"]}"{delimiter}{row["label"]}\n' for i, row in enumerate(ROWS))
    columns, rows = columns_and_rows(f'"text"{delimiter}"label"\n{body}')
    assert columns == ("column 1", "text", "label")
    assert [row["text"] for row in rows] == [row["text"] for row in ROWS]
    with pytest.raises(DataError, match="line 2: 3 fields, expected 2"):
        read_delimited(f"text{delimiter}label\n" + f"1{delimiter}and more{delimiter}a\n" * 9, "rows.csv")


def test_what_programs_print_around_rows_is_no_row() -> None:
    assert columns_and_rows(f"text,label\n{BODY}\x1a")[1] == ROWS
    for end in ("\n(3 rows affected)\n", "(1 row)", "\n3 rows selected.\n", "3 rows in set (0.00 sec)"):
        assert columns_and_rows(f"text,label\n----,-----\n{BODY}{end}")[1][1:] == ROWS
    boxed = BODY.replace(",", " | ").replace("\n", " |\n| ").removesuffix("| ")
    rule = "+---+---+\n"
    assert columns_and_rows(f"{rule}| text | label |\n{rule}| {boxed}{rule}")[0] == ("text", "label")


def test_a_title_may_be_the_usual_name_of_a_text_column() -> None:
    body = BODY.replace(",", ";").replace("\n", ";\n")
    assert columns_and_rows(f"Title;;\n;;\ntext;label;\n{body}") == (("text", "label"), ROWS)


def test_lines_skipped_above_the_header_are_noted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"Tickets of May\n\ntext,label\n{BODY}")
    assert "1 line above the header skipped" in load_task(tmp_path / "a.csv").notes


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("declared", [True, False])
def test_the_delimiter_is_the_one_that_all_lines_agree_on(mark: str, declared: bool) -> None:
    others = [other for other in ",;\t|" if other != mark]
    body = "".join(
        f"{others[0]} {others[1] * (i % 3)} {row['text']}{mark}{row['label']}\n" for i, row in enumerate(ROWS)
    )
    header = f"my {others[0]} own {others[0]} text{mark}label\n"
    columns, rows = columns_and_rows((f"sep={mark}\n" if declared else "") + header + body)
    assert columns == (f"my {others[0]} own {others[0]} text", "label")
    assert [row["label"] for row in rows] == [row["label"] for row in ROWS]


def test_commas_in_every_text_do_not_hide_the_semicolons() -> None:
    body = "".join(f"well, {row['text']};{row['label']}\n" for row in ROWS)
    assert columns_and_rows(f"text;label\n{body}")[1] == [row | {"text": f"well, {row['text']}"} for row in ROWS]


def test_empty_unnamed_columns_are_dropped() -> None:
    trailing = "".join(f"{row['text']},{row['label']},,\n" for row in ROWS)
    assert columns_and_rows(f"text,label,,\n{trailing}") == (("text", "label"), ROWS)
    assert columns_and_rows(f"text,label\n{trailing}") == (("text", "label"), ROWS)
    assert columns_and_rows(f"text,label,,\n{BODY}") == (("text", "label"), ROWS)
    numbered = "".join(f"{i},{row['text']},{row['label']}\n" for i, row in enumerate(ROWS))
    assert columns_and_rows(f",text,label\n{numbered}")[0] == ("column 1", "text", "label")


def test_a_single_column_may_contain_any_delimiter() -> None:
    assert columns_and_rows("text\nwell, yes\nno; or | maybe\n")[1] == [
        {"text": "well, yes"},
        {"text": "no; or | maybe"},
    ]
    assert columns_and_rows('text\n"well, yes"\n"two\nlines"\n')[1] == [{"text": "well, yes"}, {"text": "two\nlines"}]


@pytest.mark.parametrize("mark", ["\t", ",", ";"])
@pytest.mark.parametrize("cell", ['"great" they said', '5" pipe', 'she said "no"', '"', '"" twice', '"opened'])
def test_a_quote_within_a_cell_is_text(mark: str, cell: str) -> None:
    body = "".join(f"{row['text']}{mark}{row['label']}\n" for row in ROWS)
    rows = columns_and_rows(f"text{mark}label\n{cell}{mark}a\n{body}{cell}{mark}b\n", "\t" if mark == "\t" else None)[1]
    assert [row["text"] for row in rows] == [cell, *(row["text"] for row in ROWS), cell]


@pytest.mark.parametrize("text", ["well, yes", 'she said "no", twice', '"quoted"', "C:\\new", "plain"])
def test_quotes_may_be_escaped_by_a_backslash_or_follow_spaces(text: str) -> None:
    body = "".join(f'"{row["text"]}",{row["label"]}\n' for row in ROWS)
    escaped = text.replace('"', '\\"')
    assert columns_and_rows(f'text,label\n{body}"{escaped}",a\n')[1][-1] == {"text": text, "label": "a"}
    doubled = text.replace('"', '""')
    spaced = "".join(f'"{row["text"]}", "{row["label"]}"\n' for row in ROWS)
    assert columns_and_rows(f'text, label\n{spaced}"{doubled}", "a"\n')[1] == [*ROWS, {"text": text, "label": "a"}]


def test_column_names_are_one_line_without_invisible_characters() -> None:
    assert columns_and_rows(f'\ufefftext,"label\u200b\n(one)"\n{BODY}')[0] == ("text", "label (one)")


def test_a_database_null_is_not_a_label(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + BODY.replace(",", "\t") + "unknown\t\\N\n")
    loaded = load_task(tmp_path / "a.tsv")
    assert loaded.task.labels == ("a", "b")
    assert "1 row dropped: no label" in loaded.notes


@pytest.mark.parametrize("frame", ["text,label", "\ufefftext,label", "----,-----", ":---,:---:"])
def test_a_repeated_header_and_a_rule_are_not_rows(tmp_path: Path, frame: str) -> None:
    (tmp_path / "a.csv").write_text(f"text,label\n{frame}\n{BODY}")
    loaded = load_task(tmp_path / "a.csv")
    assert loaded.task.labels == ("a", "b")
    assert "1 row dropped: the header again, or a line under it" in loaded.notes


def test_a_table_without_a_header_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(BODY)
    with pytest.raises(DataError, match="seems to have no header: 'a'"):
        load_task(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text(f"message,a\n{BODY}")
    assert load_task(tmp_path / "a.csv").columns.label == "a"
    (tmp_path / "a.csv").write_text(f"what,a\n{BODY}")
    assert load_task(tmp_path / "a.csv", label="a").columns.text == ("what",)


def test_quotes_never_merge_lines_of_a_tab_separated_file() -> None:
    text = 'text\tlabel\n"opened\ta\nno quote\tb\nclosed"\ta\n'
    assert [row["text"] for row in columns_and_rows(text, "\t")[1]] == ['"opened', "no quote", 'closed"']


def test_equal_column_names_are_numbered() -> None:
    table = read_delimited("text,kind,kind,kind (1)\none,a,b,c\ntwo,d,e,f\n", "rows.csv")
    assert table.columns == ("text", "kind (1) (1)", "kind (2)", "kind (1) (2)")
    assert [row["kind (2)"] for row in table.rows] == ["b", "e"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_only_line_endings_end_a_line(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.csv").write_bytes(f"text,label{end}one\u2028still\x0cone\x85,a{end}two,b{end}".encode())
    assert [row["text"] for row in read_table(tmp_path / "a.csv").rows] == ["one\u2028still\x0cone\x85", "two"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text,label\none,a\ntwo\n", "line 3: 1 field, expected 2"),
        ("text,label\na,b,c\nd,e,f\n", "line 2: 3 fields, expected 2"),
        ('text,label\n"one,a\ntwo"b,c,d\n', "line 2: not readable as CSV"),
        ("text,label\n", "header and no rows"),
        ('{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n', "holds JSON"),
        ('{\n"text": ["a"]\n}\n', "holds JSON"),
        ('[{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]', "holds JSON"),
        ('text,"la"bel\n"one, two",a\n"three, four",b\n', "line 1: the names of the columns are not readable"),
        (f"text,label\n{BODY}\nCopyright 2024\n", "remark, remove it"),
        (f"Title\n\ntext,label\n{BODY}three\n", "line 16: 1 field"),
    ],
)
def test_malformed_files_are_reported_with_the_line(text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_delimited(text, "rows.csv")


@pytest.mark.parametrize("blank", [" ", "\t", '""'])
def test_a_blank_line_may_hold_spaces(blank: str) -> None:
    assert columns_and_rows(f"text,label\n{blank}\n{BODY}{blank}\n")[1] == ROWS


def test_a_stream_continues_after_a_malformed_row() -> None:
    faults: list[str] = []
    lines = io.StringIO("text,label\n" + BODY * 3 + "one,two,three\n" + BODY, newline="")
    assert len(list(csv_rows(lines, "rows.csv", skip=faults.append))) == 4 * len(ROWS)
    assert faults == [f"rows.csv, line {3 * len(ROWS) + 2}: 3 fields, expected 2 (text, label). "
                      "Put texts that hold ',' or line breaks in double quotes."]  # fmt: skip


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1f"), max_size=8) | st.sampled_from(
    ['"', "a,b", "c;d", "e\tf", "g|h", "i\nj", "k\r\nl", '"m"', "#", "sep=;"]
)


@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=6), st.sampled_from(",;|"))
def test_rows_round_trip_through_a_csv_writer(rows: list[tuple[str, str, str]], mark: str) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=mark, quoting=csv.QUOTE_ALL).writerows([("text", "label", "other"), *rows])
    read = [
        tuple(row.get(name) or "" for name in ("text", "label", "other")) for row in columns_and_rows(out.getvalue())[1]
    ]
    assert read == rows
