"""The bundled bank of label descriptions."""

from promptmii.data import read_tasks
from promptmii.train.warmup.pairs import SHIPPED, read_bank


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
