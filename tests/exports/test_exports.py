"""Exported code sends the measured prompt for any text, and runs without promptmii."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.command_line import promptmii
from tests.exports.hostile import INSTRUCTION, PIECES, TEXTS
from tests.models.faulty_server import FaultyServer, serving

from promptmii import Instruction
from promptmii.errors import ConfigError, OutputError
from promptmii.exports import TARGETS
from promptmii.instruction import Calibration, Measurement, Shortlist
from promptmii.models.http.config import HOSTED
from promptmii.prompts import quote

texts = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(PIECES)), max_size=6).map("".join)
labels = st.lists(st.text("ab体😀\"'\\{}<>|", min_size=1, max_size=6), min_size=2, max_size=5, unique=True).map(tuple)
without_slots = texts.map(lambda text: re.sub(r"\{(?=\{)", "{ ", text))
frames = st.tuples(without_slots, without_slots, without_slots).map(
    lambda parts: f"{parts[0]} {{{{instruction}}}} {parts[1]} {{{{labels}}}} {{{{text}}}} {parts[2]}"
)

MEASURED = Measurement(
    macro_f1=1, low=1, high=1, accuracy=1, n=1, n_unparsed=0, n_truncated=0, prompt_tokens_per_query=1, data_key=""
)


def module(code: str) -> dict[str, Any]:
    """The names that an exported file defines."""
    names: dict[str, Any] = {"__name__": "exported"}
    exec(compile(code, "exported", "exec"), names)
    return names


@settings(max_examples=60)
@given(body=texts, labels=labels, frame=frames, text=texts)
def test_the_exported_prompt_is_the_measured_one(body: str, labels: tuple[str, ...], frame: str, text: str) -> None:
    instruction = Instruction(text=body, labels=labels, method="human", frame=frame, follower=body)
    assert module(instruction.export("python"))["messages"](text) == instruction.messages(text)
    exported = instruction.export("txt")
    placeholders = ("{{text}}", "{{text2}}", "{{text3}}")
    assert any(exported.replace(placeholder, quote(text)) == instruction.prompt(text) for placeholder in placeholders)


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"txt"}))
def test_every_target_holds_the_same_prompt(target: str) -> None:
    code = INSTRUCTION.export(target)
    after_heading = INSTRUCTION.export("python").partition("# The measured prompt")[2]
    core = after_heading.partition("# OPENAI")[0].rstrip()
    assert code.partition("# The measured prompt")[2].startswith(core)
    compile(code, target, "exec")


@given(st.sampled_from(INSTRUCTION.labels), st.sampled_from(["{}", " {}\n", '"{}"', "**{}**.", "`{}`"]))
def test_the_label_in_an_answer_is_read(label: str, form: str) -> None:
    read = module(INSTRUCTION.export("python"))["read"]
    assert read(form.format(label)) == label
    assert read("something else") is None


@pytest.mark.parametrize("answer", ["", "''", "**"])
def test_an_answer_without_a_word_is_not_a_label_without_one(answer: str) -> None:
    read = module(Instruction(text="x", labels=("*", "plain"), method="human").export("python"))["read"]
    assert read(answer) is None
    assert read(" *\n") == "*"


def test_a_script_needs_only_python(tmp_path: Path) -> None:
    INSTRUCTION.export("python", tmp_path / "classify.py")
    with serving(FaultyServer(default=f"say:{INSTRUCTION.labels[1]}")) as server:
        environment = {"PATH": os.environ["PATH"], "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "k", "MODEL": "m"}
        command = [sys.executable, "-I", "-S", str(tmp_path / "classify.py")]

        def classify(*arguments: str, stdin: str = "") -> str:
            result = subprocess.run(
                [*command, *arguments], input=stdin, env=environment, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, result.stderr
            return result.stdout

        sent = [text for text in TEXTS if "\0" not in text]
        assert classify(*sent) == f"{INSTRUCTION.labels[1]}\n" * len(sent)
        assert classify(stdin="one\ntwo\n") == f"{INSTRUCTION.labels[1]}\n" * 2
    assert [body["messages"] for body in server.bodies] == [INSTRUCTION.messages(t) for t in (*sent, "one", "two")]
    assert {body["model"] for body in server.bodies} == {"m"}
    assert server.keys == {"k"}


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an exported script on one text."""
    command = [sys.executable, "-I", "-S", "-c", code, "a text"]
    return subprocess.run(
        command, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("follower", ["qwen", "hf:owner/private", "openai:m@http://elsewhere.example/v1", None])
def test_no_text_is_sent_to_a_server_that_nobody_chose(follower: str | None) -> None:
    code = INSTRUCTION.model_copy(update={"follower": follower}).export("python")
    assert HOSTED not in code
    result = run(code)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(r"Error: Set OPENAI_BASE_URL and MODEL, for example: .*\n", result.stderr)


@pytest.mark.parametrize("target", ["python", "openai", "mlflow"])
def test_a_model_on_the_hosted_api_is_used_there(target: str) -> None:
    assert repr(HOSTED) in INSTRUCTION.model_copy(update={"follower": "openai:m"}).export(target)


@pytest.mark.parametrize("target", ["python", "llama.cpp"])
def test_a_server_that_fails_or_is_down_gives_one_line(target: str) -> None:
    with serving(FaultyServer(default="500")) as server:
        failed = run(INSTRUCTION.export(target), OPENAI_BASE_URL=server.url, LLAMA_SERVER=server.url)
    down = run(INSTRUCTION.export(target), OPENAI_BASE_URL=server.url, LLAMA_SERVER=server.url)
    assert (failed.returncode, down.returncode) == (1, 1)
    assert re.fullmatch(rf"Error: {server.url}/.* (500|404).*\n", failed.stderr)
    assert re.fullmatch(rf"Error: {server.url}/.* refused.*\n", down.stderr)


def test_the_server_address_of_the_instruction_is_not_exported() -> None:
    reference = "openai:m+top_logprobs@http://elsewhere.example/v1"
    instruction = INSTRUCTION.model_copy(update={"follower": reference, "measured": MEASURED})
    for target in TARGETS:
        assert "elsewhere" not in instruction.export(target)
    assert module(instruction.export("python"))["MODEL"] == os.environ.get("MODEL", "m")


def test_unknown_targets_and_existing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'opanai'.*Did you mean 'openai'"):
        INSTRUCTION.export("opanai")
    path = tmp_path / "a.py"
    INSTRUCTION.export("python", path)
    with pytest.raises(OutputError, match="exists already"):
        INSTRUCTION.export("python", path)
    INSTRUCTION.export("openai", path, force=True)
    assert path.read_text("utf-8") == INSTRUCTION.export("openai")


def test_a_calibration_for_shortlists_is_not_exported() -> None:
    label_count = len(INSTRUCTION.labels)
    shortlist = Shortlist(by="tfidf", size=2, recall=1, rows=30, belongs_to=INSTRUCTION.text_key)
    calibration = Calibration(kind="support", scale=(1.0,) * label_count, offset=(0.5,) * label_count)
    shortlisted = INSTRUCTION.model_copy(update={"shortlist": shortlist, "calibration": calibration})
    with pytest.raises(ConfigError, match="for shortlists of labels"):
        shortlisted.export("llama.cpp")
    assert shortlisted.export("python") == INSTRUCTION.export("python")


def test_the_command_prints_or_saves(tmp_path: Path) -> None:
    path = INSTRUCTION.save(tmp_path / "instruction.json")
    printed = promptmii("export", path, "--to", "python")
    assert printed.stdout == INSTRUCTION.export("python")
    saved = promptmii("export", path, "--to", "txt", "-o", tmp_path / "a.txt")
    assert saved.exit_code == 0
    assert (tmp_path / "a.txt").read_bytes().decode() == INSTRUCTION.export("txt")


@pytest.mark.parametrize(
    ("mode", "target", "noted"),
    [("choose", "python", True), ("choose", "llama.cpp", False), ("generate", "dspy", False)],
)
def test_the_command_says_that_a_score_of_another_mode_does_not_carry_over(
    tmp_path: Path, mode: str, target: str, noted: bool
) -> None:
    instruction = INSTRUCTION.model_copy(update={"mode": mode}).measured_as(MEASURED)
    done = promptmii("export", instruction.save(tmp_path / "a.json"), "--to", target)
    assert done.stdout == instruction.export(target)
    assert ("--mode generate" in done.stderr) is noted
