"""The doctor, on healthy and faulty servers."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.models.faulty_server import FaultyServer, Reply, error, serving
from tests.recorder import Recorder

from promptmii import load_model
from promptmii.config import Endpoint
from promptmii.doctor import Check, Report, examine
from promptmii.models.embedded import SMOL, embedded_file
from promptmii.models.hf.convert import LAYOUT
from promptmii.models.http.constraints import Dialect


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")


@pytest.fixture
def steps() -> Recorder:
    return Recorder()


def checks_of(server: FaultyServer, steps: Recorder) -> dict[str, Check]:
    report = examine("openai:m", Endpoint(base_url=server.url), steps)
    assert report.reference == "openai:m"
    assert "sk-very-secret" not in repr(report)
    return {check.name: check for check in report.checks}


@pytest.fixture
def dead_url() -> Iterator[str]:
    """The address of a port that is bound but has no listener."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def test_a_server_that_enforces_a_choice_passes_every_check(steps: Recorder) -> None:
    with serving(FaultyServer(honours="vllm")) as server:
        checks = checks_of(server, steps)
    assert list(checks) == ["load", "context", "tokens", "generate", "choose", "likelihoods"]
    assert all(check.ok for check in checks.values())
    assert checks["context"].finding == "4096 tokens"
    assert "an estimate" in checks["tokens"].finding
    assert "'a free answer'" in checks["generate"].finding
    assert "restricted to the labels; no probabilities" in checks["choose"].finding
    assert not any(check.cure for check in checks.values())
    assert steps.steps[0] == "Loading openai:m"
    assert steps.steps[-1] == "Choosing"


def test_a_context_length_that_the_server_does_not_report_is_assumed(steps: Recorder) -> None:
    with serving(FaultyServer(honours="vllm", context=None)) as server:
        context = checks_of(server, steps)["context"]
        check = examine("openai:m", Endpoint(base_url=server.url, context_length=4096), steps).checks[1]
    assert context.ok
    assert "assumed" in context.finding
    assert "--context-length" in context.cure
    assert check.finding == "4096 tokens"


def test_a_server_that_ignores_the_constraint_can_only_generate(steps: Recorder) -> None:
    with serving(FaultyServer()) as server:
        report = examine("openai:m", Endpoint(base_url=server.url), steps)
    (choose,) = [check for check in report.checks if not check.ok]
    assert choose.name == "choose"
    assert "does not restrict answers" in choose.finding
    assert "the last answer: 'a free answer' is not one of the 2 options" in choose.finding
    assert "--mode generate" in choose.cure
    assert report.healthy


@pytest.mark.parametrize("dialect", Dialect)
def test_every_dialect_of_a_constraint_is_detected(steps: Recorder, dialect: str) -> None:
    with serving(FaultyServer(honours=dialect)) as server:
        assert checks_of(server, steps)["choose"].ok


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_fails_on_a_request_for_likelihoods_is_healthy(steps: Recorder, status: int) -> None:
    def strict(body: dict[str, Any]) -> Reply | None:
        return error("no logprobs", status) if "logprobs" in body else None

    with serving(FaultyServer(default=strict, honours="vllm")) as server:
        report = examine(f"openai:m@{server.url}", Endpoint(patience=0.05), steps)
    assert report.healthy
    assert report.checks[-1] == Check("likelihoods", True, "none")


def test_a_dead_server_is_a_failed_check(steps: Recorder, dead_url: str) -> None:
    report = examine("openai:m", Endpoint(base_url=dead_url), steps)
    (load,) = report.checks
    assert (load.name, load.ok, report.healthy) == ("load", False, False)
    assert f"No server answers at {dead_url}" in load.finding


def test_a_refused_key_fails_after_the_checks_that_passed(steps: Recorder) -> None:
    with serving(FaultyServer(default="401")) as server:
        checks = checks_of(server, steps)
    assert list(checks) == ["load", "context", "tokens", "answer"]
    assert not checks["answer"].ok
    assert "OPENAI_API_KEY" in checks["answer"].finding


@pytest.mark.slow
@pytest.mark.parametrize(
    ("default", "finding"), [("say: \n", "an answer without text"), ("context", "context: ")], ids=["empty", "failing"]
)
def test_a_server_that_writes_nothing_is_not_healthy(steps: Recorder, default: str, finding: str) -> None:
    with serving(FaultyServer(default=default)) as server:
        report = examine("openai:m", Endpoint(base_url=server.url), steps)
    (generate,) = [check for check in report.checks if check.name == "generate"]
    assert not generate.ok
    assert finding in generate.finding
    assert generate.cure
    assert not report.healthy


@pytest.mark.parametrize(("context", "ok", "cured"), [(256, False, True), (1024, True, True), (4096, True, False)])
def test_a_short_context_is_reported(steps: Recorder, context: int, ok: bool, cured: bool) -> None:
    with serving(FaultyServer(honours="vllm", context=context)) as server:
        check = checks_of(server, steps)["context"]
    assert (check.ok, bool(check.cure)) == (ok, cured)


def test_an_unknown_reference_is_a_failed_check(steps: Recorder) -> None:
    report = examine("opnai:m", Endpoint(), steps)
    assert "Did you mean 'openai'" in report.checks[0].finding
    assert not report.healthy


def test_a_model_that_only_fails_to_choose_is_healthy() -> None:
    fine, broken = Check("generate", True, ""), Check("choose", False, "")
    assert Report("m", (fine, broken)).healthy
    assert not Report("m", (Check("generate", False, ""), Check("choose", True, ""))).healthy


@pytest.mark.smol
def test_an_embedded_model_is_timed_under_both_engines(steps: Recorder) -> None:
    load_model("hf:smol").close()  # converts the weights
    for reference, other in (("smol", "hf:smol"), ("hf:smol", "smol")):
        speed = {check.name: check for check in examine(reference, Endpoint(), steps).checks}["speed"]
        assert f"{reference} " in speed.finding
        assert f", {other} " in speed.finding
        assert not speed.cure or other in speed.cure


@pytest.mark.smol
def test_a_fault_of_the_other_engine_is_none_of_the_model(
    steps: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = embedded_file("smol")
    monkeypatch.setenv("PROMPTMII_CACHE", str(tmp_path))
    SMOL.path.parent.mkdir(parents=True)
    SMOL.path.symlink_to(file)
    (SMOL.path.parent / f"safetensors-{SMOL.sha256[:12]}-{LAYOUT}").mkdir()  # a damaged conversion
    report = examine("smol", Endpoint(), steps)
    assert report.healthy
    assert "hf:smol cannot be timed" in report.checks[-1].finding
