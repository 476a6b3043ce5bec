"""The bank that ships: the written tasks are described, label by label."""

from promptmii.data import read_tasks
from promptmii.train.warmup.bank import SHIPPED, Guide, read_bank


def test_every_label_of_a_written_task_is_described() -> None:
    bank = read_bank(SHIPPED)
    for name, task in read_tasks(["written"]).items():
        assert bank[name].covers(task.labels), name


def test_an_instruction_is_a_sentence_and_then_a_line_per_label() -> None:
    guide = read_bank(SHIPPED)["guestbook_spam_kind"]
    sentence, *lines = guide.text({"phishing": "B", "genuine": "A"}).splitlines()
    assert sentence == guide.sentence
    assert [line.partition(": ")[0] for line in lines] == ["B", "A"]
    assert lines[1] == f"A: {guide.descriptions['genuine'][0]}"


def test_a_label_may_be_given_the_line_of_another() -> None:
    guide = Guide("Say which.", {"a": ("one",), "b": ("two",), "c": ("three",)})
    shown = {"a": "A", "b": "B", "c": "C"}
    assert guide.text(shown, {"a": "c", "c": "a"}) == "Say which.\nA: three\nB: two\nC: one"
    assert guide.text(shown, {"b": "a"}) == "Say which.\nA: one\nB: one\nC: three"
