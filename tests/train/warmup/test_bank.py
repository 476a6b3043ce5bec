"""The bank that ships: the written tasks are described, label by label."""

from promptmii.data import read_tasks
from promptmii.train.warmup.pairs import SHIPPED, read_bank


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
