"""Decoding bytes to text: supported encodings, and errors for the others."""

import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii.data import read_table, read_texts
from promptmii.data.decoding import decode, split_lines
from promptmii.errors import DataError

TEXT = "text,label\ncafé au lait,a\nein Bär,b\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("ending", ["csv", "txt"])
def test_detectable_encodings_are_read(tmp_path: Path, encoding: str, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(TEXT.encode(encoding))
    assert "café au lait" in str(read_table(path).rows[-2])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ending", ["csv", "txt"])
@pytest.mark.parametrize("text", ["Верните деньги за заказ 1", "一つの返金、お願い　します"])
def test_unmarked_utf_16_is_read_in_any_script(tmp_path: Path, encoding: str, ending: str, text: str) -> None:
    path = tmp_path / f"rows.{ending}"
    path.write_bytes("".join(f"{line}\r\n" for line in ["text,label", *[f"{text},возврат"] * 3]).encode(encoding))
    assert text in "".join(read_table(path).rows[-1].values())


@pytest.mark.parametrize("ending", ["csv", "jsonl", "txt"])
def test_iso_2022_jp_as_in_japanese_mail_is_read(tmp_path: Path, ending: str) -> None:
    lines = ["text,label", "返金はいつですか,ﾍﾝｷﾝ", "ascii only,b"]
    if ending == "jsonl":
        lines = ['{"text": "返金はいつですか", "label": "ﾍﾝｷﾝ"}']
    path = tmp_path / f"rows.{ending}"
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode("iso2022_jp_ext"))
    for rows in (read_table(path).rows, [row for row, _ in read_texts(path, "text")]):
        assert any("返金はいつですか" in str(row) and "ﾍﾝｷﾝ" in str(row) for row in rows)


def test_control_codes_of_a_terminal_do_not_make_utf_8_japanese() -> None:
    for text in ("\x1b[31mred\x1b(B\x1b[m\n", "\x1b$Bcafé\n"):
        assert decode(text.encode(), "rows.csv") == text


def test_zero_bytes_in_utf_8_do_not_make_it_utf_16() -> None:
    text = TEXT + "\0\0\0\0\n\0\0\0\n\0\n"
    assert decode(text.encode(), "rows.csv") == text


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_an_undetectable_encoding_is_reported_with_the_line_and_a_guess(encoding: str) -> None:
    with pytest.raises(DataError, match=r"rows\.csv is not UTF-8: byte 14 \(line 2\).*Windows-1252.*'café au lait,a'"):
        decode(TEXT.encode(encoding), "rows.csv")


@pytest.mark.parametrize(
    ("encoding", "text", "advised"),
    [
        ("cp1251", "Верните деньги", "WINDOWS-1251"),
        ("shift_jis", "返金はいつですか", "SHIFT_JIS"),
        ("gbk", "请退款", "GB18030"),
    ],
)
def test_the_advice_names_the_encoding_of_other_scripts(encoding: str, text: str, advised: str) -> None:
    with pytest.raises(DataError, match=f"is not UTF-8.*{advised}"):
        decode(f"text,label\n{text},a\n".encode(encoding), "rows.csv")


def test_a_line_of_another_encoding_in_a_utf_8_file_is_named() -> None:
    """Converting the whole file, as is advised for other files, would garble the other lines."""
    content = TEXT.encode() + "naïve,a\n".encode("cp1252")
    with pytest.raises(
        DataError, match=r"mostly UTF-8, but byte 40 \(line 4\).*'naïve,a'. Correct such lines"
    ) as caught:
        decode(content, "rows.csv")
    assert "WINDOWS-1252" not in str(caught.value)


def test_the_advice_for_more_wrong_bytes_than_utf_8_warns_of_mixed_encodings() -> None:
    content = TEXT.encode() + "naïve café, déjà vu,a\n".encode("cp1252")
    with pytest.raises(DataError, match=r"-f WINDOWS-1252.* But 2 characters may be UTF-8"):
        decode(content, "rows.csv")


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_byte_that_cannot_be_decoded_is_shown_with_its_surroundings(mark: bytes) -> None:
    line = f"{'long ' * 20}café au lait{' long' * 20},a\n"
    with pytest.raises(DataError, match=r"line 2\).* '[a-z ]{20,27}café au lait[a-z ]{15,25}'") as caught:
        decode(mark + f"text,label\n{line}last,b\n".encode("cp1252"), "rows.csv")
    assert '"CSV UTF-8"' in str(caught.value)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"PK\x03\x04\x14", "zip"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"SQLite format 3\x00", "SQLite"),
        (b"PAR1", "Parquet"),
        (b"\xd0\xcf\x11\xe0", "old workbook"),
    ],
)
def test_binary_files_are_reported_with_their_format(tmp_path: Path, start: bytes, words: str) -> None:
    (tmp_path / "a.csv").write_bytes(start + b"\xff\x00" * 50)
    for read in (read_table, read_texts):
        with pytest.raises(DataError, match=rf"a\.csv is not text, .*{words}"):
            read(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt", "a.parquet", "a.xlsx"])
@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"\xef\xbb\xbf\r\n<!DOCTYPE HTML>\n<title>Sign in</title>\n", "web page"),
        (b'<?xml version="1.0"?>\n<Workbook/>\n', "XML"),
        (rb"{\rtf1\ansi text,label\par a,b}", "RTF"),
    ],
)
def test_what_stands_in_for_a_file_is_not_data(tmp_path: Path, name: str, start: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(start)
    for read in (read_table, read_texts):
        with pytest.raises(DataError, match=f"holds no table, .*{words}"):
            read(tmp_path / name)


def test_truncated_utf_16_is_rejected() -> None:
    with pytest.raises(DataError, match="broken UTF-16"):
        decode(TEXT.encode("utf-16")[:-1], "rows.csv")


def test_other_separators_do_not_end_a_line(tmp_path: Path) -> None:
    lines = ["one\x0cstill one", "two\u2028still two", "three\x85", "\x1cfour", "", "six\x0b"]
    for end in ("\n", "\r\n"):
        (tmp_path / "a.txt").write_bytes("".join(line + end for line in lines).encode())
        assert [text for _, text in read_texts(tmp_path / "a.txt")] == list(lines)


@given(st.lists(st.text(st.characters(exclude_characters="\r\n")), min_size=1), st.sampled_from(["\n", "\r\n", "\r"]))
def test_split_lines_reverses_joining(lines: list[str], end: str) -> None:
    assert split_lines("".join(line + end for line in lines)) == lines


def test_iso_2022_jp_is_read_alike_row_by_row_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "mail.csv"
    path.write_bytes(("text,label\n" + "hello,a\n" * 20_000 + "返金はいつですか,b\n").encode("iso2022_jp"))
    assert [text for _, text in read_texts(path, "text")][-1] == read_table(path).rows[-1]["text"] == "返金はいつですか"
