"""References: the engine, model and adapters that they name, and the default follower of a writer."""

import json
from pathlib import Path

import pytest

from promptmii.errors import UnknownModelError
from promptmii.models.references import WRITERS, default_follower, gguf_of, shipped


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


def test_the_default_follower_of_an_adapter_folder_is_the_base_model_it_names(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/name"}))
    assert default_follower(f"hf:{tmp_path}") == "hf:owner/name"
    assert default_follower(f"hf:{tmp_path}@cuda:1") == "hf:owner/name@cuda:1"


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
