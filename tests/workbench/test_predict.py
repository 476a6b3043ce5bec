"""Labels for tables and texts."""

import csv

import pytest
from tests.models.faulty_server import FaultyServer, serving
from tests.workbench.keyword import keyword

from promptmii import Follower, Instruction, Naive, ScriptedModel, Support, workbench
from promptmii.config import Endpoint
from promptmii.errors import DataError, EndpointError
from promptmii.models.base import Failure, FailureKind


def test_predict_keeps_rows_columns_and_order_and_skips_empty_texts(tmp_path) -> None:
    source = tmp_path / "new.csv"
    source.write_text('id,text\n7,"a refund, please"\n8,\n9,where is the delivery\n', encoding="utf-8")
    model = ScriptedModel(score=keyword)
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    result = workbench.predict(instruction, str(source), Follower(model))
    rows = list(csv.DictReader(result.csv().splitlines()))
    assert [(row["id"], row["predicted_label"]) for row in rows] == [("7", "refund"), ("8", ""), ("9", "delivery")]
    assert len(model.calls) == 2
    assert float(rows[0]["p(refund)"]) == float(rows[0]["probability"]) > 0.5


def test_the_columns_do_not_depend_on_the_first_row(tmp_path) -> None:
    source = tmp_path / "new.csv"
    source.write_text("id,text\n1,\n2,a refund\n", encoding="utf-8")
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    result = workbench.predict(instruction, str(source), Follower(ScriptedModel(score=keyword)))
    rows = list(csv.DictReader(result.csv().splitlines()))
    assert [(row["predicted_label"], row["probability"] > "0.5") for row in rows] == [("", False), ("refund", True)]


def test_columns_of_the_input_are_not_overwritten() -> None:
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    rows = [{"text": "a refund", "predicted_label": "delivery"}]
    with pytest.raises(DataError, match="already has a column 'predicted_label'"):
        workbench.predict(instruction, rows, Follower(ScriptedModel(score=keyword)))


def test_an_answer_that_names_no_label_is_shown_and_told_from_an_empty_text() -> None:
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    writes = Follower(ScriptedModel(["refund", "I cannot\nsay."]), "generate")
    result = workbench.predict(instruction, ["a refund", "hello", ""], writes)
    answers = [(row["predicted_label"], row["model_answer"], row["failure"]) for row in result.rows]
    assert answers == [("refund", "", ""), ("", "I cannot\nsay.", ""), ("", "", "")]
    assert result.tally.unread == "I cannot\nsay."
    compares = workbench.predict(instruction, ["a refund"], Follower(ScriptedModel(score=keyword)))
    assert "model_answer" not in compares.columns


def test_rows_that_wait_for_a_batch_are_no_outage() -> None:
    """The Batch API queues each row of a run before it answers any."""
    waiting = Failure(FailureKind.UNANSWERED, "its batch is not finished")
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    texts = [f"a refund {i}" for i in range(300)]
    result = workbench.predict(instruction, texts, Follower(ScriptedModel(score=lambda *_: waiting)))
    assert result.n_failed == 300


def test_empty_texts_do_not_hide_an_outage() -> None:
    down = Failure(FailureKind.CONNECTION, "refused")
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    texts = ["" if i % 10 == 0 else f"a refund {i}" for i in range(600)]
    with pytest.raises(EndpointError, match="answered none of the first 256 rows"):
        workbench.predict(instruction, texts, Follower(ScriptedModel(score=lambda *_: down)))


def test_the_seconds_of_a_few_rows_are_not_divided_by_threads_that_had_none() -> None:
    instruction = Instruction(text="", labels=("free", "spam"), method="naive", mode="generate")
    with serving(FaultyServer(default="slow")) as server:
        followers = workbench.Followers("openai:m", Endpoint.of(base_url=server.url, concurrency=8))
        done = workbench.predict(instruction, ["a text"], followers)
        followers.close()
    assert done.cost.seconds > 0.1
