"""The answer cache: which answers it stores, and which requests have the same key."""
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.faulty_server import FaultyServer, serving

from promptmii import ScriptedModel
from promptmii.errors import OutputError
from promptmii.models.base import Chat, Completion, Failure, FailureKind, Sampling, Usage
from promptmii.models.cache import Cached
from promptmii.models.http.client import HttpModel
from promptmii.models.http.config import HttpConfig
from promptmii.task import content_key

GREEDY = Sampling(max_tokens=5)
SAMPLED = Sampling(max_tokens=5, temperature=1.0, seed=7)
DOWN = Failure(FailureKind.SERVER, "down", Usage(calls=1, prompt_tokens=2))


def chat(content: str) -> Chat:
    return [{"role": "user", "content": content}]


def echo(messages: Chat, _: int) -> str:
    return content_key(list(messages))


def numbered(_: Chat, i: int) -> str:
    return f"draft {i}"


def likes(messages: Chat, option: str) -> float:
    return int(content_key([*messages, option])[:6], 16) / 1e3


def failing_once(answer: str | float) -> Callable[[Chat, int | str], str | float | Failure]:
    """The first call fails."""
    calls: list[Chat] = []

    def script(messages: Chat, _: int | str) -> str | float | Failure:
        calls.append(messages)
        return DOWN if len(calls) == 1 else answer

    return script


@pytest.fixture
def remember(tmp_path: Path) -> Iterator[Callable[..., Cached]]:
    """Opens caches on one file, and closes them."""
    opened: list[Cached] = []

    def open_cache(model: ScriptedModel | HttpModel) -> Cached:
        opened.append(Cached(model, tmp_path / "cache"))
        return opened[-1]

    yield open_cache
    for cached in opened:
        cached.close()


def texts(answers: Sequence[Completion | Failure]) -> list[str | None]:
    return [answer.text if isinstance(answer, Completion) else None for answer in answers]


class TestCached:
    def test_an_answer_is_requested_once(self, remember) -> None:
        model = ScriptedModel(echo, likes)
        cached = remember(model)
        first, chosen = cached.generate([chat("a"), chat("b")], GREEDY), cached.choose([chat("a")], ["x", "y"])
        for again in (cached, remember(model)):
            assert texts(again.generate([chat("b"), chat("a")], GREEDY)) == texts(first)[::-1]
            (choice,) = again.choose([chat("a")], ["x", "y"])
            assert (choice.index, choice.scores) == (chosen[0].index, chosen[0].scores)
        assert len(model.calls) == 3

    def test_a_cached_answer_has_the_usage_of_the_original_call(self, remember) -> None:
        cached = remember(ScriptedModel(echo, likes))
        for call in (
            lambda: cached.generate([chat("one two")], GREEDY),
            lambda: cached.choose([chat("one two")], ["x", "y"]),
        ):
            ((original,), (repeated,)) = call(), call()
            assert repeated.usage == original.usage
            assert original.usage.calls == 1

    def test_failures_are_not_cached(self, remember) -> None:
        model = ScriptedModel(failing_once("fine"), failing_once(1.0))
        cached = remember(model)
        answers = [cached.generate([chat("a")], GREEDY)[0] for _ in range(3)]
        choices = [cached.choose([chat("a")], ["x", "y"])[0] for _ in range(3)]
        assert answers[0] == choices[0] == DOWN
        assert texts(answers[1:]) == ["fine", "fine"]
        assert [choice.scores for choice in choices[1:]] == [(1.0, 1.0)] * 2
        assert len(model.calls) == 4

    def test_a_truncated_answer_is_not_cached(self, remember) -> None:
        model = ScriptedModel(["one two three four five six", "whole"])
        cached = remember(model)
        for _ in range(2):
            assert [answer.truncated for answer in cached.generate([chat("a"), chat("b")], GREEDY)] == [True, False]
        assert model.calls == [chat("a"), chat("b"), chat("a")]

    def test_a_truncated_sample_is_cached_so_that_a_search_continues_from_it(self, remember) -> None:
        drawn = count()
        model = ScriptedModel(lambda _, i: f"draft {next(drawn)}" + " and so on" * i)
        drafts = remember(model).generate([chat("a")] * 3, SAMPLED)
        assert [answer.truncated for answer in drafts] == [False, False, True]
        assert remember(model).generate([chat("a")] * 3, SAMPLED) == drafts

    def test_a_damaged_answer_is_requested_again(self, remember, tmp_path: Path) -> None:
        model = ScriptedModel(echo)
        first = texts(remember(model).generate([chat("a"), chat("b")], GREEDY))
        with closing(sqlite3.connect(tmp_path / "cache" / "answers.sqlite")) as db:
            db.execute("UPDATE answers SET answer = '{\"text\": 1' WHERE rowid = 1")
            db.commit()
        assert texts(remember(model).generate([chat("a"), chat("b")], GREEDY)) == first
        assert len(model.calls) == 3

    def test_equal_questions_of_one_batch_are_asked_once(self, remember) -> None:
        asked: list[Chat] = []

        def script(messages: Chat, _: int | str) -> str:
            asked.append(messages)
            return echo(messages, 0)

        cached = remember(ScriptedModel(script))
        chats = [chat("b"), chat("a"), chat("b"), chat("b")]
        assert texts(cached.generate(chats, GREEDY)) == [echo(messages, 0) for messages in chats]
        assert asked == [chat("b"), chat("a")]

    def test_only_missing_answers_are_requested_again(self, remember) -> None:
        model = ScriptedModel(lambda messages, _: DOWN if messages == chat("b") else "fine")
        cached = remember(model)
        for _ in range(2):
            assert texts(cached.generate([chat("a"), chat("b"), chat("c")], GREEDY)) == ["fine", None, "fine"]
        assert model.calls == [chat("a"), chat("b"), chat("c"), chat("b")]

    @pytest.mark.parametrize(
        "change",
        [{"max_tokens": 6}, {"temperature": 0.5}, {"top_p": 0.5}, {"seed": 8}],
        ids=lambda change: next(iter(change)),
    )
    def test_every_sampling_parameter_is_part_of_the_key(self, remember, change: dict[str, float]) -> None:
        model = ScriptedModel(echo)
        cached = remember(model)
        for sampling in (SAMPLED, SAMPLED._replace(**change), SAMPLED):
            cached.generate([chat("a")], sampling)
        assert len(model.calls) == 2

    @pytest.mark.parametrize("options", [["x", "z"], ["y", "x"], ["x", "y", "z"], ["x y", "z"]])
    def test_the_options_and_their_order_are_part_of_the_key(self, remember, options: list[str]) -> None:
        model = ScriptedModel(score=likes)
        cached = remember(model)
        for given_options in (["x", "y"], options):
            (choice,) = cached.choose([chat("a")], given_options)
            assert choice.scores == tuple(likes(chat("a"), option) for option in given_options)
        assert len(model.calls) == 2

    @pytest.mark.parametrize(
        "other",
        [chat("b"), [{"role": "system", "content": "a"}], [*chat("a"), *chat("a")], []],
        ids=["content", "role", "longer", "empty"],
    )
    def test_the_whole_chat_is_part_of_the_key(self, remember, other: Chat) -> None:
        cached = remember(ScriptedModel(echo))
        assert texts(cached.generate([chat("a")], GREEDY)) != texts(cached.generate([other], GREEDY))

    def test_the_model_is_part_of_the_key(self, remember) -> None:
        for name in ("first", "second"):
            assert texts(remember(ScriptedModel([name], name=name)).generate([chat("a")], GREEDY)) == [name]

    def test_the_endpoint_is_part_of_the_key(self, remember) -> None:
        for answer in ("from the first", "from the second"):
            with (
                serving(FaultyServer(default=f"say:{answer}")) as server,
                HttpModel("m", HttpConfig(server.url, "key")) as model,
            ):
                assert texts(remember(model).generate([chat("a")], GREEDY)) == [answer]

    def test_k_samples_of_one_chat_remain_k_samples(self, remember) -> None:
        model = ScriptedModel(numbered)
        cached = remember(model)
        for k, calls in ((3, 3), (3, 3), (2, 3), (5, 8), (5, 8)):
            assert texts(cached.generate([chat("a")] * k, SAMPLED)) == [f"draft {i}" for i in range(k)]
            assert len(model.calls) == calls

    @settings(max_examples=15, deadline=None)
    @given(batches=st.lists(st.lists(st.text(max_size=3), max_size=5), max_size=4))
    def test_a_cache_changes_no_answer(
        self, tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]]
    ) -> None:
        model = ScriptedModel(echo, likes)
        cached = Cached(model, tmp_path_factory.mktemp("cache"))
        for contents in batches:
            chats = [chat(content) for content in contents]
            assert texts(cached.generate(chats, GREEDY)) == texts(model.generate(chats, GREEDY))
            assert [c.scores for c in cached.choose(chats, ["x", "y"])] == [
                c.scores for c in model.choose(chats, ["x", "y"])
            ]
        cached.close()

    def test_threads_share_a_cache(self, remember) -> None:
        cached = remember(ScriptedModel(echo))
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda i: cached.generate([chat(str(i % 10))], GREEDY)[0], range(60)))
        assert texts(answers) == [echo(chat(str(i % 10)), 0) for i in range(60)]

    def test_threads_request_an_equal_question_once(self, remember) -> None:
        model = ScriptedModel(score=likes)
        cached = remember(model)
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _: cached.choose([chat("a")], ["x", "y"]), range(30)))
        assert len(model.calls) == 1


ASK = """
import sys
from pathlib import Path
from promptmii.models import ScriptedModel
from promptmii.models.base import Sampling
from promptmii.models.cache import Cached
print("ready", flush=True)
sys.stdin.readline()
cached = Cached(ScriptedModel(lambda chat, _: "about " + chat[0]["content"]), Path(sys.argv[1]))
for i in range(60):
    (answer,) = cached.generate([[{"role": "user", "content": str(i)}]], Sampling(5))
    assert answer.text == f"about {i}"
cached.close()
"""


@pytest.mark.slow
def test_two_processes_share_one_file_at_once(tmp_path: Path, remember) -> None:
    command = [sys.executable, "-W", "error", "-c", ASK, str(tmp_path / "cache")]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    unused = ScriptedModel([DOWN])
    answers = remember(unused).generate([chat(str(i)) for i in range(60)], GREEDY)
    assert texts(answers) == [f"about {i}" for i in range(60)]
    assert unused.calls == []


COUNT = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print(db.execute("SELECT count(*) FROM answers").fetchone()[0])
db.close()
"""


def test_a_process_that_has_the_file_open_twice_keeps_its_locks(tmp_path: Path) -> None:
    """Otherwise the first reader to close deletes the journal, and later answers are in no file."""
    counts: list[int] = []
    with closing(Cached(ScriptedModel(echo), tmp_path)) as cached, closing(Cached(ScriptedModel(echo), tmp_path)):
        for content in ("before", "after"):
            cached.generate([chat(content)], GREEDY)
            reader = [sys.executable, "-c", COUNT, str(tmp_path / "answers.sqlite")]
            counts.append(int(subprocess.run(reader, check=True, capture_output=True, timeout=60).stdout))
    assert counts == [1, 2]


class TestBrokenCache:
    def test_the_error_for_an_invalid_file_names_the_file_and_a_remedy(self, tmp_path: Path) -> None:
        (tmp_path / "answers.sqlite").write_bytes(b"this is no database " * 100)
        with pytest.raises(OutputError, match=r"answers\.sqlite cannot be used.*Delete the file"):
            Cached(ScriptedModel(), tmp_path).generate([chat("a")], GREEDY)

    def test_a_file_in_place_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file")
        with pytest.raises(OutputError, match="--cache"):
            Cached(ScriptedModel(), tmp_path / "cache").open()

    def test_damage_after_the_header_is_reported_when_it_is_read(self, tmp_path: Path) -> None:
        chats = [chat(str(i)) for i in range(200)]
        cached = Cached(ScriptedModel(echo), tmp_path)
        cached.generate(chats, GREEDY)
        cached.close()
        path = tmp_path / "answers.sqlite"
        whole = path.read_bytes()
        path.write_bytes(whole[:8192] + b"\xa5" * (len(whole) - 8192))
        damaged = Cached(ScriptedModel(echo), tmp_path)
        with pytest.raises(OutputError, match=r"answers\.sqlite cannot be used.*Delete the file"):
            damaged.generate(chats, GREEDY)
        damaged.close()
