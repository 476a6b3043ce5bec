"""The follower and scoring, with scripted models."""
# pyright: reportArgumentType=false

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii import Example, Follower, Instruction, Naive, ScriptedModel, Support
from promptmii.calibration_kinds import READS, Reads
from promptmii.errors import ScoreRefusedError, UnsupportedError
from promptmii.inducers import InContext
from promptmii.models.base import Failure, FailureKind
from promptmii.scoring import score
from promptmii.task import row_key

SUPPORT = Support(("a", "b", "c"), tuple(Example(f"text {label} {i}", label) for i in range(3) for label in "abc"))
QUERY = [Example(f"query {label} {i}", label) for i in range(4) for label in "abc"]
CALIBRATIONS = [kind for kind, reads in READS.items() if reads is not Reads.NOTHING]
BIAS = {"a": 5.0, "b": 0.0, "c": -3.0}


def biased(chat, option: str) -> float:
    """Knows the answer, but prefers some labels."""
    words = chat[-1]["content"].splitlines()[-1].strip('"').split()
    return 2.0 * (option in words) + BIAS[option]


def macro_f1(calibration: str) -> float | None:
    follower = Follower(ScriptedModel(score=biased), "choose", calibration)
    instruction = follower.prepare(Naive().induce(SUPPORT), SUPPORT)
    return score(follower, instruction, QUERY).macro_f1


def test_calibration_removes_a_bias() -> None:
    assert macro_f1("none") == pytest.approx(1 / 6)
    assert {kind: macro_f1(kind) for kind in CALIBRATIONS} == dict.fromkeys(CALIBRATIONS, 1)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_a_label_of_many_words_is_not_too_unlikely_to_be_calibrated(calibration: str) -> None:
    model = ScriptedModel(score=lambda chat, option: biased(chat, option) - 200.0 * (option == "b"))
    follower = Follower(model, "choose", calibration)
    assert score(follower, follower.prepare(Naive().induce(SUPPORT), SUPPORT), QUERY).macro_f1 == 1


@pytest.mark.parametrize("calibration", ["none", "support", "batch"])
def test_instructions_followed_together_give_the_same_answers_as_alone(calibration: str) -> None:
    model = ScriptedModel(score=biased)
    follower = Follower(model, "choose", calibration)
    few = Support(("a", "b"), tuple(e for e in SUPPORT.examples if e.label != "c"))
    instructions = [
        *(follower.prepare(method.induce(SUPPORT), SUPPORT) for method in (Naive(), InContext(model))),
        follower.prepare(Naive().induce(few), few),
    ]
    texts = ["query a", "query c", "query b"]
    alone = [
        follower.predict(instruction, texts[:count]) for instruction, count in zip(instructions, (3, 2, 0), strict=True)
    ]
    assert (
        follower.predict_each([(instructions[0], texts), (instructions[1], texts[:2]), (instructions[2], [])]) == alone
    )
    assert [len(predictions) for predictions in alone] == [3, 2, 0]


def test_a_stored_calibration_gives_the_same_answers_from_a_file(tmp_path) -> None:
    model = ScriptedModel(score=biased)
    instruction = Follower(model, "choose", "supervised").prepare(Naive().induce(SUPPORT), SUPPORT)
    loaded = Instruction.load(instruction.save(tmp_path / "i.json"))
    assert instruction.cost.calls == 0
    assert instruction.calibration_cost.calls == len(SUPPORT.examples)
    texts = [example.text for example in QUERY]
    predictions = Follower(model).predict(loaded, texts)
    assert predictions == Follower(model).predict(instruction, texts)
    assert all(sum(p.probabilities or ()) == pytest.approx(1) for p in predictions)


def test_a_calibration_is_not_applied_to_another_model() -> None:
    instruction = Follower(ScriptedModel(score=biased), "choose", "support").prepare(Naive().induce(SUPPORT), SUPPORT)
    plain = instruction.model_copy(update={"calibration": None})
    other = Follower(ScriptedModel(score=biased, name="other"))
    texts = [example.text for example in QUERY]
    assert other.predict(instruction, texts) == other.predict(plain, texts)
    assert other.own_calibration(instruction) is None
    assert Follower(ScriptedModel(score=biased)).predict(instruction, texts) != other.predict(instruction, texts)


def test_a_note_says_that_batch_calibration_is_not_stored() -> None:
    instruction = Follower(ScriptedModel(score=biased), "choose", "batch").prepare(Naive().induce(SUPPORT), SUPPORT)
    assert any("batch" in note for note in instruction.provenance.notes)


def test_a_note_on_a_calibration_goes_with_it() -> None:
    batch = Follower(ScriptedModel(score=biased), "choose", "batch").prepare(Naive().induce(SUPPORT), SUPPORT)
    refitted = Follower(ScriptedModel(score=biased), "choose", "support").prepare(batch, SUPPORT)
    assert not refitted.provenance.notes


def test_a_calibration_does_not_depend_on_the_order_of_the_labels_in_the_support() -> None:
    follower = Follower(ScriptedModel(score=biased), "choose", "supervised")
    instruction = Naive().induce(SUPPORT)
    reversed_labels = Support(SUPPORT.labels[::-1], SUPPORT.examples)
    assert follower.prepare(instruction, reversed_labels).calibration == (
        follower.prepare(instruction, SUPPORT).calibration
    )


def test_calibration_needs_likelihoods() -> None:
    with pytest.raises(UnsupportedError):
        Follower(ScriptedModel(score=biased, gives_scores=False), "choose", "support")
    with pytest.raises(UnsupportedError):
        Follower(ScriptedModel(score=biased), "generate", "support")


@given(
    st.lists(
        st.text(alphabet="ab,_ 体é", min_size=1, max_size=8).map(str.strip).filter(bool),
        min_size=2,
        max_size=150,
        unique=True,
    )
)
def test_choose_distinguishes_all_labels(labels: list[str]) -> None:
    clean = [f"{i} {' '.join(label.split())}" for i, label in enumerate(labels)]
    model = ScriptedModel(score=lambda chat, option: float(f"={option}=" in chat[-1]["content"].splitlines()[-1]))
    instruction = Naive().induce(Support(tuple(clean), ()))
    assert [p.label for p in Follower(model).predict(instruction, [f"={label}=" for label in clean])] == clean


@pytest.mark.parametrize("likelihood", [math.nan, -math.inf])
def test_likelihoods_that_name_no_likeliest_label_are_a_failure(likelihood: float) -> None:
    follower = Follower(ScriptedModel(score=lambda chat, _: likelihood if "odd" in chat[-1]["content"] else -1.0))
    odd, even = follower.predict(Naive().induce(SUPPORT), ["odd", "even"])
    assert odd.label is None
    assert (odd.failure and odd.failure.kind) is FailureKind.BAD_ANSWER
    assert even.label == "a"


def test_a_failure_prevents_a_score() -> None:
    def flaky(chat, option):
        return Failure(FailureKind.SERVER, "down") if "query b 1" in chat[-1]["content"] else biased(chat, option)

    scored = score(Follower(ScriptedModel(score=flaky)), Naive().induce(SUPPORT), QUERY)
    assert (scored.n, scored.n_failed, scored.macro_f1, scored.accuracy) == (12, 1, None, None)
    assert sum(label is not None for label in scored.labels) == 11
    with pytest.raises(ScoreRefusedError):
        scored.measurement()


def test_long_texts_are_cut_in_the_middle_and_counted() -> None:
    model = ScriptedModel(
        score=lambda chat, option: float(len([*chat[-1]["content"].split(), option]) < 300), context_length=300
    )
    instruction = Naive().induce(SUPPORT)
    predictions = Follower(model).predict(instruction, ["first " + "word " * 900 + "last", "short"])
    assert [p.truncated for p in predictions] == [True, False]
    content = model.calls[0][-1]["content"]
    assert "first" in content
    assert "last" in content
    assert len(content.split()) < 300


class Narrow(ScriptedModel):
    """Refuses a prompt that does not fit its context together with the answer."""

    def generate(self, chats, sampling):
        room = self.card.context_length - sampling.max_tokens
        fits = [sum(self.count_tokens([message["content"] for message in chat])) <= room for chat in chats]
        answers = iter(super().generate([chat for chat, fit in zip(chats, fits, strict=True) if fit], sampling))
        return [next(answers) if fit else Failure(FailureKind.CONTEXT, "too long") for fit in fits]


@pytest.mark.parametrize("answer", [None, 150])
def test_a_long_text_leaves_room_for_the_answer(answer: int | None) -> None:
    instruction = Naive().induce(SUPPORT).model_copy(update={"longest_answer": answer})
    follower = Follower(Narrow(reply=["a"], context_length=400), "generate")
    (prediction,) = follower.predict(instruction, ["word " * 900])
    assert (prediction.label, prediction.truncated) == ("a", True)


@pytest.mark.parametrize("empty", ["", " \n", "\t"])
def test_an_empty_answer_is_a_failure_as_it_is_on_servers(empty: str) -> None:
    follower = Follower(ScriptedModel([empty, "a"]), "generate")
    scored = score(follower, Naive().induce(SUPPORT), QUERY[:2])
    first, second = scored.predictions
    assert first.failure is not None
    assert first.failure.kind is FailureKind.BAD_ANSWER
    assert "wrote nothing" in first.failure.message
    assert second.label == "a"
    assert (scored.n_failed, scored.n_unparsed, scored.macro_f1) == (1, 0, None)


def test_an_instruction_that_fills_the_context_fails_rather_than_scores() -> None:
    instruction = Instruction(text="word " * 500, labels=("a", "b"), method="human")
    predictions = Follower(ScriptedModel(score=biased, context_length=300)).predict(instruction, ["long " * 60])
    assert [p.failure and p.failure.kind for p in predictions] == [FailureKind.CONTEXT]


def test_generate_reads_labels_and_counts_unparsed_answers() -> None:
    model = ScriptedModel(reply=["Label: a", "b.", "no idea"])
    scored = score(
        Follower(model, "generate"), Naive().induce(SUPPORT), [Example("x", "a"), Example("y", "b"), Example("z", "c")]
    )
    assert scored.labels == ["a", "b", None]
    assert (scored.n_unparsed, scored.macro_f1) == (1, pytest.approx(2 / 3))


class Cut(ScriptedModel):
    """Runs out of tokens in every answer."""

    def generate(self, chats, sampling):
        return [replace(answer, truncated=True) for answer in super().generate(chats, sampling)]


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("spam", None),  # half of "spam link"
        ("", None),
        ("<think>Is it spam", None),
        ("spam\nbecause the te", "spam"),  # a finished line is an answer
        ("The label is spam.\n\nThe te", "spam"),
        ("It reads like spam.\nThe te", None),
    ],
)
def test_a_truncated_answer_is_a_failure_unless_its_label_is_on_a_complete_line(answer, label) -> None:
    instruction = Naive().induce(Support(("spam", "spam link"), ()))
    (prediction,) = Follower(Cut(reply=[answer]), "generate").predict(instruction, ["x"])
    assert prediction.label == label
    assert (prediction.failure is None) == (label is not None)


def test_an_answer_of_only_thinking_is_a_failure() -> None:
    instruction = Naive().induce(SUPPORT)
    replies = ["<think>a", "<think>a</think>", "<think>b</think>a"]
    predictions = Follower(ScriptedModel(reply=replies), "generate").predict(instruction, ["x", "y", "z"])
    assert [p.label for p in predictions] == [None, None, "a"]
    assert [p.failure and p.failure.kind for p in predictions] == [FailureKind.BAD_ANSWER] * 2 + [None]


@pytest.mark.parametrize("kind", [kind for kind, reads in READS.items() if reads is Reads.SUPPORT])
@pytest.mark.parametrize("n", [1, 3, 9])
def test_a_text_in_the_prompt_is_not_used_to_calibrate(kind: str, n: int) -> None:
    """Every support text is scored once, under a prompt that shows most others but not this one."""
    model = ScriptedModel(score=biased)
    support = Support(SUPPORT.labels, SUPPORT.examples[:n])
    instruction = InContext(model).induce(support)
    fitted = Follower(model, "choose", kind).prepare(instruction, support)
    prompts = [chat[-1]["content"] for chat in model.calls]
    for example in support.examples:
        (prompt,) = [prompt for prompt in prompts if prompt.endswith(f'Input: "{example.text}"')]
        assert prompt.count(example.text) == 1
        assert sum(other.text in prompt for other in support.examples) >= min(n, math.ceil(0.8 * n) - 1)
    assert len(prompts) == n
    assert fitted.text == instruction.text
    assert fitted.is_calibrated


def test_a_follower_that_repeats_shown_examples_is_calibrated_on_others() -> None:
    def parrot(chat, option: str) -> float:
        prompt = chat[-1]["content"]
        text = prompt.splitlines()[-1]
        return 50.0 if f"{text}\nLabel: {option}" in prompt else biased(chat, option)

    follower = Follower(ScriptedModel(score=parrot), "choose", "support")
    shown = follower.prepare(InContext(follower.model).induce(SUPPORT), SUPPORT)
    assert score(follower, shown, QUERY).macro_f1 == 1
    assert score(follower, shown, QUERY).uncalibrated_macro_f1 == pytest.approx(1 / 6)


@pytest.mark.parametrize("beginning", ["this is the long text ", "请问我的订单什么时候到"])
def test_texts_that_the_instruction_quotes_are_not_used_to_calibrate(beginning: str) -> None:
    quoted, *others = (Example(f"{beginning}{label} {i}", label) for i in range(2) for label in "ab")
    support = Support(("a", "b"), (quoted, *others))
    model = ScriptedModel(score=biased)
    follower = Follower(model, "choose", "support")
    text = f'Say a for texts like "{quoted.text.upper()}".'
    follower.prepare(Instruction(text=text, labels=support.labels, method="human"), support)
    assert len(model.calls) == 3
    everything = " ".join(example.text for example in support.examples)
    plain = follower.prepare(Instruction(text=everything, labels=support.labels, method="human"), support)
    assert plain.calibration is None
    assert plain.provenance.notes


def test_a_calibration_of_another_text_is_not_applied() -> None:
    follower = Follower(ScriptedModel(score=biased), "choose", "support")
    instruction = follower.prepare(Naive().induce(SUPPORT), SUPPORT)
    edited = instruction.model_copy(update={"text": "Decide."})
    assert follower.own_calibration(instruction) is instruction.calibration
    assert follower.own_calibration(edited) is None


def test_the_support_rows_are_recorded() -> None:
    prepared = Follower(ScriptedModel(score=biased)).prepare(Naive().induce(SUPPORT), SUPPORT)
    assert prepared.provenance.support_rows == tuple(row_key(example.text.upper()) for example in SUPPORT.examples)
