"""The main job on real files; the model behind it is the only double, passed where a reference would load one."""

import csv
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.models.faulty_server import FaultyServer, serving

from promptmii import Example, Follower, Instruction, Naive, ScriptedModel, Support, pipeline
from promptmii.config import Columns, InduceSettings
from promptmii.data import demo_path
from promptmii.errors import ConfigError, DataError, OutputError, ScoreRefusedError
from promptmii.models.base import Failure, FailureKind
from promptmii.progress import Progress, Quiet, Unit


def keyword(chat, option):
    return 2.0 if option.split()[0] in chat[-1]["content"].splitlines()[-1] else 0.0


def test_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'evaluate'"):
        InduceSettings.of(evaluat=3)


def test_refused_value_is_named() -> None:
    with pytest.raises(ConfigError, match="n = 0"):
        InduceSettings.of(n=0)


def test_predict_keeps_rows_columns_and_order_and_skips_empty_texts(tmp_path) -> None:
    source = tmp_path / "new.csv"
    source.write_text('id,text\n7,"a refund, please"\n8,\n9,where is the delivery\n', encoding="utf-8")
    model = ScriptedModel(score=keyword)
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    result = pipeline.predict(instruction, str(source), Follower(model))
    rows = list(csv.DictReader(result.csv().splitlines()))
    assert [(row["id"], row["predicted_label"]) for row in rows] == [("7", "refund"), ("8", ""), ("9", "delivery")]
    assert len(model.calls) == 2
    assert float(rows[0]["p(refund)"]) == float(rows[0]["probability"]) > 0.5


def test_the_columns_do_not_depend_on_the_first_row(tmp_path) -> None:
    source = tmp_path / "new.csv"
    source.write_text("id,text\n1,\n2,a refund\n", encoding="utf-8")
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    result = pipeline.predict(instruction, str(source), Follower(ScriptedModel(score=keyword)))
    rows = list(csv.DictReader(result.csv().splitlines()))
    assert [(row["predicted_label"], row["probability"] > "0.5") for row in rows] == [("", False), ("refund", True)]


def test_columns_of_the_input_are_not_overwritten() -> None:
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    rows = [{"text": "a refund", "predicted_label": "delivery"}]
    with pytest.raises(DataError, match="a column 'predicted_label' already"):
        pipeline.predict(instruction, rows, Follower(ScriptedModel(score=keyword)))


def test_rows_are_scored_as_they_were_read_when_the_instruction_was_made() -> None:
    def last(chat, option):
        return float(option in chat[-1]["content"].rpartition("||")[2])

    rows = [
        {"a": f"delivery or refund {i}", "b": label, "c": label} for i in range(3) for label in ("delivery", "refund")
    ]
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    provenance = instruction.provenance.model_copy(
        update={"text_template": "{a} || {b}", "text_columns": ("a", "b"), "label_column": "c"}
    )
    made = instruction.model_copy(update={"provenance": provenance})
    scored, _ = pipeline.rescore(made, rows, Follower(ScriptedModel(score=last)), Columns())
    assert scored.macro_f1 == 1.0
    other = [{"message": row["b"], "kind": row["c"]} for row in rows] + [{"message": "x", "kind": "unknown"}] * 2
    scored, notes = pipeline.rescore(made, other, Follower(ScriptedModel(score=keyword)), Columns())
    assert scored.n == 6 - 4  # equal rows count once
    assert any("kind" in note for note in notes)
    assert any("unknown" in note or "2" in note for note in notes)


def test_rows_that_the_instruction_was_made_from_do_not_measure_it() -> None:
    rows = [{"text": f"a {label} {i}", "label": label} for i in range(4) for label in ("delivery", "refund")]
    support = Support(("delivery", "refund"), tuple(Example(row["text"], row["label"]) for row in rows[:6]))
    follower = Follower(ScriptedModel(score=keyword))
    made = follower.prepare(Naive().induce(support), support)
    scored, notes = pipeline.rescore(made, rows, follower, Columns())
    assert [example.text for example in scored.query] == ["a delivery 3", "a refund 3"]
    assert any("6 rows left out" in note for note in notes)
    with pytest.raises(DataError, match="made from all of these rows"):
        pipeline.rescore(made, rows[:6], follower, Columns())


def test_an_edited_instruction_is_calibrated_again(tmp_path) -> None:
    rows = [{"text": f"a {label} {i}", "label": label} for i in range(4) for label in ("delivery", "refund")]
    support = Support(("delivery", "refund"), tuple(Example(row["text"], row["label"]) for row in rows[:2]))
    follower = Follower(ScriptedModel(score=keyword), "choose", "support")
    made = follower.prepare(Naive().induce(support), support)
    path = made.model_copy(update={"text": "Decide."}).save(tmp_path / "edited.json")
    edited = Instruction.load(path)
    assert edited.calibration is None
    fitted, _ = pipeline.recalibrate(edited, rows[2:], follower, Columns())
    assert fitted.calibrates
    assert fitted.calibration_cost.calls == 6
    assert fitted.provenance.notes == ()
    assert len(fitted.provenance.support_rows) == 8
    assert Instruction.load(fitted.save(path, force=True)) == fitted


def test_labels_are_told_in_every_spelling_when_an_instruction_is_scored() -> None:
    made = Naive().induce(Support(("0", "1", "refund"), ()))
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(["0.0", "1.0", " Refund", "REFUND"])]
    scored, notes = pipeline.rescore(made, rows, Follower(ScriptedModel(score=keyword)), Columns())
    assert sorted(scored.gold) == ["0", "1", "refund", "refund"]
    assert any("are one: '0' (also '0.0')" in note for note in notes)
    with pytest.raises(DataError, match=r"outside the given list.*The column holds 'x', 'y'"):
        pipeline.rescore(made, [("a", "x"), ("b", "y")], Follower(ScriptedModel(score=keyword)), Columns())


def test_a_failed_call_is_a_failed_row_and_a_refused_score(tmp_path) -> None:
    def flaky(chat, option):
        return Failure(FailureKind.TIMEOUT, "too slow") if "slow" in chat[-1]["content"] else keyword(chat, option)

    source = tmp_path / "rows.csv"
    source.write_text(
        "text,label\nslow refund,refund\na refund,refund\na delivery,delivery\nb delivery,delivery\n", encoding="utf-8"
    )
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    follower = Follower(ScriptedModel(score=flaky))
    labelled = pipeline.predict(instruction, str(source), follower, "text")
    assert [row["failure"] for row in labelled.rows] == ["timeout", "", "", ""]
    scored, _ = pipeline.rescore(instruction, str(source), follower, Columns())
    assert (scored.n, scored.n_failed, scored.macro_f1) == (4, 1, None)
    with pytest.raises(ScoreRefusedError, match="1 of 4 calls failed"):
        scored.measurement()


def test_an_instruction_without_follower_says_so() -> None:
    with pytest.raises(ConfigError, match="--follower"):
        pipeline.bind(Instruction(text="", labels=("a", "b"), method="naive"), None, pipeline.Endpoint())


class TestServersNamedInFiles:
    """Texts go to a server that a file names only after a yes, and the key never does."""

    ROWS = ("I want my money back", "my parcel is late")

    @pytest.fixture
    def servers(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FaultyServer, FaultyServer]]:
        """The file's and the user's."""
        monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
        with serving(FaultyServer(default="say:a")) as theirs, serving(FaultyServer(default="say:a")) as mine:
            yield theirs, mine

    def label(self, theirs: FaultyServer, follower: str | None = None, **options: Any) -> None:
        made = Instruction(
            text="Say.", labels=("a", "b"), method="mii", mode="generate", follower=f"openai:m@{theirs.url}"
        )
        base_url = options.pop("base_url", None)
        bound = pipeline.bind(made, follower, pipeline.Endpoint(base_url=base_url), **options)
        with closing(bound.model):
            assert [p.label for p in pipeline.predict(made, list(self.ROWS), bound).predictions] == ["a", "a"]

    def test_without_a_yes_nothing_is_sent(self, servers) -> None:
        theirs, _ = servers
        with pytest.raises(ConfigError, match=f"names the server {theirs.url}.*--follower openai:m@{theirs.url}"):
            self.label(theirs)
        assert theirs.requests == 0

    def test_a_yes_sends_texts_but_not_the_key(self, servers) -> None:
        theirs, _ = servers
        asked: list[str] = []
        self.label(theirs, confirm=lambda question: not asked.append(question))
        assert theirs.url in asked[0]
        assert len(theirs.bodies) == 2
        assert "sk-mine" not in theirs.keys

    def test_the_users_address_replaces_the_files(self, servers) -> None:
        theirs, mine = servers
        self.label(theirs, base_url=mine.url)
        assert (theirs.requests, len(mine.bodies), mine.keys) == (0, 2, {"sk-mine"})

    @pytest.mark.parametrize("how", ["option", "base_url", "environment"])
    def test_the_same_address_named_by_the_user_is_a_yes(
        self, servers, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        theirs, _ = servers
        if how == "environment":
            monkeypatch.setenv("OPENAI_BASE_URL", f"{theirs.url}/")
        self.label(
            theirs,
            f"openai:m@{theirs.url}" if how == "option" else None,
            base_url=theirs.url if how == "base_url" else None,
        )
        assert (len(theirs.bodies), theirs.keys) == (2, {"sk-mine"})


def test_data_errors_come_before_any_model(tmp_path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        pipeline.induce(tmp_path / "nothing.csv", generator="hf:nobody/nothing")


class AtStep(Quiet):
    """Does something at the first step whose name begins so."""

    def __init__(self, name: str, action: Callable[[], object]) -> None:
        self._name, self._action = name, action

    def step(self, name: str, total: int | None = None, unit: Unit = "rows") -> None:  # noqa: ARG002
        """See `Progress`."""
        if name.startswith(self._name):
            self._name = "\0"
            self._action()


def induced(server: FaultyServer, output: Path, progress: Progress, **changes: Any) -> pipeline.Induced:
    endpoint = {"base_url": server.url}
    given = {"generator": "openai:m", "mode": "generate", "n": 6, "evaluate": 6, "endpoint": endpoint} | changes
    return pipeline.induce(demo_path(), output=output, progress=progress, **given)


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
    with serving(FaultyServer()) as server, pytest.raises(ScoreRefusedError):
        induced(server, path, AtStep("Scoring", lambda: setattr(server, "default", "context")))
    assert Instruction.load(path).text


def test_a_file_that_appears_meanwhile_stays_and_the_instruction_is_saved_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "i.json"
    with serving(FaultyServer()) as server:
        result = induced(server, path, AtStep("Loading", lambda: path.write_text("another's")))
    assert path.read_text() == "another's"
    assert result.path == tmp_path / "i-2.json"
    assert Instruction.load(tmp_path / "i-2.json") == result.instruction


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
