"""Validation writes instructions as users get them, in few batches."""

from collections.abc import Sequence
from dataclasses import replace

from promptmii import ScriptedModel
from promptmii.errors import SpendingLimitError
from promptmii.follower import Follower
from promptmii.inducers import Writer
from promptmii.models.base import Chat, Completion, Failure, Sampling
from promptmii.models.wrappers import Wrapper
from promptmii.task import Example, Task
from promptmii.train.validation import Case, judge, summary, write


class Recorded(Wrapper):
    """Keeps the size and the token limit of each batch."""

    def __init__(self) -> None:
        super().__init__(ScriptedModel(["Look at the words."], context_length=16384))
        self.batches: list[tuple[int, int]] = []

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        self.batches.append((len(chats), sampling.max_tokens))
        return super().generate(chats, sampling)


def case(labels: int) -> Case:
    names = tuple(f"label {i}" for i in range(labels))
    rows = tuple(Example(f"text {i} of {labels}", names[i % labels]) for i in range(2 * labels))
    return Case(Task(f"task {labels}", names, rows, rows), n=4)


def test_tasks_with_many_labels_keep_their_own_token_limit() -> None:
    model = Recorded()
    written = write(Writer(model), [case(2), case(100), case(3)])
    assert [item.instruction and item.instruction.text for item in written] == ["Look at the words."] * 3
    assert model.batches == [(2, 1024), (1, 3200)]


def test_a_case_beyond_the_spending_limit_is_not_judged() -> None:
    def refuse(_chat: Chat, _option: str) -> float:
        raise SpendingLimitError("Stopped at --max-cost")

    written = write(Writer(Recorded()), [case(2)])
    (outcome,) = judge(written, [Follower(ScriptedModel(score=refuse))], 4)
    assert outcome.macro_f1 is None
    assert outcome.failure == "Stopped at --max-cost"
    assert summary([outcome] * 2) == {"validation/failed": 1.0}
    assert summary([outcome, replace(outcome, macro_f1=0.5)])["validation/failed"] == 0.5
