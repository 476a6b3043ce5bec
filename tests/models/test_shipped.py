"""The adapters that come with promptmii: small, with a card, loaded by name, and of use."""

import json
from pathlib import Path

import pytest

from promptmii.errors import UnknownModelError
from promptmii.models import SHIPPED, reader_for, references, untrained_for, weights_of

LARGEST = 12 * 2**20


def folder(name: str) -> Path:
    return Path(references.__file__).parent / "shipped" / name


@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_small_and_has_a_card(name: str) -> None:
    assert (folder(name) / "adapter_model.safetensors").stat().st_size <= LARGEST
    assert json.loads((folder(name) / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"] == "smol"
    card = (folder(name) / "README.md").read_text("utf-8")
    assert "## Recipe" in card
    assert "| task | source | licence |" in card


def test_what_is_embedded_is_read_by_the_tuned_follower() -> None:
    assert reader_for("smol") == reader_for("smol-writer") == reader_for("smol-writer-sft") == "smol-follower"
    assert reader_for("hf:some/model") == "hf:some/model"
    assert untrained_for("smol-follower") == "smol"
    assert untrained_for("openai:m") == "openai:m"


def test_a_new_adapter_of_the_embedded_model_is_read_by_the_tuned_follower_too(tmp_path: Path) -> None:
    for name, below in (
        ("first", "smol"),
        ("second", str(tmp_path / "first")),
        ("third", f"smol+{tmp_path / 'first'}"),
        ("large", "a/b"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": below}))
    for generator in (
        f"smol+{tmp_path / 'first'}",
        "smol@cpu",
        *(f"hf:{tmp_path / name}" for name in ("first", "second", "third")),
    ):
        assert reader_for(generator) == "smol-follower"
    for generator in (f"hf:{tmp_path / 'large'}", f"hf:a/b+{tmp_path / 'first'}", "openai:smol"):
        assert reader_for(generator) == generator


@pytest.mark.smol
@pytest.mark.parametrize("name", SHIPPED)
def test_names_are_adapters_of_the_embedded_model(name: str) -> None:
    try:
        weights = weights_of(name)
    except UnknownModelError as error:
        pytest.skip(str(error))
    assert weights is not None
    assert (weights.base, weights.adapters) == ("smol", (str(folder(name)),))


@pytest.mark.smol
def test_the_tuned_follower_reads_better_than_the_raw_model() -> None:
    pytest.importorskip("torch")
    from promptmii import Follower, load_model, score
    from promptmii.data import load_task, sample, suite_folder
    from promptmii.inducers import Naive

    reached: dict[str, float] = {}
    for name in ("smol", "smol-follower"):
        try:
            follower = Follower(load_model(name), calibration="none")
        except UnknownModelError as error:
            pytest.skip(str(error))
        episodes = [sample(load_task(str(path)).task, 5, query=16) for path in sorted(suite_folder().glob("*.json"))]
        reached[name] = sum(
            score(follower, Naive().induce(episode.support), episode.query).macro_f1 or 0.0 for episode in episodes
        )
    assert reached["smol-follower"] > reached["smol"] + 0.1 * len(episodes)


@pytest.mark.smol
@pytest.mark.parametrize("name", ["smol-writer", "smol-writer-sft"])
def test_the_small_writers_have_a_line_for_every_label(name: str) -> None:
    pytest.importorskip("torch")
    from promptmii import MetaInducer, Writer, load_model
    from promptmii.data import load_task, sample, suite_folder

    try:
        inducer = MetaInducer(Writer(load_model(name)))
    except UnknownModelError as error:
        pytest.skip(str(error))
    for path in sorted(suite_folder().glob("*.json"))[:3]:
        instruction = inducer.induce(sample(load_task(str(path)).task, 20, query=0).support)
        *lines, closing = instruction.text.splitlines()
        assert [line.partition(": Typical words: ")[0] for line in lines] == list(instruction.labels)
        assert all(line.partition(": Typical words: ")[2] for line in lines)
        assert closing == "Answer with the label alone."
