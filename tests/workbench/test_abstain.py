"""Thresholds below which a row gets no label."""

import random
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workbench.keyword import keyword
from tests.workbench.test_growing_table import Dying

from promptmii import Follower, Naive, ScriptedModel, Support, workbench
from promptmii.errors import ConfigError, DataError, OutputError, UnsupportedError
from promptmii.instruction import Mode
from promptmii.workbench.abstain import choose_threshold

INSTRUCTION = Naive().induce(Support(("delivery", "refund"), ()))
SURE, UNSURE = "a refund", "who knows"
ROWS = st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=1, max_size=60)


def test_a_row_below_the_threshold_has_an_unsure_label() -> None:
    done = workbench.predict(
        INSTRUCTION, [SURE, UNSURE, ""], Follower(ScriptedModel(score=keyword)), abstain=workbench.Abstain(0.6)
    )
    assert [(row["predicted_label"], row["unsure_label"]) for row in done.rows] == [
        ("refund", ""),
        ("", "delivery"),
        ("", ""),
    ]
    assert done.rows[1]["probability"] == 0.5
    assert (done.tally.labelled, done.tally.unsure, done.tally.failed) == (1, 1, 0)


def test_without_a_threshold_there_is_no_unsure_column() -> None:
    done = workbench.predict(INSTRUCTION, [UNSURE], Follower(ScriptedModel(score=keyword)))
    assert "unsure_label" not in done.columns
    assert done.rows[0]["predicted_label"] == "delivery"


def test_a_threshold_is_chosen_on_held_back_rows(tmp_path) -> None:
    labelled = [{"text": f"{SURE} {i}", "label": "refund"} for i in range(30)]
    labelled += [{"text": f"{UNSURE} {i}", "label": ("refund", "delivery")[i % 2]} for i in range(30)]
    wanted = workbench.Abstain(precision=0.9, held_back=labelled)
    first = ScriptedModel(score=keyword)
    output = tmp_path / "out.csv"
    done = workbench.predict(INSTRUCTION, [SURE, UNSURE], Follower(first), output=output, abstain=wanted)
    assert (done.tally.labelled, done.tally.unsure, len(first.calls)) == (1, 1, 62)
    assert done.threshold is not None
    assert done.threshold.chosen is not None
    assert 0.5 < done.threshold.value <= 0.8808
    assert (done.threshold.chosen.rows, done.threshold.chosen.kept) == (60, 30)
    assert done.threshold.chosen.precision == 1
    assert done.threshold.chosen.low < 0.9  # 30 rows say no more
    assert "More rows would tell" in str(done.threshold.chosen)


@pytest.mark.parametrize(
    "options", [{"threshold": 0.5, "precision": 0.9, "held_back": "a"}, {"precision": 0.9}, {"threshold": 1.2}]
)
def test_invalid_options_are_refused(options) -> None:
    with pytest.raises(ConfigError, match=r"--threshold|--precision|expected more than 0"):
        workbench.Abstain(**options)


def test_a_threshold_needs_probabilities_before_any_call() -> None:
    model = ScriptedModel(score=keyword, gives_scores=False)
    advice: dict[Mode, str] = {
        "choose": "Use a follower with likelihoods",
        "generate": "Use --mode choose and a follower",
    }
    for mode, remedy in advice.items():
        with pytest.raises(UnsupportedError, match=rf"needs probabilities, and .* in mode {mode}\. {remedy}"):
            workbench.predict(INSTRUCTION, [SURE], Follower(model, mode), abstain=workbench.Abstain(0.5))
    assert not model.calls


def test_an_unreachable_precision_is_an_error() -> None:
    with pytest.raises(DataError, match=r"No threshold gives 90.0% precision on 4 held-back rows; the best is 50.0%"):
        choose_threshold([0.9, 0.8, 0.7, 0.6], [False, True, False, True], 0.9)


@given(ROWS, st.floats(0.1, 1))
def test_the_threshold_is_the_lowest_that_reaches_the_precision(rows, target) -> None:
    probabilities, right = zip(*rows, strict=True)

    def share(value: float) -> float:
        kept = [hit for p, hit in rows if p >= value]
        return sum(kept) / len(kept)

    reachable = [p for p in probabilities if share(p) >= target]
    if not reachable:
        with pytest.raises(DataError):
            choose_threshold(probabilities, right, target)
        return
    threshold = choose_threshold(probabilities, right, target)
    assert threshold.chosen is not None
    assert min(reachable) - 1e-6 <= threshold.value <= min(reachable)
    assert 0 <= threshold.chosen.low <= threshold.chosen.precision <= threshold.chosen.high <= 1


def test_the_interval_covers_the_precision_on_new_rows() -> None:
    """With calibrated probabilities, the true precision above a threshold is their mean."""
    stream = random.Random(0)
    inside = 0
    for _ in range(100):
        p = [stream.uniform(0.5, 1) for _ in range(200)]
        threshold = choose_threshold(p, [stream.random() < probability for probability in p], 0.9)
        assert threshold.chosen is not None
        inside += threshold.chosen.low <= (threshold.value + 1) / 2 <= threshold.chosen.high
    assert inside >= 90


def test_other_held_back_rows_do_not_resume_the_run(tmp_path: Path) -> None:
    held_back = pd.DataFrame({"text": [f"{SURE} {i}" for i in range(40)], "label": ["refund", "delivery"] * 20})
    held_back["on"] = pd.Timestamp("2026-01-01")
    new, output = [f"{SURE} {i}" for i in range(60)], tmp_path / "out.csv"

    def run(rows: pd.DataFrame, model: ScriptedModel) -> workbench.Labelled:
        wanted = workbench.Abstain(precision=0.4, held_back=rows)
        return workbench.predict(INSTRUCTION, new, Follower(model), output=output, abstain=wanted)

    with pytest.raises(KeyboardInterrupt):
        run(held_back, Dying(80))
    with pytest.raises(OutputError, match="started with another threshold"):
        run(held_back.head(20), ScriptedModel(score=keyword))
    assert run(held_back, ScriptedModel(score=keyword)).tally.rows == 60
