"""References: the server, or engine, model and adapters that they name, and the default follower of a writer."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from promptmii.errors import ConfigError, UnknownModelError
from promptmii.models.references import (
    WRITERS,
    GgufFile,
    ServerReference,
    default_follower,
    gguf_of,
    shipped,
    split_adapters,
    weights_of,
    without_address,
)


@pytest.mark.parametrize(
    ("writer", "follower"),
    [
        ("qwen-writer", "qwen"),
        ("hf:qwen-writer", "hf:qwen"),
        ("qwen+runs/mine/best", "qwen"),
        ("hf:qwen-writer@cuda:1", "hf:qwen@cuda:1"),
        ("qwen-writer@cpu", "qwen@cpu"),
        ("hf:owner/name+runs/mine/best", "hf:owner/name"),
        ("gguf:model.gguf+one.gguf+two.gguf", "gguf:model.gguf"),
        ("smol", "smol"),
        ("openai:a+b@http://localhost:1/v1", "openai:a+b@http://localhost:1/v1"),
    ],
)
def test_the_default_follower_is_the_model_under_the_adapters(writer: str, follower: str) -> None:
    assert default_follower(writer) == follower


def test_the_default_follower_of_an_adapter_folder_is_the_base_model_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/name"}))
    assert default_follower(f"hf:{tmp_path}") == "hf:owner/name"
    assert default_follower(f"hf:{tmp_path}@cuda:1") == "hf:owner/name@cuda:1"
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path.parent))
    assert default_follower(f"hf:~/{tmp_path.name}") == "hf:owner/name"
    weights = weights_of(f"hf:~/{tmp_path.name}")
    assert weights
    assert [Path(adapter) for adapter in weights.adapters] == [tmp_path]


def test_the_default_follower_of_stacked_adapters_is_the_model_under_both(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "hf:owner/name+runs/first"}))
    assert default_follower(f"hf:{tmp_path}") == "hf:owner/name"


NAMELESS = ['{"base_model_name_or_path": null}', '{"base_model_name_or_path": ""}']


@pytest.mark.parametrize("content", ["[]", "{}", *NAMELESS])
def test_an_adapter_folder_without_a_base_model_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(UnknownModelError, match="does not name the model"):
        default_follower(f"hf:{tmp_path}")


def test_an_adapter_folder_that_names_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(UnknownModelError, match="names its own folder"):
        default_follower(f"hf:{tmp_path}")


def test_an_adapter_folder_may_have_a_colon_in_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder := Path("C:tuned")).mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/name"}))
    assert default_follower("hf:C:tuned") == "hf:owner/name"


@pytest.mark.parametrize("name", WRITERS)
def test_a_shipped_writer_is_an_adapter_of_its_model(name: str) -> None:
    file = gguf_of(name)
    assert file is not None
    assert (file.source, file.adapters) == (WRITERS[name], (str(shipped(name)),))
    config = json.loads((shipped(name) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == WRITERS[name]
    assert (shipped(name) / "adapter_model.safetensors").stat().st_size <= 12_000_000
    assert (shipped(name) / "README.md").is_file()


def test_a_path_that_exists_is_taken_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a+b", "a+b/model", "c+d+e", "qwen+f"):
        Path(name).mkdir()
    Path("a+b/m.gguf").touch()
    assert gguf_of("gguf:a+b/m.gguf+c+d+e+f") == GgufFile("a+b/m.gguf", ("c+d+e", "f"))
    weights = weights_of("hf:a+b/model@cuda:1+c+d+e")
    assert weights is not None
    assert (weights.source, weights.adapters, weights.device) == ("a+b/model", ("c+d+e",), "cuda:1")
    assert weights_of(weights.reference) == replace(weights, device=None)
    assert default_follower("hf:a+b/model+c+d+e") == "hf:a+b/model"
    assert split_adapters("hf:owner/a+b") == ["hf:owner/a", "b"]
    assert gguf_of("qwen+f") == GgufFile("qwen", ("f",))


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("openai:m", ("m", None)),
        ("openai:a/b@1", ("a/b@1", None)),
        ("openai:m@http://h:1/v1/", ("m", "http://h:1/v1")),
        ("openai:m@https://h", ("m", "https://h")),
        ("openai:m@http://h/v1/chat/completions/", ("m", "http://h/v1")),
        ("openai:m@http://h/d/m/chat/completions?api-version=1", ("m", "http://h/d/m?api-version=1")),
        ("openai:m@http://h/v1/?api-version=1", ("m", "http://h/v1?api-version=1")),
        ("openai:m@HTTP://h/v1", ("m", "http://h/v1")),
        ("openai:m@http://h/v1/responses", ("m", "http://h/v1")),
        ("openai:m@https://h/models", ("m", "https://h/models")),
        ("openai:@cf/meta/llama-3.1-8b", ("@cf/meta/llama-3.1-8b", None)),
        ("openai:", None),
        ("smol", None),
        ("hf:openai:m@http://h", None),
    ],
)
def test_a_reference_names_a_model_and_optionally_its_server(
    reference: str, expected: tuple[str, str | None] | None
) -> None:
    assert ServerReference.parse(reference) == expected


@pytest.mark.parametrize(
    "address", ["localhost", "localhost:8000/v1", "10.0.0.1/v1", "gpu-3.lab:8000", "gpu-3/v1", "a.io/v1", "//h:1/v1"]
)
def test_an_address_without_a_scheme_is_not_part_of_the_model(address: str) -> None:
    with pytest.raises(ConfigError, match="lacks http://"):
        ServerReference.parse(f"openai:m@{address}")


@pytest.mark.parametrize("reference", ["openai:m", "openai:m@http://h/v1", "openai:m@HTTPS://h/v1"])
def test_the_address_of_a_reference_can_be_left_out(reference: str) -> None:
    assert without_address(reference) == "openai:m"
    assert without_address("openai:m@httpd") == "openai:m@httpd"
