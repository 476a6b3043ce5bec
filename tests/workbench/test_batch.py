"""Labelling through the Batch API of a test server."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.command_line import Done, promptmii
from tests.models.batch_server import BatchServer
from tests.models.faulty_server import FaultyServer, serving

from promptmii import Instruction
from promptmii.workbench.growing_table import run_folder

TEXTS = [f"where is my parcel number {i}, please" for i in range(30)]


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with serving(BatchServer(honours="schema")) as started:
        yield started


@pytest.fixture
def made(tmp_path: Path) -> Path:
    labels = ("delivery", "refund", "login")
    Instruction(text="", labels=labels, method="naive", mode="generate").save(tmp_path / "made.json")
    (tmp_path / "new.txt").write_text("".join(text + "\n" for text in [*TEXTS, TEXTS[0], ""]) + "\n")
    return tmp_path / "made.json"


def predict(made: Path, server: FaultyServer, *options: str) -> Done:
    output = made.with_name("out.csv")
    common = ["--follower", "openai:m", "--base-url", server.url, "-o", str(output), "--price", "1,1"]
    return promptmii("predict", made, made.with_name("new.txt"), *common, *options)


def labels(made: Path) -> list[str]:
    with made.with_name("out.csv").open(newline="") as file:
        return [row["predicted_label"] for row in csv.DictReader(file)]


@pytest.mark.slow
def test_one_command_submits_waits_and_collects_at_half_the_price(made: Path, server: BatchServer) -> None:
    submitted = predict(made, server, "--batch-api")
    assert submitted.exit_code == 5, submitted.output
    assert "30 requests submitted, for " in submitted.stderr  # equal texts are one request
    direct = len(server.bodies)
    assert direct == 1  # the request that finds out which parameters the server supports
    waiting = predict(made, server, "--batch-api")
    assert waiting.exit_code == 5
    assert "30 requests under way, 0 done" in waiting.stderr
    server.complete("batch_1")
    done = predict(made, server, "--batch-api", "--json")
    assert done.exit_code == 0, done.output
    assert (server.uploads, len(server.batches)) == (1, 1)
    batched = made.with_name("out.csv").read_bytes()
    cost = json.loads(done.stdout)["cost"]["money"]
    assert not run_folder(made.with_name("out.csv")).exists()
    server.bodies.clear()
    again = predict(made, server, "--force", "--json")
    assert again.exit_code == 0
    assert made.with_name("out.csv").read_bytes() == batched
    assert json.loads(again.stdout)["cost"]["money"] == pytest.approx(2 * cost)
    sent = {json.dumps(body) for body in server.bodies}
    assert {json.dumps(request["body"]) for request in server.requests_of("batch_1")} == sent
    lines = server.files["file-1"].splitlines()
    assert all(any(f'"body": {body}}}' in line for body in sent) for line in lines)  # byte for byte


@pytest.mark.slow
def test_failed_and_expired_requests_are_submitted_again(made: Path, server: BatchServer) -> None:
    assert predict(made, server, "--batch-api").exit_code == 5
    server.complete("batch_1", limit=20, fail=("number 3,",))
    failed = predict(made, server, "--batch-api")
    assert failed.exit_code == 4
    assert "11 failed" in failed.stderr
    with made.with_name("out.csv").open(newline="") as file:
        failures = [row["failure"] for row in csv.DictReader(file)]
    assert (failures.count("unanswered"), failures.count("server")) == (10, 1)
    again = predict(made, server, "--batch-api")
    assert again.exit_code == 5
    assert "11 requests submitted" in again.stderr
    server.complete("batch_2")
    done = predict(made, server, "--batch-api")
    assert done.exit_code == 0, done.output
    batched = labels(made)
    assert predict(made, server, "--force").exit_code == 0
    assert labels(made) == batched
    assert batched.count("") == 2  # the empty lines


@pytest.mark.slow
def test_a_batch_whose_creation_went_unanswered_is_not_paid_twice(made: Path, server: BatchServer) -> None:
    server.lose_next_answer = True
    first = predict(made, server, "--batch-api")
    assert first.exit_code == 5, first.output
    assert (len(server.batches), server.uploads) == (1, 1)
    server.complete("batch_1")
    assert predict(made, server, "--batch-api").exit_code == 0


def test_a_refused_batch_is_reported_and_can_be_submitted_again(made: Path, server: BatchServer) -> None:
    predict(made, server, "--batch-api")
    server.refuse("batch_1", "Enqueued token limit reached")
    refused = predict(made, server, "--batch-api")
    assert refused.exit_code == 3
    assert "Enqueued token limit reached" in refused.stderr
    assert predict(made, server, "--batch-api").exit_code == 5
    assert len(server.batches) == 2


@pytest.mark.slow
def test_choose_mode_works_in_batches(made: Path, server: BatchServer) -> None:
    Instruction.load(made).model_copy(update={"mode": "choose"}).save(made, force=True)
    assert predict(made, server, "--batch-api").exit_code == 5
    server.complete("batch_1")
    assert predict(made, server, "--batch-api").exit_code == 0
    batched = labels(made)
    assert predict(made, server, "--force").exit_code == 0
    assert labels(made) == batched


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--max-cost", "0.0001"], 4, "more than --max-cost 0.0001. Nothing was submitted"),
        (["--base-url", "http://127.0.0.1:1/v1,http://127.0.0.1:2/v1"], 2, "uses one server"),
        (["--follower", "smol"], 2, "needs an openai: model"),
    ],
)
def test_invalid_batches_are_refused_before_submission(
    made: Path, server: BatchServer, options: list[str], code: int, message: str
) -> None:
    refused = predict(made, server, "--batch-api", *options)
    assert refused.exit_code == code
    assert message in refused.stderr
    assert not server.batches


def test_a_server_without_the_api_is_refused(made: Path) -> None:
    with serving(FaultyServer(default="say:delivery")) as faulty:
        refused = predict(made, faulty, "--batch-api")
        assert refused.exit_code == 3
        assert "There is no Batch API" in refused.stderr
