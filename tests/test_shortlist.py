"""Many labels made few: which are compared, what that costs, and what is said of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii import Example, Follower, Instruction, Naive, ScriptedModel, Support
from promptmii.calibrate import apply, centre, fit_supervised, normalise
from promptmii.inducers import InContext
from promptmii.models.base import Chat, Choice, Failure, FailureKind
from promptmii.scoring import score
from promptmii.shortlist import FEWEST, MANY, descriptions, shortlisted

WORDS = [f"{first}{second}" for first in ("kilo", "mega", "nano", "pico") for second in "abcdefghij"]
LABELS = tuple(f"label-{number:02}" for number in range(len(WORDS)))
TEXT = "Notes of a lab.\n" + "\n".join(f"- {label}: about {word}" for label, word in zip(LABELS, WORDS, strict=True))
SUPPORT = Support(
    LABELS, tuple(Example(f"we saw {word} today", label) for label, word in zip(LABELS, WORDS, strict=True))
)
QUERY = [Example(f"is {word} there", label) for label, word in zip(LABELS, WORDS, strict=True)]
LINES = Naive().induce(SUPPORT).model_copy(update={"text": TEXT})
BIAS = {label: float(number % 5) for number, label in enumerate(LABELS)}


class Counting(ScriptedModel):
    """Knows which word is a label's, and how many labels it was asked about."""

    def __init__(self, context_length: int = 100_000) -> None:
        super().__init__(score=self._likelihood, context_length=context_length)
        self.sizes: list[int] = []

    def _likelihood(self, chat: Chat, option: str) -> float:
        word = WORDS[LABELS.index(option)]
        return 3.0 * (word in chat[-1]["content"].splitlines()[-1]) + BIAS[option]

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        self.sizes += [len(options)] * len(chats)
        return super().choose(chats, options)


def prepared(instruction: Instruction = LINES, calibration: str = "support", shortlist: str = "tfidf") -> Instruction:
    return Follower(Counting(), "choose", calibration, shortlist).prepare(instruction, SUPPORT)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("calibration", ["none", "contextual", "support", "supervised"])
def test_few_labels_are_compared_and_the_answers_are_those_of_all(calibration: str) -> None:
    made, whole = prepared(calibration=calibration), prepared(calibration=calibration, shortlist="none")
    assert made.shortlist is not None
    assert (made.shortlist.size, made.shortlist.recall, made.shortlist.rows) == (FEWEST, 1.0, len(LABELS))
    model = Counting()
    few, many = (score(Follower(model), one, QUERY) for one in (made, whole))
    assert model.sizes == [FEWEST] * len(QUERY) + [len(LABELS)] * len(QUERY)
    assert few.measurement().shortlist_recall == 1.0
    assert many.measurement().shortlist_recall is None
    if calibration in ("contextual", "support"):
        assert few.macro_f1 == many.macro_f1 == 1.0
    elif calibration == "supervised":
        assert (few.macro_f1 or 0) > 0.9
    for prediction in few.predictions:
        compared = [p for label, p in zip(LABELS, prediction.probabilities or (), strict=True) if p > 0]
        assert len(compared) == FEWEST
        assert sum(compared) == pytest.approx(1)


def test_the_artefact_says_it_and_keeps_to_it(tmp_path: Path) -> None:
    made = prepared()
    loaded = Instruction.load(made.save(tmp_path / "made.json"))
    assert loaded == made
    assert str(loaded.shortlist) == "a shortlist of 8 labels by tfidf, recall 1.000 on 40 rows"
    texts = [example.text for example in QUERY]
    assert Follower(Counting()).predict(loaded, texts) == Follower(Counting()).predict(made, texts)
    assert made.key != prepared(shortlist="none").key


def test_another_text_has_no_shortlist_until_one_is_chosen(tmp_path: Path) -> None:
    changed = prepared().model_copy(update={"text": TEXT + "\nLook twice."})
    model = Counting()
    Follower(model).predict(changed, ["is kiloa there"])
    assert model.sizes == [len(LABELS)]
    assert Instruction.load(changed.save(tmp_path / "changed.json")).shortlist is None
    assert prepared(changed).shortlist is not None


def test_lines_that_say_too_little_make_no_shortlist() -> None:
    made = prepared(LINES.model_copy(update={"text": "Decide well."}))
    assert made.shortlist is None
    assert any("all 40 labels are compared" in note for note in made.provenance.notes)


def test_a_text_never_finds_its_label_by_standing_in_the_prompt() -> None:
    model = Counting()
    shown = InContext(model).induce(SUPPORT)
    assert all(word in shown.text for word in WORDS)
    assert prepared(shown).shortlist is None  # each word is shown once, so without it nothing tells the label
    twice = Support(
        LABELS,
        (*SUPPORT.examples, *(Example(f"more {word}", label) for label, word in zip(LABELS, WORDS, strict=True))),
    )
    found = shortlisted(InContext(model).induce(twice), twice, "tfidf").shortlist
    assert found is not None
    assert found.recall == 1.0


def test_few_labels_and_models_without_likelihoods_have_none() -> None:
    few = Support(LABELS[:MANY], SUPPORT.examples[:MANY])
    assert shortlisted(LINES.model_copy(update={"labels": few.labels}), few, "tfidf").shortlist is None
    model = ScriptedModel(reply=[LABELS[0]], score=lambda _chat, _option: 0.0, gives_scores=False)
    assert Follower(model, shortlist="tfidf").prepare(LINES, SUPPORT).shortlist is None
    assert Follower(Counting(), "generate", shortlist="tfidf").prepare(LINES, SUPPORT).shortlist is None


def test_a_failed_call_stays_where_it_is() -> None:
    made, broken = prepared(), Counting()
    failure = Failure(FailureKind.TIMEOUT, "too slow")
    choose = broken.choose
    answers = Follower(broken).predict(made, ["is kiloa there", "is nanoc there"])
    assert [answer.label for answer in answers] == ["label-00", "label-22"]

    class Failing(Counting):
        def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
            return [
                failure if "nanoc" in chat[-1]["content"].splitlines()[-1] else choose([chat], options)[0]
                for chat in chats
            ]

    answers = Follower(Failing()).predict(made, ["is nanoc there", "is kiloa there"])
    assert [(answer.label, answer.failure) for answer in answers] == [(None, failure), ("label-00", None)]


def test_a_shortlist_whose_instruction_fills_the_context_fails_rather_than_scores() -> None:
    predictions = Follower(Counting(context_length=150)).predict(prepared(), ["is kiloa there"] * 2)
    assert [answer.failure and answer.failure.kind for answer in predictions] == [FailureKind.CONTEXT] * 2


def test_the_longest_name_owns_a_line() -> None:
    labels = ("card", "card_fee", "Lost Card")
    text = "A bank.\n1. card: plastic\n**card_fee** - money\n  and more of it\nlost card: gone\ncardinal: no label"
    assert descriptions(text, labels) == (
        "card plastic",
        "card fee money   and more of it",
        "Lost Card gone cardinal: no label",
    )


numbers = st.floats(-20, 0)


@given(st.lists(numbers, min_size=4, max_size=4), st.lists(numbers, min_size=3, max_size=8), st.data())
def test_what_was_compared_is_enough_to_find_a_bias(bias: list[float], rows: list[float], data: st.DataObject) -> None:
    logp = np.add.outer(np.array(rows), np.array(bias))
    hidden = [
        data.draw(st.integers(1, 3)) for _ in rows
    ]  # the first label is compared everywhere, so all are connected
    for row, label in zip(logp, hidden, strict=True):
        row[label] = -np.inf
    fitted = centre("support", logp)
    seen = np.isfinite(logp).any(axis=0)
    expected = np.array(bias)[seen].mean() - np.array(bias)
    assert np.allclose(np.array(fitted.offset)[seen], expected[seen], atol=1e-6)
    mapped = apply(fitted, normalise(logp))
    assert (np.isneginf(mapped) == np.isneginf(logp)).all()
    assert np.exp(mapped).sum(axis=1) == pytest.approx(1)
    assert np.isfinite(fit_supervised(normalise(logp), [0] * len(rows)).scale).all()
