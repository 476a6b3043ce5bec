"""The spending limit: paid answers are kept, no further calls are made, and a rerun continues."""
# pyright: reportReturnType=false

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.command_line import Done, promptmii
from tests.models.faulty_server import USAGE, FaultyServer, serving

from promptmii import ScriptedModel
from promptmii.errors import EndpointError, SpendingLimitError
from promptmii.instruction import Instruction
from promptmii.models.base import Chat, Completion, Failure, FailureKind, Price, Sampling, Usage
from promptmii.models.cache import Cached
from promptmii.models.spending import Limited, SpendingLimit

PER_CALL = USAGE["prompt_tokens"] + USAGE["completion_tokens"]
"""The cost of one call to the server at a price of a million per million tokens."""
PRICE, PRICE_OPTION = Price(1e6, 1e6), "openai:m=1000000,1000000"


def chat(content: str) -> Chat:
    return [{"role": "user", "content": content}]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_the_limit_is_never_exceeded_and_every_paid_answer_is_kept(
    tmp_path_factory: pytest.TempPathFactory, most: int, sizes: list[int]
) -> None:
    chats = [chat(f"{i} " + "w " * size) for i, size in enumerate(sizes)]
    paid: list[int] = []

    def reply(given_chat: Chat, _: int) -> str:
        paid.append(len(given_chat[0]["content"].split()) + 1)
        return "yes"

    model = ScriptedModel(reply)
    folder = tmp_path_factory.mktemp("answers")
    for limit in (most, 10_000):
        before = sum(paid)
        with closing(Cached(Limited(model, PRICE, SpendingLimit(limit)), folder)) as limited:
            try:
                for messages in chats:
                    limited.generate([messages], Sampling(max_tokens=2))
            except SpendingLimitError:
                assert limit == most
        assert sum(paid) - before <= limit
    assert len(paid) == len(chats)


@pytest.fixture
def instruction(tmp_path: Path) -> Path:
    labels = ("free", "spam")
    instruction = Instruction(text="Say it.", labels=labels, method="mii", follower="openai:m", mode="generate")
    return instruction.save(tmp_path / "instruction.json")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.csv"
    path.write_text("text\n" + "".join(f"text number {i}\n" for i in range(200)))
    return path


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving(FaultyServer(default="say:free")) as started:
        yield started


def predict(instruction: Path, texts: Path, *options: str) -> Done:
    return promptmii("predict", instruction, texts, "--concurrency", "4", *options)


@pytest.mark.slow
@pytest.mark.parametrize("cached", [True, False])
def test_predict_stops_at_the_limit_and_a_rerun_pays_only_for_the_rest(
    instruction: Path, texts: Path, server: FaultyServer, tmp_path: Path, cached: bool
) -> None:
    model = ["--follower", "openai:m", "--base-url", server.url, "--price", PRICE_OPTION]
    model += ["--cache", str(tmp_path / "kept")] * cached
    output = ("-o", str(tmp_path / "out.csv"))
    stopped = predict(instruction, texts, *model, *output, "--max-cost", "1200")
    assert stopped.exit_code == 4
    assert "Stopped at --max-cost 1200" in stopped.stderr
    assert cached or (tmp_path / "out.csv").read_text().count("free") == len(server.bodies)
    assert 30 < len(server.bodies) <= 1200 / PER_CALL
    done = predict(instruction, texts, *model, *output, "--max-cost", "9000")
    assert done.exit_code == 0, done.stderr
    assert len(server.bodies) == 200
    assert (tmp_path / "out.csv").read_text().count("free") == 200


@pytest.mark.slow
def test_evaluate_stops_at_the_limit_and_a_rerun_continues(server: FaultyServer, tmp_path: Path) -> None:
    rows = [{"text": f"text number {i}", "label": ("free", "spam")[i % 2]} for i in range(160)]
    (tmp_path / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["evaluate", "--tasks", str(tmp_path / "task.jsonl"), "--methods", "naive,icl", "--n", "4"]
    command += [
        "--seeds",
        "1",
        "--mode",
        "generate",
        "--eval",
        "60",
        "--follower",
        "openai:m",
        "--base-url",
        server.url,
    ]
    command += ["--price", PRICE_OPTION, "-o", str(tmp_path / "run"), "--json"]
    stopped = promptmii(*command, "--max-cost", "700")
    assert stopped.exit_code == 4, stopped.output
    assert "Stopped at --max-cost" in stopped.stderr
    first = len(server.bodies)
    assert 0 < first < 120
    done = promptmii(*command, "--max-cost", "9000")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["done"] == 2
    assert len(server.bodies) == 120


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--cache", "kept"], "needs the price of openai:m"),
        (["--price", PRICE_OPTION], "needs -o FILE or --cache FOLDER"),
        (["--cache", "kept", "--price", "openai:other=1,1"], "needs the price of openai:m"),
    ],
)
def test_a_limit_that_cannot_be_enforced_is_refused_before_any_call(
    instruction: Path, texts: Path, server: FaultyServer, tmp_path: Path, options: list[str], reason: str
) -> None:
    options = [str(tmp_path / "kept") if option == "kept" else option for option in options]
    model = ("--follower", "openai:m", "--base-url", server.url, "--max-cost", "5")
    refused = predict(instruction, texts, *model, *options)
    assert refused.exit_code == 2
    assert reason in refused.stderr
    assert len(server.bodies) == 0


@pytest.mark.slow
def test_a_server_that_reports_no_usage_ends_a_run_with_a_limit(instruction: Path, texts: Path, tmp_path: Path) -> None:
    body = {"choices": [{"message": {"role": "assistant", "content": "free"}, "finish_reason": "stop"}]}

    class Silent(FaultyServer):
        def _completion(self, step: str, body_: object) -> dict[str, object]:
            del step, body_
            return body

    with serving(Silent()) as server:
        model = ("--follower", "openai:m", "--base-url", server.url, "--price", PRICE_OPTION)
        stopped = predict(instruction, texts, *model, "--cache", str(tmp_path / "kept"), "--max-cost", "100000")
        assert stopped.exit_code == 4, stopped.stderr
        assert "does not report the tokens" in stopped.stderr
        assert len(server.bodies) <= 12  # three active batches of four
        assert predict(instruction, texts, *model).exit_code == 0


def test_the_limit_covers_all_samples_of_one_call() -> None:
    model = Limited(ScriptedModel(["a"]), PRICE, SpendingLimit(100.0))
    assert isinstance(model.generate([chat("word")], Sampling(max_tokens=2))[0], Completion)
    with pytest.raises(SpendingLimitError, match="Answers in a cache or an output file are kept"):
        model.generate([chat("word")] * 5, Sampling(max_tokens=2))


def test_a_failure_without_usage_is_charged_its_reservation_and_does_not_end_the_run() -> None:
    withheld = Failure(FailureKind.REQUEST, "a content filter withheld the answer", Usage(1, None, None))
    model = Limited(
        ScriptedModel(lambda messages, _: withheld if messages == chat("bad") else "a"), PRICE, SpendingLimit(160)
    )
    assert model.generate([chat("bad")], Sampling(max_tokens=2)) == [withheld]
    assert isinstance(model.generate([chat("word")], Sampling(max_tokens=2))[0], Completion)
    model.generate([chat("bad")], Sampling(max_tokens=2))
    with pytest.raises(SpendingLimitError, match="Stopped at --max-cost 160"):
        model.generate([chat("bad")], Sampling(max_tokens=2))


@pytest.mark.parametrize(("chats", "spent"), [(1, "0.000000"), (2, "140.000000")])
def test_a_refused_call_is_charged_if_some_of_its_chats_may_have_been_answered(chats: int, spent: str) -> None:
    def refuse(_chat: Chat, _number: int) -> str:
        raise EndpointError("The server refuses the key.", FailureKind.AUTH, lasting=True)

    limit = SpendingLimit(150.0)
    with pytest.raises(EndpointError):
        Limited(ScriptedModel(refuse), PRICE, limit).generate([chat("word")] * chats, Sampling(max_tokens=2))
    with pytest.raises(SpendingLimitError, match=f"{spent} was spent"):
        Limited(ScriptedModel(["a"]), PRICE, limit).generate([chat("word")] * 5, Sampling(max_tokens=2))


def test_the_limit_covers_the_longest_answer_that_a_choice_allows() -> None:
    """A server that answers in JSON writes more than the label."""
    model = Limited(ScriptedModel(score=lambda _chat, _option: 0.0), Price(0.0, 1e6), SpendingLimit(20.0))
    with pytest.raises(SpendingLimitError, match="the next call may cost"):
        model.choose([chat("word")], ["ham", "spam"])
