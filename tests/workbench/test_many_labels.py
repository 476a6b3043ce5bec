"""77 labels with two examples each, from the table to every command that uses the instruction."""

from collections.abc import Sequence
from pathlib import Path

import pytest

import promptmii
from promptmii import Follower, ScriptedModel
from promptmii.models.base import Chat, Choice, Failure

KINDS = [
    f"{first}{second}" for first in ("card", "cash", "coin", "fees", "loan", "rate", "safe") for second in "abcdefghijk"
]
ROWS = [
    {"text": f"{start} my {kind} {end}", "label": f"Kind {number:02}"}
    for number, kind in enumerate(KINDS)
    for start, end in (("where is", "now"), ("please block", "today"), ("what does", "cost"), ("I lost", "again"))
]
LINES = "\n".join(
    f"Kind {number:02}: texts about {kind}, a wish or a question or a complaint about it; "
    "a wish or a question or a complaint about it, said in few words"
    for number, kind in enumerate(KINDS)
)


class Bank(ScriptedModel):
    """Writes a line per label, reads by the word of a label, and counts what it compares."""

    def __init__(self) -> None:
        super().__init__(reply=[LINES], score=self._likelihood, context_length=100_000)
        self.compared: list[int] = []

    def _likelihood(self, chat: Chat, option: str) -> float:
        return 5.0 * (KINDS[int(option.split()[1])] in chat[-1]["content"].splitlines()[-1])

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        self.compared += [len(options)] * len(chats)
        return super().choose(chats, options)


@pytest.mark.slow
def test_every_command_compares_only_the_shortlist(tmp_path: Path) -> None:
    bank = Bank()
    settings = {"generator": "scripted", "follower": "scripted", "n": 154, "evaluate": 77, "shortlist": "tfidf"}
    induced = promptmii.induce(ROWS, output=tmp_path / "bank.json", models=lambda _: bank, **settings)
    made = induced.instruction
    assert made.text == LINES, "a draft has room for a line per label"
    assert not any("cut at" in note for note in made.provenance.notes)
    assert made.shortlist is not None
    size = made.shortlist.size
    assert size < 20
    assert any(f"shortlist of {size} labels by tfidf" in note for note in induced.notes)
    assert made.measured is not None
    assert (made.measured.macro_f1, made.measured.shortlist_recall) == (1.0, 1.0)

    bank.compared.clear()
    again = promptmii.score(tmp_path / "bank.json", ROWS, Follower(bank))
    labelled = promptmii.predict(tmp_path / "bank.json", [row["text"] for row in ROWS[:5]], Follower(bank))
    assert {*bank.compared} == {size}
    assert again.macro_f1 == 1.0
    assert [row["predicted_label"] for row in labelled.rows] == [row["label"] for row in ROWS[:5]]

    bank.compared.clear()
    compared = promptmii.compare([tmp_path / "bank.json", LINES], ROWS, bank)
    assert max(bank.compared) < 20, "a text that is calibrated here gets a shortlist of its own"
    assert all((row.macro_f1 or 0.0) > 0.95 for row in compared.rows)
