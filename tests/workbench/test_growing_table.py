"""Labelling into a file: its content after interruptions, and the requests of a rerun."""

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.evaluation.labelling_server import LabellingServer
from tests.models.faulty_server import FaultyServer, Reply, completion, serving
from tests.recorder import Recorder
from tests.workbench.keyword import keyword

from promptmii import Follower, Instruction, Naive, ScriptedModel, Support, workbench
from promptmii.config import Endpoint
from promptmii.errors import ConfigError, DataError, EndpointError, OutputError
from promptmii.models.base import Chat, Choice, Failure, FailureKind
from promptmii.workbench.growing_table import run_folder

INSTRUCTION = Naive().induce(Support(("delivery", "refund"), ()))
TEXTS = [f"a {('refund', 'delivery')[i % 2]} of {i}" for i in range(60)]


class Dying(ScriptedModel):
    """A model that is interrupted after a number of texts."""

    def __init__(self, texts: int) -> None:
        super().__init__(score=keyword)
        self._texts = texts

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        if len(self.calls) + len(chats) > self._texts:
            raise KeyboardInterrupt
        return super().choose(chats, options)


def run(source: Any, output: Path, model: ScriptedModel | None = None, **options: Any) -> workbench.Labelled:
    follower = Follower(model or ScriptedModel(score=keyword))
    return workbench.predict(INSTRUCTION, source, follower, output=output, **options)


def requested(model: ScriptedModel) -> list[str]:
    return [json.loads(chat[0]["content"].rpartition("Input: ")[2]) for chat in model.calls]


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """The output of an undisturbed run."""
    run(TEXTS, tmp_path / "whole.csv")
    assert not run_folder(tmp_path / "whole.csv").exists()
    return (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_an_interrupted_run_resumes_and_repeats_no_request(tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"out.{ending}"
    first = Dying(20)
    with pytest.raises(KeyboardInterrupt):
        run(TEXTS, output, first)
    second = ScriptedModel(score=keyword)
    done = run(TEXTS, output, second)
    assert requested(first) + requested(second) == TEXTS
    assert (done.tally.rows, done.n_labelled, done.cost.calls) == (60, 60, 60 - len(first.calls))
    run(TEXTS, tmp_path / f"whole.{ending}")
    assert output.read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"out.{ending}", f"whole.{ending}"]


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), texts=st.lists(st.text(st.sampled_from('a \n\r",;\u2028é')), min_size=16, max_size=20))
def test_a_rerun_completes_a_file_cut_at_any_byte(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    rows = [{"id": i, "text": f"{text} refund" * bool(text)} for i, text in enumerate([*texts, "last"])]
    ending = data.draw(st.sampled_from(["csv", "jsonl"]))
    output = folder / f"out.{ending}"
    run(rows, folder / f"whole.{ending}")
    whole = (folder / f"whole.{ending}").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(rows, output, Dying(sum(map(bool, texts[:16]))))
    head = whole.index(b"\n") + 1 if ending == "csv" else 0
    output.write_bytes(whole[: data.draw(st.integers(head, len(whole)))])
    run(rows, output)
    assert output.read_bytes() == whole


def failing(texts: Sequence[str], kind: FailureKind = FailureKind.BAD_ANSWER) -> ScriptedModel:
    def score(chat: Chat, option: str) -> float | Failure:
        text = json.loads(chat[0]["content"].rpartition("Input: ")[2])
        return Failure(kind, "no") if text in texts else keyword(chat, option)

    return ScriptedModel(score=score)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_failed_rows_are_retried_and_replaced(tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"out.{ending}"
    first = run(TEXTS, output, failing([TEXTS[3], TEXTS[17], TEXTS[59]]))
    assert (first.n_failed, first.n_labelled, first.tally.rows) == (3, 57, 60)
    assert output.exists()
    again = failing([TEXTS[17]])
    second = run(TEXTS, output, again)
    assert requested(again) == [TEXTS[3], TEXTS[17], TEXTS[59]]
    assert (second.n_failed, second.n_labelled, second.tally.rows) == (1, 59, 60)
    last = ScriptedModel(score=keyword)
    assert run(TEXTS, output, last).n_failed == 0
    assert requested(last) == [TEXTS[17]]
    run(TEXTS, tmp_path / f"whole.{ending}")
    assert output.read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()


def test_a_csv_file_has_the_delimiter_and_byte_order_mark_of_the_input(tmp_path: Path) -> None:
    source, output = tmp_path / "new.csv", tmp_path / "out.csv"
    rows = "".join(f"{i};{text}, Zoë\n" for i, text in enumerate(TEXTS))
    source.write_text(f"id;text\n{rows}", encoding="utf-8-sig")
    with pytest.raises(KeyboardInterrupt):
        run(source, output, Dying(20))
    source.write_text("id,text\n" + re.sub(";(.*)", r',"\1"', rows), encoding="utf-8")
    with pytest.raises(OutputError, match="started with another delimiter"):
        run(source, output)
    source.write_text(f"id;text\n{rows}", encoding="utf-8-sig")
    assert run(source, output).n_labelled == 60
    lines = output.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("\ufeffid;text;predicted_label;")
    assert lines[60].startswith("59;a delivery of 59, Zoë;delivery;")
    run(source, tmp_path / "out.tsv")
    assert (tmp_path / "out.tsv").read_text().startswith("id\ttext\t")


def test_only_the_same_run_resumes_a_file(tmp_path: Path, whole: bytes) -> None:
    output = tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt):
        run(TEXTS, output, Dying(20))
    with pytest.raises(OutputError, match="started with another input"):
        run(TEXTS[:-1], output)
    with pytest.raises(OutputError, match="started with another follower"):
        run(TEXTS, output, ScriptedModel(score=keyword, name="other"))
    with pytest.raises(OutputError, match="started with another threshold"):
        run(TEXTS, output, abstain=workbench.Abstain(0.5))
    other = INSTRUCTION.model_copy(update={"text": "Be kind."})
    with pytest.raises(OutputError, match="started with another instruction"):
        workbench.predict(other, TEXTS, Follower(ScriptedModel(score=keyword)), output=output)
    damaged = output.read_bytes().replace(b"\n", b",\n", 3)
    kept = output.read_bytes()
    output.write_bytes(damaged)
    with pytest.raises(OutputError, match="was changed during the run"):
        run(TEXTS, output)
    output.write_bytes(kept)
    run(TEXTS, output, force=True)
    assert output.read_bytes() == whole
    with pytest.raises(OutputError, match="exists already"):
        run(TEXTS, output)


def test_a_file_with_an_unbalanced_quote_is_not_truncated(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt):
        run(TEXTS, output, Dying(20))
    edited = output.read_bytes().replace(b"a delivery of 1,", b'"a delivery of 1,')
    output.write_bytes(edited)
    with pytest.raises(OutputError, match="is a quote missing"):
        run(TEXTS, output)
    assert output.read_bytes() == edited


def test_a_file_that_was_emptied_is_not_continued(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt):
        run(TEXTS, output, Dying(30))
    output.write_bytes(b"")
    with pytest.raises(OutputError, match="its header is gone"):
        run(TEXTS, output)
    assert output.read_bytes() == b""


@pytest.mark.parametrize("name", ["run.json", "threshold.json"])
def test_a_damaged_note_of_an_unfinished_run_is_named(tmp_path: Path, name: str) -> None:
    output = tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt):
        run(TEXTS, output, Dying(40))
    (run_folder(output) / name).write_bytes(b"\0\0\n")  # what a power cut may leave
    with pytest.raises(OutputError, match=rf"{name}, a note of the unfinished run, is damaged"):
        run(TEXTS, output)
    run(TEXTS, output, force=True)


@pytest.mark.parametrize(
    "damaged", ["\0\0", "[21]", '["21", ""]', '[-1, ""]', '[21, "a refund"]', '[21, "\\"a"]', "[21"]
)
def test_a_damaged_line_among_answers_ahead_of_their_turn_costs_only_its_own_row(
    tmp_path: Path, whole: bytes, damaged: str
) -> None:
    output = tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt):
        run(TEXTS, output, Dying(20))
    records = whole.decode().splitlines(keepends=True)[1:]
    answers = [json.dumps([position, records[position]]) for position in (20, 22)]
    (run_folder(output) / "ahead.jsonl").write_text("\n".join([answers[0], damaged, answers[1], ""]))
    rest = ScriptedModel(score=keyword)
    run(TEXTS, output, rest)
    assert requested(rest) == [*TEXTS[16:20], TEXTS[21], *TEXTS[23:]]
    assert output.read_bytes() == whole


def test_a_damaged_line_among_retried_answers_costs_only_its_own_row(tmp_path: Path, whole: bytes) -> None:
    output = tmp_path / "out.csv"
    run(TEXTS, output, failing([TEXTS[3], TEXTS[17]]))
    answer = json.dumps([17, whole.decode().splitlines(keepends=True)[18]])
    (run_folder(output) / "again.jsonl").write_text(f'\0\0\n[3, "a ref\n{answer}\n[3')
    rest = ScriptedModel(score=keyword)
    run(TEXTS, output, rest)
    assert requested(rest) == [TEXTS[3]]
    assert output.read_bytes() == whole


def test_the_input_is_not_overwritten(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("text,label\n" + "".join(f"{text},refund\n" for text in TEXTS))
    for source, held_back in ((table, None), (TEXTS, str(table))):
        wanted = workbench.Abstain(precision=0.1 if held_back else None, held_back=held_back)
        with pytest.raises(OutputError, match="is the input and cannot be the output"):
            run(source, table, force=True, abstain=wanted)
    assert table.read_text().count("\n") == 61


def test_a_run_without_answers_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(TEXTS, tmp_path / "out.csv", Dying(0))
    assert not list(tmp_path.iterdir())


def test_what_an_ended_run_left_behind_neither_replaces_its_file_nor_sets_the_next_threshold(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    run(TEXTS[:2], output)
    left = run_folder(output)
    left.mkdir()
    (left / "threshold.json").write_text('{"value": 0.999, "chosen": null}')
    finished = output.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        run(TEXTS[2:4], output)
    assert output.read_bytes() == finished
    output.unlink()
    assert run(TEXTS[2:4], output).threshold is None


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    class Second(ScriptedModel):
        def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
            with pytest.raises(OutputError, match="Another process is writing"):
                run(TEXTS, tmp_path / "out.csv", force=self.calls != [])
            return super().choose(chats, options)

    assert run(TEXTS, tmp_path / "out.csv", Second(score=keyword)).n_labelled == 60


@pytest.mark.parametrize("ending", ["json", "xlsx", "csv.gz", "xls", "txt"])
def test_formats_that_cannot_grow_are_refused(tmp_path: Path, ending: str) -> None:
    with pytest.raises(ConfigError, match=r"expected one of \.csv"):
        run(TEXTS, tmp_path / f"out.{ending}")
    assert not list(tmp_path.iterdir())


def test_parquet_keeps_the_types_of_the_input(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": TEXTS[:3], "when": pd.to_datetime(["2026-01-01"] * 3), "n": [1, 2, 3]})
    frame.to_parquet(tmp_path / "in.parquet")
    run(tmp_path / "in.parquet", tmp_path / "out.parquet")
    labelled = pd.read_parquet(tmp_path / "out.parquet")
    assert labelled["when"].dt.year.tolist() == [2026] * 3
    assert labelled["n"].tolist() == [1, 2, 3]
    assert labelled["predicted_label"].tolist() == ["refund", "delivery", "refund"]
    for value in ("one", 2**70):
        mixed = [{"text": "a", "x": 1}, {"text": "b", "x": value}]
        with pytest.raises(DataError, match=r"Parquet cannot hold these rows.*Write \.jsonl"):
            run(mixed, tmp_path / "mixed.parquet")


@pytest.mark.slow
def test_a_lost_server_ends_the_run_and_its_answers_are_kept(tmp_path: Path) -> None:
    texts = [f"text number {i}" for i in range(2000)]
    instruction = Instruction(text="", labels=("free", "spam"), method="naive", mode="generate")
    output = tmp_path / "out.csv"
    with serving(FaultyServer(default="say:free")) as server:
        endpoint = Endpoint.of(base_url=server.url, concurrency=8, patience=0.2)
        followers = workbench.Followers("openai:m", endpoint)
        server.plan += ["say:free"] * 300 + ["500"] * 9000
        with pytest.raises(EndpointError, match=r"no longer answers.*run the same command again"):
            workbench.predict(instruction, texts, followers, output=output)
        answered = output.read_text().count(",free,")
        assert 290 <= answered <= 330
        server.plan.clear()
        server.bodies.clear()
        done = workbench.predict(instruction, texts, followers, output=output)
        followers.close()
        assert (done.n_labelled, done.n_failed) == (2000, 0)
        assert 2000 - answered <= len(server.bodies) <= 2000 - answered + 8  # requests in flight may arrive late
    assert [line.partition(",")[0] for line in output.read_text().splitlines()[1:]] == texts


@pytest.mark.slow
def test_a_server_that_answers_no_row_ends_the_run(tmp_path: Path) -> None:
    refused = Reply({"error": {"message": "API version not supported."}}, 400)
    instruction = Instruction(text="", labels=("free", "spam"), method="naive", mode="generate")
    recorder = Recorder()
    with serving(FaultyServer(default=refused)) as server:
        followers = workbench.Followers("openai:m", Endpoint.of(base_url=server.url, concurrency=8), recorder)
        with pytest.raises(EndpointError, match=r"answered none of the first 256 rows .*API version not supported\)"):
            workbench.predict(instruction, ["a text"] * 2000, followers, output=tmp_path / "out.csv")
        followers.close()
        assert len(server.bodies) < 400
    (note,) = recorder.notes  # on the first row that failed, whichever that was
    assert re.fullmatch(r"Row \d+ failed \(request\): HTTP 400: API version not supported\.", note)


def test_each_kind_of_failure_is_reported_once_with_the_message_of_the_server(tmp_path: Path) -> None:
    instruction = Instruction(text="", labels=("free", "spam"), method="naive", mode="generate")
    recorder = Recorder()

    def picky(body: dict[str, Any]) -> Reply | None:
        flagged = "number 7" in body["messages"][-1]["content"]
        return Reply({"error": {"message": "Your input was flagged."}}, 400) if flagged else completion("free")

    with serving(FaultyServer(default=picky)) as server:
        followers = workbench.Followers("openai:m", Endpoint.of(base_url=server.url, concurrency=8), recorder)
        texts = [f"text number {i}" for i in range(80)]
        done = workbench.predict(instruction, texts, followers, output=tmp_path / "out.csv")
        followers.close()
    assert (done.n_labelled, done.n_failed) == (69, 11)
    assert recorder.notes == ["Row 8 failed (request): HTTP 400: Your input was flagged."]


@pytest.mark.parametrize(
    ("status", "message", "cached"),
    [
        (401, "refuses the key", False),
        (403, "refuses the key", False),
        (404, "know the model", False),
        (401, "refuses the key", True),
    ],
)
def test_a_server_that_begins_to_refuse_every_call_ends_the_run_and_paid_answers_are_kept(
    tmp_path: Path, status: int, message: str, cached: bool
) -> None:
    cache = str(tmp_path / "cache") if cached else None
    texts = [f"text number {i}" for i in range(90)]
    instruction = Instruction(text="", labels=("free", "spam"), method="naive", mode="generate")
    output = tmp_path / "out.csv"
    most = 30
    numbers = itertools.count()

    def until_most(_: dict[str, Any]) -> Reply:
        return completion("free") if next(numbers) < most else Reply({"error": {"message": "No."}}, status)

    with serving(FaultyServer(default=until_most)) as server:
        followers = workbench.Followers("openai:m", Endpoint.of(base_url=server.url, concurrency=8, cache=cache))
        with pytest.raises(EndpointError, match=rf"{message}.*are kept; run the same command again to continue"):
            workbench.predict(instruction, texts, followers, output=output)
        assert output.read_text().count(",free,") == most
        assert len(server.bodies) < 70  # those in flight, and a harmless chat
        most = 1000
        done = workbench.predict(instruction, texts, followers, output=output)
        followers.close()
    assert (done.n_labelled, done.n_failed) == (90, 0)


def test_a_row_that_fails_again_gets_the_new_reason(tmp_path: Path) -> None:
    instruction = Instruction(text="", labels=("free", "spam"), method="naive", mode="generate")
    output = tmp_path / "out.csv"
    reply = Reply({"error": {"message": "Your input was flagged."}}, 400)

    def flagged(body: dict[str, Any]) -> Reply:
        return reply if "number 7" in body["messages"][-1]["content"] else completion("free")

    with serving(FaultyServer(default=flagged)) as server:
        followers = workbench.Followers("openai:m", Endpoint.of(base_url=server.url, concurrency=8))
        for reason in ("request", "context"):
            done = workbench.predict(instruction, [f"number {i}" for i in range(9)], followers, output=output)
            assert done.n_failed == 1
            assert output.read_text().splitlines()[8] == f"number 7,,,{reason}"
            reply = Reply({"error": {"message": "The prompt is too long."}}, 400)
        followers.close()


@pytest.fixture
def labelling() -> Iterator[LabellingServer]:
    with serving(LabellingServer()) as started:
        yield started


@pytest.mark.slow
def test_after_a_kill_the_same_command_requests_only_the_rest(tmp_path: Path, labelling: LabellingServer) -> None:
    texts = [f"where is my parcel number {i}" for i in range(1500)]
    (tmp_path / "new.txt").write_text("".join(text + "\n" for text in texts))
    labels = ("delivery", "refund", "login")
    Instruction(text="", labels=labels, method="naive", mode="generate").save(tmp_path / "made.json")
    output = tmp_path / "out.csv"
    command = [sys.executable, "-m", "promptmii", "predict", "made.json", "new.txt", "-o", "out.csv"]
    command += ["--follower", "openai:m", "--base-url", labelling.url, "--concurrency", "8"]

    def lines() -> int:
        return output.read_bytes().count(b"\n") if output.exists() else 0

    kept: list[tuple[int, list[str]]] = []
    for goal in (200, 600):
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
            while lines() < goal and process.poll() is None:
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
        answered = output.read_text().rpartition("\n")[0].splitlines()[1:]
        kept.append((len(labelling.bodies), [line.partition(",")[0] for line in answered]))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1500 rows: " in done.stderr
    assert [line.partition(",")[0] for line in output.read_text().splitlines()[1:]] == texts
    asked_for = [json.loads(b["messages"][0]["content"].rpartition("Input: ")[2]) for b in labelling.bodies]
    assert len(kept[0][1]) >= 200 - 1
    for before, known in kept:
        assert not set(known) & set(asked_for[before:])


class StallingServer(LabellingServer):
    """Keeps the requests that contain "lost" waiting, until `stalls` is false."""

    stalls = True

    async def _answer(self, step: str, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        while self.stalls and "lost" in body["messages"][-1]["content"]:
            await asyncio.sleep(0.01)
        return await super()._answer(step, body, request)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_kill_while_one_row_waits_for_the_server_loses_no_later_answer(tmp_path: Path, ending: str) -> None:
    texts = [f'where is my "parcel",\tnumber {i}' for i in range(120)]
    texts[3] = "my parcel is lost"
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({"text": text, "n": 0.5}) + "\n" for text in texts))
    Instruction(text="", labels=("delivery", "refund"), method="naive", mode="generate").save(tmp_path / "made.json")
    with serving(StallingServer()) as server:
        follower = ["--follower", "openai:m", "--base-url", server.url, "--concurrency", "4"]
        command = [sys.executable, "-m", "promptmii", "predict", "made.json", "new.jsonl", *follower]
        resumed, whole = (tmp_path / f"{name}.{ending}" for name in ("resumed", "whole"))
        stored = run_folder(resumed) / "ahead.jsonl"
        for requests in (120, 121):
            with subprocess.Popen([*command, "-o", resumed.name], cwd=tmp_path, stderr=subprocess.PIPE) as process:
                while len(server.bodies) < requests or stored.read_text().count("\n") < 116:
                    assert process.poll() is None
                    time.sleep(0.01)
                os.kill(process.pid, signal.SIGKILL)
        server.stalls = False
        done = subprocess.run([*command, "-o", resumed.name], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(server.bodies) == 122  # the lost row, three times, and each other row once
        subprocess.run([*command, "-o", whole.name], cwd=tmp_path, capture_output=True, check=True)
    assert resumed.read_bytes() == whole.read_bytes()
    assert not run_folder(resumed).exists()


LABELLED = """
import os, signal, sys
from promptmii import Follower, ScriptedModel, workbench
from tests.workbench.keyword import keyword

log, last = open("asked.txt", "a"), int(sys.argv[1])

def score(chat, option):
    global last
    if option == "delivery":
        log.write(chat[0]["content"].rpartition("Input: ")[2] + "\\n")
        last -= 1
    if not last:
        log.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return keyword(chat, option)

workbench.predict("made.json", "new.csv", Follower(ScriptedModel(score=score)), output=sys.argv[2])
"""


@pytest.mark.slow
def test_a_kill_in_a_large_file_repeats_only_the_requests_in_flight(tmp_path: Path) -> None:
    texts = [f"a {('refund', 'delivery')[i % 2]} of {i}" for i in range(20_000)]
    (tmp_path / "new.csv").write_text("text\n" + "".join(text + "\n" for text in texts))
    INSTRUCTION.save(tmp_path / "made.json")

    def run_until(last: int, output: str) -> tuple[int, list[str]]:
        command = [sys.executable, "-c", LABELLED, str(last), output]
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        own = os.environ | {"PYTHONPATH": path}
        done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
        requests = [json.loads(line) for line in (tmp_path / "asked.txt").read_text().splitlines()]
        (tmp_path / "asked.txt").unlink()
        return done.returncode, requests

    died, first = run_until(9_000, "out.csv")
    kept = (tmp_path / "out.csv").read_text().count("\n") - 1
    assert (died, len(first)) == (-signal.SIGKILL, 9_000)
    assert 0 < kept < 9_000
    ended, rest = run_until(-1, "out.csv")
    assert ended == 0
    assert first == texts[:9_000]
    assert rest == texts[kept:]
    _, whole = run_until(-1, "whole.csv")
    assert whole == texts
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not run_folder(tmp_path / "out.csv").exists()
