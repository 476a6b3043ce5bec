"""Progress reports split calls into batches and do not change the answers."""
# pyright: reportAttributeAccessIssue=false

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.recorder import Recorder

from promptmii import ScriptedModel
from promptmii.errors import EndpointError
from promptmii.models.base import (
    Chat,
    Completion,
    Failure,
    FailureKind,
    LanguageModel,
    ModelCard,
    Price,
    Sampling,
)
from promptmii.models.cache import Cached
from promptmii.models.wrappers import ROWS, Priced, Wrapper, for_threads, watched
from promptmii.progress import QUIET, Quiet, token_written


def scripted() -> ScriptedModel:
    return ScriptedModel(reply=["one", "two", "three"], score=lambda chat, option: float(option in chat[-1]["content"]))


CHATS: list[Chat] = [[{"role": "user", "content": f"a text that is {'good' if i % 3 else 'bad'}"}] for i in range(40)]


def test_every_batch_advances_and_no_answer_changes() -> None:
    progress = Recorder()
    progress.step("Scoring", len(CHATS))
    model = watched(scripted(), progress)
    expected = scripted().choose(CHATS, ["good", "bad"])
    assert [choice.index for choice in model.choose(CHATS, ["good", "bad"])] == [choice.index for choice in expected]
    assert progress.counts == [len(CHATS)]
    assert len(progress.done) == -(-len(CHATS) // ROWS)


def test_samples_of_equal_chats_stay_different() -> None:
    model = watched(scripted(), Recorder())
    drafts = model.generate([CHATS[0]] * 40, Sampling(max_tokens=8, temperature=1.0))
    assert drafts == scripted().generate([CHATS[0]] * 40, Sampling(max_tokens=8, temperature=1.0))


def test_quiet_progress_needs_no_wrapper() -> None:
    model = scripted()
    assert watched(model, QUIET) is model


class TokenReporting:
    """A model whose engine reports every token."""

    def __init__(self) -> None:
        self._model = scripted()
        self.card, self.close, self.count_tokens = self._model.card, self._model.close, self._model.count_tokens
        self.choose = self._model.choose

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        for _ in range(7):
            token_written()
        return self._model.generate(chats, sampling)


def test_the_tokens_of_a_long_text_are_a_step_of_their_own() -> None:
    progress = Recorder()
    progress.step("Writing the instruction")
    watched(TokenReporting(), progress).generate(CHATS[:1], Sampling(max_tokens=100))
    assert (progress.steps, progress.totals, progress.counts) == (
        ["Writing the instruction", "Writing"],
        [None, 100],
        [0, 7],
    )
    watched(scripted(), progress).generate(CHATS[:1], Sampling(max_tokens=100))
    assert progress.counts == [0, 8], "an engine that reports no tokens advances once per answer"
    watched(TokenReporting(), progress).generate(CHATS[:2], Sampling(max_tokens=8))
    assert progress.counts == [0, 10], "labels are counted by row"


def test_the_cost_of_a_written_text_is_reported() -> None:
    progress = Recorder()
    writer = watched(Priced(scripted(), Price(prompt=1e6, completion=0)), progress)
    writer.generate(CHATS[:1], Sampling(max_tokens=100))
    assert progress.money == len(CHATS[0][0]["content"].split())


class OneAtATime(Quiet):
    """A progress that notices overlapping calls."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self.overlapped = False

    def advance(self, amount: int = 1, done: str = "", *, money: float | None = None) -> None:  # noqa: ARG002
        if not self._busy.acquire(blocking=False):
            self.overlapped = True
            return
        time.sleep(0.002)
        self._busy.release()


def test_models_that_share_a_progress_report_in_turn() -> None:
    progress = OneAtATime()
    writer, follower = watched(TokenReporting(), progress), watched(scripted(), progress)
    with ThreadPoolExecutor(3) as pool:
        for model, tokens in ((writer, 100), (writer, 100), (follower, 8)):
            pool.submit(model.generate, CHATS[:1], Sampling(max_tokens=tokens))
    assert not progress.overlapped


class Refusing(Wrapper):
    """A server that begins to refuse every call after `most` answers."""

    def __init__(self, most: int) -> None:
        super().__init__(ScriptedModel(lambda chat, _: chat[-1]["content"]))
        self.most, self.asked = most, 0
        self._lock = threading.Lock()

    @property
    def card(self) -> ModelCard:
        return replace(super().card, batches=False, concurrency=3)

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        with self._lock:
            self.asked += len(chats)
            if self.asked > self.most:
                raise EndpointError("The server refuses the key.", FailureKind.AUTH, lasting=True)
        return super().generate(chats, sampling)


def test_a_cache_keeps_the_answers_of_a_call_in_which_the_server_begins_to_refuse(tmp_path: Path) -> None:
    texts: list[Chat] = [[{"role": "user", "content": f"text {i}"}] for i in range(40)]
    server = Refusing(25)
    with closing(Cached(server, tmp_path)) as model:
        with pytest.raises(EndpointError, match="refuses the key"):
            model.generate(texts, Sampling(8))
        assert server.asked <= 25 + 3
        server.most, server.asked = 100, 0
        assert [answer.text for answer in model.generate(texts, Sampling(8))] == [f"text {i}" for i in range(40)]
        assert server.asked == len(texts) - 25


class Recording(Wrapper):
    """A model that records the number of chats of each call; its first call waits until `release` is set."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(model)
        self.sizes: list[int] = []
        self.release = threading.Event()

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        self.sizes.append(len(chats))
        self.release.wait(10)
        return super().generate(chats, sampling)


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "batched_together"), [(0.0, True), (1.0, False)])
def test_greedy_calls_of_any_seed_share_a_batch(temperature: float, batched_together: bool) -> None:
    model = Recording(scripted())
    batched = for_threads(model)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batched.generate, CHATS[:1], Sampling(8, temperature, seed=9))
        while not model.sizes:
            time.sleep(0.001)
        others = [
            pool.submit(batched.generate, CHATS[seed : seed + 1], Sampling(8, temperature, seed=seed))
            for seed in (1, 2, 3)
        ]
        time.sleep(0.2)
        model.release.set()
        assert all(len(future.result()) == 1 for future in (first, *others))
    assert sum(model.sizes) == 4
    assert (len(model.sizes) < 4) is batched_together
