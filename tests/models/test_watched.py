"""Answers arrive in batches while somebody listens, and are the same."""

from tests.recorder import Recorder

from promptmii import ScriptedModel
from promptmii.models.base import Chat, Sampling
from promptmii.models.watched import ROWS, watched
from promptmii.progress import QUIET


def scripted() -> ScriptedModel:
    return ScriptedModel(reply=["one", "two", "three"], score=lambda chat, option: float(option in chat[-1]["content"]))


CHATS: list[Chat] = [[{"role": "user", "content": f"a text that is {'good' if i % 3 else 'bad'}"}] for i in range(40)]


def test_every_batch_advances_and_nothing_changes() -> None:
    heard = Recorder()
    heard.step("Scoring", len(CHATS))
    model = watched(scripted(), heard)
    plain = scripted().choose(CHATS, ["good", "bad"])
    assert [a.index for a in model.choose(CHATS, ["good", "bad"])] == [a.index for a in plain]
    assert heard.counts == [len(CHATS)]
    assert len(heard.done) == -(-len(CHATS) // ROWS)


def test_samples_of_equal_chats_stay_different() -> None:
    model = watched(scripted(), Recorder())
    drafts = model.generate([CHATS[0]] * 40, Sampling(max_tokens=8, temperature=1.0))
    assert drafts == scripted().generate([CHATS[0]] * 40, Sampling(max_tokens=8, temperature=1.0))


def test_nobody_listens_to_quiet() -> None:
    model = scripted()
    assert watched(model, QUIET) is model
