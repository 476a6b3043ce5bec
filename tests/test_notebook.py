"""Results in a notebook and at a prompt are short, and safe for any content."""

from pathlib import Path
from typing import Any

import pytest

from promptmii import Example, Follower, Naive, ScriptedModel, Support, compare, induce, predict, score

EVIL = "<script>alert(1)</script>"
ROWS = [{"text": f"{word} number {i}", "label": word} for i in range(12) for word in ("money", f"parcel {EVIL}")]


def likelihood(chat: Any, label: str) -> float:
    return float(label in chat[-1]["content"].splitlines()[-1])


MODEL = ScriptedModel(reply=[f"Tickets. {EVIL}\nmoney: it."], score=likelihood)


def results() -> list[Any]:
    made = Naive().induce(Support(("money", f"parcel {EVIL}"), (Example("x", "money"),)))
    measured = score(made, ROWS, MODEL)
    induced = induce(ROWS, n=4, evaluate=8, models=lambda _: MODEL)
    compared = compare([made, f"Say which. {EVIL}"], ROWS, Follower(MODEL))
    labelled = predict(made, [f"my parcel {EVIL}", None], MODEL)
    return [made, measured.instruction, measured, measured.scored, induced, induced.instruction, compared, labelled]


@pytest.mark.parametrize("result", results(), ids=lambda result: type(result).__name__)
def test_results_are_short_as_text_and_safe_as_html(result: Any) -> None:
    assert repr(result).startswith(f"<{type(result).__name__} ")
    assert len(repr(result)) < 250
    assert "\n" not in repr(result)
    html = result._repr_html_()
    assert "<script>" not in html
    assert html.count("<td>") == html.count("</td>") > 0


def test_files_work_like_objects(tmp_path: Path) -> None:
    made = Naive().induce(Support(("money", "parcel"), ()))
    path = made.save(tmp_path / "made.json")
    (answer,) = predict(path, ["where is my parcel?"], Follower(MODEL)).predictions
    assert answer.label == "parcel"
    assert predict(str(path), ["money!"], MODEL).predictions[0].label == "money"
