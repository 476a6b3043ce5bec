"""The bundled bank of label descriptions, and files of pairs."""

from pathlib import Path

import pytest

from promptmii import Example, Support
from promptmii.data.sources import read_tasks
from promptmii.errors import DataError
from promptmii.train.warmup.pairs import SHIPPED, Pair, pair_line, read_bank, read_pairs


@pytest.mark.slow
def test_bank_describes_every_label_of_the_written_tasks() -> None:
    bank = read_bank(SHIPPED)
    for name, task in read_tasks(["written"]).items():
        assert bank[name].covers(task.labels), name


def test_instruction_is_a_sentence_then_a_line_per_label() -> None:
    guide = read_bank(SHIPPED)["guestbook_spam_kind"]
    sentence, *lines = guide.text({"phishing": "B", "genuine": "A"}).splitlines()
    assert sentence == guide.sentence
    assert [line.partition(": ")[0] for line in lines] == ["B", "A"]
    assert lines[1] == f"A: {guide.descriptions['genuine'][0]}"


def test_a_text_may_hold_any_line_separator(tmp_path: Path) -> None:
    pair = Pair(Support(("a", "b"), (Example("one\u2028two\x85three", "a"),)), "Say which.")
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + pair_line(pair) + pair_line(pair))  # with a byte order mark, as editors save it
    assert read_pairs(path) == [pair, pair]


def test_damaged_files_are_refused_with_file_and_line(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"labels": ["a", "b"], "examples": [{"text": "t", "label": "c"}], "instruction": "x"}\n')
    with pytest.raises(DataError, match=r"pairs\.jsonl, line 1: .*'c'"):
        read_pairs(pairs)
    pairs.unlink()
    (tmp_path / "films.jsonl").write_bytes(b'{"task": "films", "description": "\xff"}\n')
    with pytest.raises(DataError, match=r"films\.jsonl cannot be read"):
        read_bank(tmp_path)
