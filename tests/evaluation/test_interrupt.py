"""Signals at random moments: runs end promptly, and the same command resumes without loss or repeated cost."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.evaluation.labelling_server import LabellingServer
from tests.models.faulty_server import serving
from tests.models.tiny_llama import save_tiny_llama

from promptmii.records import Run

CONCURRENCY = 4
ENDED = {signal.SIGINT: 130, signal.SIGTERM: 143}
PROMPTLY = 3.0
"""Seconds: two, and one for a busy machine."""


class SlowServer(LabellingServer):
    async def _answer(self, step: str, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        return await super()._answer("slow" if step == "ok" else step, body, request)


def command(folder: Path, *options: str) -> list[str]:
    task = folder / "shop.csv"
    rows = [f"the {word} number {i},{label}\n" for i in range(20) for label, word in (("a", "parcel"), ("b", "money"))]
    task.write_text("text,label\n" + "".join(rows))
    grid = ["--tasks", str(task), "--methods", "naive,icl", "-n", "4,8", "--seeds", "4", "--eval", "8"]
    return [sys.executable, "-m", "promptmii", "evaluate", *grid, "-o", str(folder / "run"), "--json", *options]


def end(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send the signal and check that the process ends cleanly."""
    started = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < PROMPTLY
    # A process that was done has ended by itself, or by the signal while Python shut down.
    assert process.returncode in (ENDED[number], -number, 0), errors
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDED)
def test_a_grid_with_a_server_resumes_after_signals(number: signal.Signals, tmp_path: Path) -> None:
    moments = random.Random(number)
    with serving(SlowServer()) as server:
        models = ["--generator", "openai:m", "--follower", "openai:m", "--base-url", server.url, "--mode", "generate"]
        run = command(tmp_path, *models, "--workers", "4", "--concurrency", str(CONCURRENCY))
        for _ in range(5):
            process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            before = len(server.bodies)
            while len(server.bodies) == before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.6))
            end(process, number)
        subprocess.run(run, check=True, capture_output=True)
        keys = [json.loads(line)["key"] for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
        assert len(keys) == len(set(keys)) == 1 + 8
        assert not Run.read(tmp_path / "run").failed
        requests = Counter(json.dumps(body, sort_keys=True) for body in server.bodies)
        # Each end may lose the calls in flight, and as many whose answers have just come and are not yet written.
        assert sum(count - 1 for count in requests.values()) <= 5 * 2 * CONCURRENCY


@pytest.mark.slow
def test_a_grid_with_a_local_model_ends_on_signals(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    reference = f"hf:{save_tiny_llama(tmp_path / 'tiny', 8192)}"
    run = command(tmp_path, "--follower", reference, "--workers", "4")
    answers = tmp_path / "run" / "answers.sqlite"
    moments = random.Random(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not answers.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 1))
        end(process, number)


@pytest.mark.slow
def test_a_refused_key_ends_the_grid_at_once(tmp_path: Path) -> None:
    with serving(LabellingServer(default="401")) as server:
        models = ["--follower", "openai:m", "--base-url", server.url, "--mode", "generate"]
        run = command(tmp_path, *models, "--workers", "2", "--concurrency", "2")
        done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 3
        assert "refuses the key (HTTP 401" in done.stderr
        assert len(server.bodies) <= 4


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_advice(tmp_path: Path) -> None:
    with serving(SlowServer()) as server:
        models = ["--generator", "openai:m", "--follower", "openai:m", "--base-url", server.url, "--mode", "generate"]
        run = command(tmp_path, *models, "--workers", "4", "--concurrency", str(CONCURRENCY))
        (tmp_path / "run").mkdir()
        # Files of this process may grow to 24 kB, which a cache passes after some answers.
        limited = ["bash", "-c", 'ulimit -f 24; exec "$@"', "bash", *run]
        done = subprocess.run(limited, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2, done.stderr
        assert "Make room and run the same command again" in done.stderr
        assert "Traceback" not in done.stderr
        subprocess.run(run, check=True, capture_output=True)
