"""Shortlists: which labels are compared, with what accuracy, and what the instruction records."""

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
    """Knows the word of each label, and records the number of options per call."""

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
def test_comparing_a_few_labels_gives_the_same_answers_as_comparing_all(calibration: str) -> None:
    short, full = prepared(calibration=calibration), prepared(calibration=calibration, shortlist="none")
    assert short.shortlist is not None
    assert (short.shortlist.size, short.shortlist.recall, short.shortlist.rows) == (FEWEST, 1.0, len(LABELS))
    model = Counting()
    few, many = (score(Follower(model), instruction, QUERY) for instruction in (short, full))
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


def test_a_saved_shortlist_is_used_after_loading(tmp_path: Path) -> None:
    saved = prepared()
    loaded = Instruction.load(saved.save(tmp_path / "saved.json"))
    assert loaded == saved
    assert str(loaded.shortlist) == "a shortlist of 8 labels by tfidf, recall 1.000 on 40 rows"
    texts = [example.text for example in QUERY]
    assert Follower(Counting()).predict(loaded, texts) == Follower(Counting()).predict(saved, texts)
    assert saved.key != prepared(shortlist="none").key


def test_a_shortlist_does_not_apply_to_a_changed_text(tmp_path: Path) -> None:
    changed = prepared().model_copy(update={"text": TEXT + "\nLook twice."})
    model = Counting()
    Follower(model).predict(changed, ["is kiloa there"])
    assert model.sizes == [len(LABELS)]
    assert Instruction.load(changed.save(tmp_path / "changed.json")).shortlist is None
    assert prepared(changed).shortlist is not None


def test_uninformative_descriptions_give_no_shortlist() -> None:
    instruction = prepared(LINES.model_copy(update={"text": "Decide well."}))
    assert instruction.shortlist is None
    assert any("all 40 labels are compared" in note for note in instruction.provenance.notes)


def test_a_text_is_not_compared_with_its_own_copy_in_the_prompt() -> None:
    model = Counting()
    shown = InContext(model).induce(SUPPORT)
    assert all(word in shown.text for word in WORDS)
    assert prepared(shown).shortlist is None  # each word is shown once, so without it nothing identifies the label
    twice = Support(
        LABELS,
        (*SUPPORT.examples, *(Example(f"more {word}", label) for label, word in zip(LABELS, WORDS, strict=True))),
    )
    shortlist = shortlisted(InContext(model).induce(twice), twice, "tfidf").shortlist
    assert shortlist is not None
    assert shortlist.recall == 1.0


def test_there_is_no_shortlist_for_few_labels_or_without_likelihoods() -> None:
    few = Support(LABELS[:MANY], SUPPORT.examples[:MANY])
    assert shortlisted(LINES.model_copy(update={"labels": few.labels}), few, "tfidf").shortlist is None
    model = ScriptedModel(reply=[LABELS[0]], score=lambda _chat, _option: 0.0, gives_scores=False)
    assert Follower(model, shortlist="tfidf").prepare(LINES, SUPPORT).shortlist is None
    assert Follower(Counting(), "generate", shortlist="tfidf").prepare(LINES, SUPPORT).shortlist is None


def test_a_failed_call_keeps_its_position() -> None:
    instruction, working = prepared(), Counting()
    failure = Failure(FailureKind.TIMEOUT, "too slow")
    choose = working.choose
    answers = Follower(working).predict(instruction, ["is kiloa there", "is nanoc there"])
    assert [answer.label for answer in answers] == ["label-00", "label-22"]

    class Failing(Counting):
        def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
            return [
                failure if "nanoc" in chat[-1]["content"].splitlines()[-1] else choose([chat], options)[0]
                for chat in chats
            ]

    answers = Follower(Failing()).predict(instruction, ["is nanoc there", "is kiloa there"])
    assert [(answer.label, answer.failure) for answer in answers] == [(None, failure), ("label-00", None)]


def test_a_call_fails_if_the_instruction_fills_the_context() -> None:
    predictions = Follower(Counting(context_length=150)).predict(prepared(), ["is kiloa there"] * 2)
    assert [answer.failure and answer.failure.kind for answer in predictions] == [FailureKind.CONTEXT] * 2


def test_a_line_belongs_to_the_longest_matching_label() -> None:
    labels = ("card", "card_fee", "Lost Card")
    text = "A bank.\n1. card: plastic\n**card_fee** - money\n  and more of it\nlost card: gone\ncardinal: no label"
    assert descriptions(text, labels) == (
        "card plastic",
        "card fee money   and more of it",
        "Lost Card gone cardinal: no label",
    )


def test_numbers_as_labels_have_their_own_lines() -> None:
    text = "7: late\n- 17: lost\n- **27**: 7 days\n117: none"
    assert descriptions(text, ("7", "17", "27")) == ("7 late", "17 lost", "27 7 days 117: none")


def test_labels_without_a_letter_can_be_told_apart() -> None:
    assert descriptions("\U0001f600: joy\n- \U0001f622: grief", ("\U0001f600", "\U0001f622", "+")) == (
        "\U0001f600 joy",
        "\U0001f622 grief",
        "+",
    )


def test_no_texts_need_no_shortlist() -> None:
    assert Follower(Counting()).predict(prepared(), []) == []


def test_labels_that_differ_in_case_only_have_their_own_lines_and_examples() -> None:
    text = "Apple: phones\n- apple: fruit\nUS Citizens: people\n\nInput: a mac\nLabel: Apple"
    described = descriptions(text, ("Apple", "apple", "US", "us citizens"))
    assert described == ("Apple phones a mac", "apple fruit", "US", "us citizens people")


def test_a_label_that_grows_when_folded_loses_nothing_of_its_line() -> None:
    assert descriptions("Straße: a road\nweg: a path", ("straße", "weg")) == ("straße a road", "weg a path")


numbers = st.floats(-20, 0)


@given(st.lists(numbers, min_size=4, max_size=4), st.lists(numbers, min_size=3, max_size=8), st.data())
def test_a_bias_can_be_estimated_from_shortlisted_scores(
    bias: list[float], rows: list[float], data: st.DataObject
) -> None:
    logp = np.add.outer(np.array(rows), np.array(bias))
    # The first label is compared in every row, which links all other labels to it.
    hidden = [data.draw(st.integers(1, 3)) for _ in rows]
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
