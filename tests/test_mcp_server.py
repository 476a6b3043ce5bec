"""The MCP server with a real client, over standard input and output."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.labelling_server import LabellingServer
from tests.models.faulty_server import serving

from promptmii import Instruction, Naive, Support

mcp = pytest.importorskip("mcp", reason="mcp is not installed: pip install 'promptmii[mcp]'")
WORDS = {"delivery": "the parcel number {} is late", "refund": "my money of order {}!", "login": "lost password {}"}
ROWS = "text,label\n" + "".join(f"{text.format(i)},{label}\n" for i in range(12) for label, text in WORDS.items())


@pytest.fixture
def server() -> Iterator[LabellingServer]:
    with serving(LabellingServer()) as running:
        yield running  # pyright: ignore[reportReturnType]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "tickets.csv"
    path.write_text(ROWS)
    return path


def command(server: LabellingServer, *options: str) -> list[str]:
    served = ["--generator", "openai:m", "--mode", "generate", "--base-url", server.url]
    return [sys.executable, "-m", "promptmii", "mcp", *served, *options]


Notice = tuple[float, float | None, str | None]


def calls(command: list[str], *tools: tuple[str, dict[str, Any]], notices: list[Notice] | None = None) -> list[Any]:
    """Call the tools of a server in turn and return their results. Progress notices go to `notices`."""
    environment = {**os.environ, "OPENAI_API_KEY": "secret"}
    parameters = mcp.StdioServerParameters(command=command[0], args=command[1:], env=environment)

    async def receive(share: float, total: float | None, words: str | None) -> None:
        if notices is not None:
            notices.append((share, total, words))

    async def call() -> list[Any]:
        async with mcp.Client(parameters) as client:
            return [await client.call_tool(name, arguments, progress_callback=receive) for name, arguments in tools]

    return asyncio.run(call())


def text(result: Any) -> str:
    return result.content[0].text


@pytest.mark.slow
def test_an_instruction_is_written_measured_and_used(server: LabellingServer, table: Path, tmp_path: Path) -> None:
    path = tmp_path / "tickets.json"
    induced, scored, compared, labelled = calls(
        command(server),
        ("induce", {"data": str(table), "output": str(path), "n": 6, "evaluate": 12}),
        ("score", {"instruction": str(path), "data": str(table)}),
        ("compare", {"prompts": [str(path), "naive", "Say which desk the ticket is for."], "data": str(table)}),
        ("classify", {"instruction": str(path), "texts": ["where is the parcel?", "hello there"]}),
    )
    assert not induced.is_error, text(induced)
    instruction = Instruction.load(path)
    assert json.loads(text(induced))["instruction"]["text"] == instruction.text
    assert [row["method"] for row in json.loads(text(induced))["comparison"]] == ["naive", "icl", "mii"]
    assert json.loads(text(scored))["measured"]["n"] == 30
    assert any("left out" in note for note in json.loads(text(scored))["notes"])
    assert not compared.is_error, text(compared)
    assert [row["method"] for row in json.loads(text(compared))["rows"]] == ["mii", "naive", "human"]
    assert len(json.loads(text(compared))["differences"]) == 2
    first, second = labelled.structured_content["result"]
    assert first == {"label": "delivery", "probabilities": None, "failure": None}
    assert second["label"] is None


@pytest.mark.slow
def test_a_client_gets_progress_notices(server: LabellingServer, table: Path, tmp_path: Path) -> None:
    notices: list[Notice] = []
    arguments = {"data": str(table), "output": str(tmp_path / "a.json"), "n": 6, "evaluate": 12}
    calls(command(server), ("induce", arguments), notices=notices)
    shares, words = [share for share, _, _ in notices], [str(words) for _, _, words in notices]
    assert shares == sorted(shares)
    assert words[0] == "Reading the data"
    assert "Loading openai:m" in words
    assert "Scoring mii" in words


@pytest.mark.slow
def test_a_model_stays_loaded_for_the_next_call(server: LabellingServer, tmp_path: Path) -> None:
    path = Naive().induce(Support(tuple(WORDS), ())).save(tmp_path / "naive.json")
    classify = ("classify", {"instruction": str(path), "texts": ["where is the parcel?"]})
    answers = calls(command(server, "--follower", "openai:m"), classify, classify, classify)
    assert not any(answer.is_error for answer in answers)
    assert server.requests - len(server.bodies) == 1  # its models were listed once


@pytest.mark.slow
def test_errors_are_messages(server: LabellingServer, table: Path, tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("{}")
    missing, replaced, broken, unknown = calls(
        command(server),
        ("induce", {"data": str(tmp_path / "no.csv"), "output": str(tmp_path / "a.json")}),
        ("induce", {"data": str(table), "output": str(tmp_path / "there.json"), "n": 6}),
        ("score", {"instruction": str(tmp_path / "there.json"), "data": str(table)}),
        ("induce", {"data": str(table), "output": str(tmp_path / "a.json"), "label": "labl"}),
    )
    assert all(result.is_error for result in (missing, replaced, broken, unknown))
    assert "no.csv" in text(missing)
    assert "exists already" in text(replaced)
    assert "Choose another name" in text(replaced)
    assert "--force" not in text(replaced)  # a tool has no such option
    assert "is not an instruction file" in text(broken)
    assert "labl" in text(unknown)
    assert "Traceback" not in text(unknown)


@pytest.mark.slow
def test_a_server_named_only_in_a_file_gets_neither_text_nor_key(
    server: LabellingServer, table: Path, tmp_path: Path
) -> None:
    labels = tuple(WORDS)
    instruction = Naive().induce(Support(labels, ())).model_copy(update={"follower": f"openai:m@{server.url}"})
    path = instruction.save(tmp_path / "theirs.json")
    without_address = [sys.executable, "-m", "promptmii", "mcp"]
    (refused,) = calls(without_address, ("score", {"instruction": str(path), "data": str(table)}))
    assert refused.is_error
    assert "sends no text there" in text(refused)
    assert server.requests == 0


@pytest.mark.slow
def test_standard_output_carries_only_the_protocol(server: LabellingServer, table: Path, tmp_path: Path) -> None:
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    arguments = {"data": str(table), "output": str(tmp_path / "a.json"), "n": 6, "evaluate": 6}
    requests = [
        {"id": 1, "method": "initialize", "params": client},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
        {"id": 3, "method": "tools/call", "params": {"name": "induce", "arguments": arguments}},
    ]
    with subprocess.Popen(command(server), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for message in requests:
            print(json.dumps({"jsonrpc": "2.0"} | message), file=running.stdin, flush=True)
        answers: dict[int, Any] = {}
        while 3 not in answers:
            answer = json.loads(running.stdout.readline())
            answers[answer.get("id", 0)] = answer
        running.stdin.close()
        assert running.stdout.read() == ""
    tools = {tool["name"]: tool for tool in answers[2]["result"]["tools"]}
    assert set(tools) >= {"induce", "score", "compare", "classify"}
    properties = [field for tool in tools.values() for field in tool["inputSchema"]["properties"].values()]
    assert all(field["description"] for field in properties)
    assert not answers[3]["result"].get("isError"), answers[3]
