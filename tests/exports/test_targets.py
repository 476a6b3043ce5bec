"""Exported code in its target library, against a server that records its requests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from tests.exports.hostile import INSTRUCTION, TEXTS
from tests.models.faulty_server import FaultyServer, serving
from tests.models.http.test_server_likelihoods import address, smol

from promptmii import Follower, load_model
from promptmii.models.http.config import HttpConfig

__all__ = ["address"]
pytestmark = pytest.mark.export
LABEL = INSTRUCTION.labels[0]
INSTALL = "is not installed: pip install 'promptmii[export-test]'"


def library(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} {INSTALL}")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    with serving(FaultyServer(default=f"say:{LABEL}")) as running:
        for name, value in {"OPENAI_BASE_URL": running.url, "OPENAI_API_KEY": "k", "MODEL": "m"}.items():
            monkeypatch.setenv(name, value)
        yield running


def exported(target: str) -> ModuleType:
    module = ModuleType("exported")
    exec(compile(INSTRUCTION.export(target), "exported", "exec"), module.__dict__)
    return module


def received(server: FaultyServer) -> list[Any]:
    return [body["messages"] for body in server.bodies]


SENT = [INSTRUCTION.messages(text) for text in TEXTS]


def test_openai(server: FaultyServer) -> None:
    library("openai")
    assert [exported("openai").classify(text) for text in TEXTS] == [LABEL] * len(TEXTS)
    assert received(server) == SENT


def test_langchain(server: FaultyServer) -> None:
    library("langchain_core")
    openai = library("langchain_openai")
    model = openai.ChatOpenAI(model="m", base_url=server.url, api_key="k", temperature=0)
    chain = exported("langchain").classifier(model)
    assert chain.batch(TEXTS, config={"max_concurrency": 1}) == [LABEL] * len(TEXTS)
    assert received(server) == SENT


def test_dspy(server: FaultyServer) -> None:
    dspy = library("dspy")
    lm = dspy.LM("openai/m", api_base=server.url, api_key="k", temperature=0, cache=False)
    with dspy.context(lm=lm):
        classifier = exported("dspy").Classifier()
        assert [classifier(text=text).label for text in TEXTS] == [LABEL] * len(TEXTS)
    assert received(server) == SENT


@pytest.mark.filterwarnings("ignore")  # mlflow warns about its own code
def test_mlflow(server: FaultyServer, tmp_path: Path) -> None:
    mlflow = library("mlflow")
    INSTRUCTION.export("mlflow", tmp_path / "classifier.py")
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=tmp_path / "classifier.py", pip_requirements=["mlflow"])
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert loaded.predict(TEXTS) == [LABEL] * len(TEXTS)
    assert received(server)[-len(SENT) :] == SENT


def test_promptfoo(server: FaultyServer, tmp_path: Path) -> None:
    if (promptfoo := os.environ.get("PROMPTFOO") or shutil.which("promptfoo")) is None:
        pytest.skip("promptfoo is not on the path (nor in PROMPTFOO): npm install -g promptfoo")
    INSTRUCTION.export("promptfoo", tmp_path / "tickets.py")
    check = {"type": "equals", "value": LABEL}
    config = {
        "prompts": ["file://tickets.py:prompt"],
        "providers": [{"id": "openai:chat:m", "config": {"apiBaseUrl": server.url}}],
        "tests": [{"vars": {"text": text}, "assert": [check]} for text in TEXTS],
    }
    (tmp_path / "promptfooconfig.yaml").write_text(yaml.safe_dump(config))
    environment = os.environ | {
        "PROMPTFOO_PYTHON": sys.executable,
        "PROMPTFOO_CONFIG_DIR": str(tmp_path / "home"),
        "PROMPTFOO_DISABLE_TELEMETRY": "1",
        "PROMPTFOO_DISABLE_UPDATE": "1",
    }
    command = [promptfoo, "eval", "--no-cache", "--no-table", "-j", "1"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert received(server) == SENT


@smol
def test_llama_cpp_gives_the_probabilities_of_promptmii(address: str, tmp_path: Path) -> None:
    INSTRUCTION.export("llama.cpp", tmp_path / "classify.py")
    texts = [text for text in TEXTS if "\0" not in text][:2]
    environment = {"PATH": os.environ["PATH"], "LLAMA_SERVER": address.removesuffix("/v1")}
    command = [sys.executable, "-I", "-S", str(tmp_path / "classify.py"), *texts]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    with load_model("openai:smollm", HttpConfig(address, "", patience=5)) as model:  # pyright: ignore
        expected = Follower(model).predict(INSTRUCTION.model_copy(update={"follower": None}), texts)
    for line, prediction in zip(result.stdout.splitlines(), expected, strict=True):
        label, _, probability = line.rpartition("\t")
        assert prediction.probabilities
        by_label = dict(zip(INSTRUCTION.labels, prediction.probabilities, strict=True))
        assert float(probability) == pytest.approx(by_label[label], abs=0.15)
        assert by_label[label] > max(by_label.values()) - 0.3
