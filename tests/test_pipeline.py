"""The pipeline on real files, with a server on loopback or a scripted model."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.models.faulty_server import FaultyServer, Reply, completion, error, serving

from promptmii import Instruction, ScriptedModel, pipeline
from promptmii.config import InduceSettings
from promptmii.data import demo_path
from promptmii.errors import (
    ConfigError,
    DataError,
    EndpointError,
    OutputError,
    ScoreRefusedError,
    SpendingLimitError,
    UnknownModelError,
    UnsupportedError,
)
from promptmii.models import check_reference
from promptmii.models.http.constraints import PROBE
from promptmii.progress import QUIET, Progress, Quiet, Unit
from promptmii.train.settings import TrainSettings


def test_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'evaluate'"):
        InduceSettings.of(evaluat=3)


def test_unknown_setting_of_a_table_names_the_nearest_in_that_table() -> None:
    with pytest.raises(ConfigError, match=r"'endpoint\.base_ulr'\. Did you mean 'base_url'"):
        InduceSettings.of(endpoint={"base_ulr": "http://localhost:8000/v1"})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n": 0}, "n = 0"),
        ({"calibration": "x"}, "setting calibration = 'x' is refused: Input should be 'auto', 'none'"),
        ({"endpoint": {"context_length": 0}}, "endpoint.context_length = 0"),
        ({"endpoint": {"prices": {"openai:m": (math.nan, 1.0)}}}, r"The price of openai:m is \(nan, "),
        ({"endpoint": {"prices": {"*": (1.0, -1.0)}}}, r"The price of \* is \(1\.0, -1\.0, "),
    ],
)
def test_refused_value_is_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        InduceSettings.of(**values)


def test_a_configuration_that_an_editor_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "induce.toml").write_text("n = 7", "utf-8-sig")
    assert InduceSettings.read(tmp_path / "induce.toml").n == 7


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"overlong": "drop"}, "^The settings are refused: overlong = 'drop' needs fixed = true"),
        ({"reward": {"followers": []}}, "^The settings of reward are refused: followers names no model"),
    ],
)
def test_settings_that_contradict_each_other_are_not_printed_in_full(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TrainSettings.of(model="smol", tasks=["suite"], **values)


def test_a_kind_of_model_without_a_name_is_no_misspelling() -> None:
    with pytest.raises(UnknownModelError, match=r"Unknown model reference 'openai:'\. Expected one of"):
        check_reference("openai:")


@pytest.mark.parametrize("role", ["generator", "follower"])
def test_a_name_without_a_kind_beside_an_address_is_a_model_on_that_server(role: str) -> None:
    endpoint = {"base_url": "http://127.0.0.1:9/v1"}
    settings: dict[str, Any] = {"generator": "openai:m", "endpoint": endpoint, role: "my-model"}
    with pytest.raises(UnknownModelError, match=r"at http://127\.0\.0\.1:9/v1 is openai:my-model\. Expected"):
        pipeline.induce(demo_path(), **settings)


def test_an_unknown_follower_is_refused_before_the_generator_is_loaded() -> None:
    loaded = list[str]()
    with pytest.raises(UnknownModelError, match="Unknown model reference 'smoll'"):
        pipeline.induce(demo_path(), generator="smol", follower="smoll", progress=Steps(loaded))
    assert "Loading smol" not in loaded


class Steps(Quiet):
    """Records the steps."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def step(self, name: str, total: int | None = None, unit: Unit = "rows") -> None:  # noqa: ARG002
        """See `Progress`."""
        self._names.append(name)


def test_data_errors_come_before_any_model(tmp_path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        pipeline.induce(tmp_path / "nothing.csv", generator="hf:nobody/nothing")


class AtStep(Quiet):
    """Runs an action at the first step whose name begins with a text."""

    def __init__(self, name: str, action: Callable[[], object]) -> None:
        self._name, self._action = name, action

    def step(self, name: str, total: int | None = None, unit: Unit = "rows") -> None:  # noqa: ARG002
        """See `Progress`."""
        if name.startswith(self._name):
            self._name = "\0"
            self._action()


def induced(server: FaultyServer, output: Path | None, progress: Progress, **changes: Any) -> pipeline.Induced:
    endpoint = {"base_url": server.url}
    settings = {"generator": "openai:m", "mode": "generate", "n": 6, "evaluate": 6, "endpoint": endpoint} | changes
    return pipeline.induce(demo_path(), output=output, progress=progress, **settings)


def test_the_instruction_is_saved_before_it_is_measured(tmp_path: Path) -> None:
    path, seen = tmp_path / "i.json", list[Instruction]()
    with serving(FaultyServer()) as server:
        result = induced(server, path, AtStep("Scoring", lambda: seen.append(Instruction.load(path))))
    assert seen[0].measured is None
    assert (seen[0].text, seen[0].cost.calls) == (result.instruction.text, 1)
    assert Instruction.load(path) == result.instruction
    assert result.instruction.measured is not None
    assert result.path == path


def test_a_failure_while_measuring_keeps_the_paid_instruction(tmp_path: Path) -> None:
    path = tmp_path / "i.json"
    with serving(FaultyServer()) as server:
        command = rf"promptmii compare {path} naive icl --data .*demo\.csv --follower openai:m --mode generate"
        words = f"saved to {path}: '.+' Measure .*: {command} --base-url {server.url}$"
        with pytest.raises(ScoreRefusedError, match=words):
            induced(server, path, AtStep("Scoring", lambda: setattr(server, "default", "context")))
    assert Instruction.load(path).text


def test_a_follower_that_cannot_answer_does_not_lose_an_instruction_without_a_file() -> None:
    with serving(FaultyServer([completion("Say free.")], default="401")) as server:
        with pytest.raises(EndpointError, match=r"The instruction is written: 'Say free\.'$") as caught:
            induced(server, None, Quiet())
        assert caught.value.lasting


@pytest.mark.parametrize("progress", [QUIET, Quiet()], ids=["unwatched", "watched"])
@pytest.mark.parametrize("endpoint", [{}, {"prices": {"*": (1.0, 1.0)}, "max_cost": 1e9}], ids=["free", "limited"])
@pytest.mark.parametrize("cached", [False, True])
def test_a_server_that_cannot_choose_is_found_before_the_writing(
    progress: Progress, endpoint: dict[str, Any], cached: bool, tmp_path: Path
) -> None:
    with serving(FaultyServer()) as server:
        endpoint = endpoint | {"base_url": server.url} | ({"cache": str(tmp_path)} if cached else {})
        with pytest.raises(UnsupportedError, match=r"Use --mode generate\.$"):
            induced(server, None, progress, mode="choose", endpoint=endpoint)
        assert {body["messages"][0]["content"] for body in server.bodies} == {PROBE[0]["content"]}


@pytest.mark.parametrize("last", [error("wrong parameter"), error("no credits left", 402)], ids=["once", "for good"])
def test_a_failed_request_for_a_shorter_draft_does_not_lose_the_first(last: Reply, tmp_path: Path) -> None:
    with serving(FaultyServer([completion("Say free.\n" + "And so on. " * 40), last])) as server:
        induced(server, tmp_path / "i.json", Quiet(), budget=8, evaluate=0)
    instruction = Instruction.load(tmp_path / "i.json")
    assert instruction.text.startswith("Say free.")
    failed, trimmed = instruction.provenance.notes[:2]
    assert re.match("the request for a shorter draft failed: .*(wrong parameter|no credits left)", failed)
    assert trimmed == "trimmed to the budget of 8 tokens"


def test_an_instruction_that_cannot_be_saved_is_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "i.json"
    path.parent.mkdir()
    words = r"gone does not exist.* The instruction is written: 'Say free\.'$"
    with serving(FaultyServer([completion("Say free.")])) as server, pytest.raises(OutputError, match=words):
        induced(server, path, AtStep("Writing mii", path.parent.rmdir))


def test_the_result_as_json_tells_the_examples_from_the_rows_measured(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        rows = induced(server, tmp_path / "i.json", Quiet(), evaluate=8).as_json()["comparison"]
    assert [(row["method"], row["examples"], row["n"]) for row in rows] == [
        ("naive", 0, 8),
        ("icl", 6, 8),
        ("mii", 6, 8),
    ]


def test_a_file_that_appears_meanwhile_stays_and_the_instruction_is_saved_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "i.json"
    with serving(FaultyServer()) as server:
        result = induced(server, path, AtStep("Loading", lambda: path.write_text("another's")))
    assert path.read_text() == "another's"
    assert result.path == tmp_path / "i-2.json"
    assert Instruction.load(tmp_path / "i-2.json") == result.instruction


def test_only_a_given_n_is_too_large_for_a_small_table() -> None:
    rows = [{"text": f"a text {i}", "label": "ab"[i % 2]} for i in range(30)]
    with serving(FaultyServer(default="say:a")) as server:
        settings: dict[str, Any] = {"generator": "openai:m", "mode": "generate", "endpoint": {"base_url": server.url}}
        result = pipeline.induce(rows, **settings)
        assert result.instruction.provenance.n == 18
        assert "18 examples instead of 20: the training part has no more" in result.notes
        assert any("The score rests on 12 rows" in warning for warning in result.warnings)
        with pytest.raises(DataError, match="20 examples were asked for"):
            pipeline.induce(rows, n=20, **settings)


class Notes(Quiet):
    """Records the notes that come before the first request."""

    def __init__(self, server: FaultyServer) -> None:
        self.early: list[str] = []
        self._server = server

    def note(self, message: str) -> None:
        """See `Progress`."""
        if not self._server.requests:
            self.early.append(message)


def test_labels_without_an_example_are_named_before_the_first_request() -> None:
    with serving(FaultyServer()) as server:
        notes = Notes(server)
        result = induced(server, None, notes, n=2)
    (note,) = notes.early
    assert "no example of 4 of 6 labels" in note
    assert note in result.notes


def test_a_model_object_is_refused_with_the_classes_that_take_one() -> None:
    with pytest.raises(ConfigError, match=r"is a ScriptedModel; expected a reference.*Writer\(model\)"):
        pipeline.induce(demo_path(), generator=ScriptedModel())


def test_an_empty_name_of_the_output_is_refused() -> None:
    with pytest.raises(OutputError, match="is a folder; expected the name of a file"):
        pipeline.induce(demo_path(), output="", generator="openai:m", endpoint={"base_url": "http://127.0.0.1:9"})


def test_an_output_that_exists_is_refused_before_the_first_call(tmp_path: Path) -> None:
    path = tmp_path / "i.json"
    path.write_text("mine")
    with serving(FaultyServer()) as server:
        with pytest.raises(OutputError, match="exists already"):
            induced(server, path, Quiet())
        assert not server.bodies
        assert (
            pipeline.induce(
                demo_path(),
                output=path,
                force=True,
                generator="openai:m",
                mode="generate",
                n=6,
                evaluate=0,
                endpoint={"base_url": server.url},
            ).path
            == path
        )
    assert Instruction.load(path).text


def test_an_instruction_starts_from_a_text_and_is_measured_beside_it(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Tickets of a shop.\naccount: the login, word for word")
    with serving(FaultyServer(default="say:Shop mails.\naccount: accounts")) as server:
        result = induced(server, tmp_path / "i.json", Quiet(), start=str(tmp_path / "prompt.txt"), keep=("login",))
        assert "Tickets of a shop." in server.bodies[0]["messages"][0]["content"]
    assert result.instruction.text == "Shop mails.\naccount: the login, word for word"
    assert [row.name for row in result.rows] == ["naive", "icl", "start", "mii"]
    assert set(result.differences) == {"naive", "icl", "start"}


def test_the_writer_and_the_follower_share_one_spending_limit(tmp_path: Path) -> None:
    spent = completion("Say free.", usage={"prompt_tokens": 7, "completion_tokens": 28})
    with serving(FaultyServer([spent])) as server:
        endpoint = {
            "base_url": server.url,
            "max_cost": 28.0,
            "prices": {"openai:m": (0.0, 1e6), "openai:other": (0.0, 1e3)},
        }
        with pytest.raises(SpendingLimitError, match=r"28\.0+ was spent.*is written and saved to "):
            induced(server, tmp_path / "i.json", Quiet(), follower="openai:other", budget=8, endpoint=endpoint)
        assert len(server.bodies) == 1
    assert Instruction.load(tmp_path / "i.json").text == "Say free."


def test_kept_words_that_no_line_contains_are_refused_before_any_call(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        with pytest.raises(ConfigError, match="contains 'login'"):
            induced(server, tmp_path / "i.json", Quiet(), start="Tickets of a shop.", keep=("login",))
        with pytest.raises(ConfigError, match="contains 'login'"):
            induced(server, tmp_path / "i.json", Quiet(), keep=("login",))
        assert not server.bodies


def test_given_test_rows_are_measured_on_and_never_shown(tmp_path: Path) -> None:
    rows = [{"words": f"a text {i}", "kind": "ab"[i % 2]} for i in range(10)]
    test = tmp_path / "test.csv"
    test.write_text("words,kind\na text 0,a\nother 1,b\nother 2,a\n")
    with serving(FaultyServer(default="say:a")) as server:
        endpoint = {"base_url": server.url}
        settings: dict[str, Any] = {
            "generator": "openai:m",
            "mode": "generate",
            "endpoint": endpoint,
            "test": str(test),
        }
        result = pipeline.induce(rows, n=9, **settings)
        assert {e.text for e in result.rows[0].scored.query} == {"a text 0", "other 1", "other 2"}
        assert "a text 0" not in result.rows[1].instruction.text
        assert any("1 row left out of the examples" in note for note in result.notes)
        with pytest.raises(DataError, match="10 examples were asked for"):
            pipeline.induce(rows, n=10, **settings)
        with pytest.raises(DataError, match="Every row of"):
            pipeline.induce(test, n=1, columns={"label": "kind"}, **settings)
