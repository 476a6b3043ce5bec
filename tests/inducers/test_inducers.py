"""Behaviour that is specific to one method; tests/contracts/test_inducers.py has what all share."""
# pyright: reportAttributeAccessIssue=false

import re
from dataclasses import replace
from itertools import count

import pytest

from promptmii import BestOf, Example, Follower, InContext, MetaInducer, Naive, ScriptedModel, Support, Writer
from promptmii.errors import ConfigError, EndpointError, SpendingLimitError
from promptmii.inducers import copied_runs
from promptmii.inducers.ape import APE
from promptmii.inducers.gepa import GEPA, SEED_INSTRUCTION
from promptmii.inducers.search import inner_split
from promptmii.instruction import CalibrationKind
from promptmii.models.base import Chat, Failure, FailureKind, Sampling, Usage
from promptmii.styles import read_style

SUPPORT = Support(
    ("money", "parcel"),
    tuple(
        Example(f"{word} text number {i}", label)
        for i in range(4)
        for word, label in (("pay", "money"), ("box", "parcel"))
    ),
)


def by_keyword(chat: Chat, option: str) -> float:
    """Score an option 1 if the instruction gives its cue word and the text contains it, else 0."""
    prompt = chat[-1]["content"]
    cue = {"money": "pay", "parcel": "box"}[option]
    return 1.0 if f"{option}: {cue}" in prompt and cue in prompt.splitlines()[-1] else 0.0


GOOD = "Label tickets.\nmoney: pay\nparcel: box"
BAD = "Label tickets somehow."


def writer(*replies: str | Failure, budget: int | None = None, context_length: int = 4096) -> Writer:
    return Writer(ScriptedModel(replies, by_keyword, context_length=context_length), budget=budget)


def follower() -> Follower:
    return Follower(ScriptedModel(score=by_keyword))


def test_naive_and_icl_call_no_model() -> None:
    model = ScriptedModel()
    assert Naive().induce(SUPPORT).cost.calls == InContext(model).induce(SUPPORT).cost.calls == 0
    assert model.calls == []


def test_icl_shows_the_examples_that_fit_and_counts_them() -> None:
    instruction = InContext(ScriptedModel(context_length=180)).induce(SUPPORT)
    shown = instruction.provenance.n
    assert 0 < shown < len(SUPPORT.examples)
    assert instruction.text.count("Input:") == shown
    assert f"{shown} of 8 examples" in instruction.provenance.notes[0]


def test_prompt_mii_makes_one_call_with_every_example() -> None:
    w = writer(GOOD)
    instruction = MetaInducer(w).induce(SUPPORT)
    assert (instruction.text, instruction.cost.calls, instruction.provenance.n) == (GOOD, 1, 8)
    prompt = w.model.calls[0][-1]["content"]
    assert all(example.text in prompt for example in SUPPORT.examples)


CONTRAST = read_style("contrast")


class Contrasting(ScriptedModel):
    """Supports contrast, and records the decoding settings of each call."""

    def __init__(self, context_length: int = 4096) -> None:
        super().__init__([GOOD], by_keyword, context_length=context_length)
        self._card = replace(self.card, contrasts=True)
        self.samplings: list[Sampling] = []

    def generate(self, chats, sampling):
        self.samplings.append(sampling)
        return super().generate(chats, sampling)


def test_the_contrast_shows_the_examples_with_exchanged_labels() -> None:
    model = Contrasting()
    assert MetaInducer(Writer(model, CONTRAST)).induce(SUPPORT).text == GOOD
    contrast = model.samplings[0].contrast
    assert contrast is not None
    ((request,), (wrong,)) = (model.calls[0], contrast.chat)
    exchanged = {"money": "parcel", "parcel": "money"}
    swapped = [replace(example, label=exchanged[example.label]) for example in SUPPORT.examples]
    assert wrong["content"] == Writer(model).request(SUPPORT, swapped)["content"] != request["content"]


def test_there_is_no_contrast_if_it_is_meaningless_or_does_not_fit() -> None:
    same = Support(SUPPORT.labels, tuple(replace(example, label="money") for example in SUPPORT.examples))
    contrasting = Writer(Contrasting(), CONTRAST)
    assert contrasting.contrast(same, same.examples) is None
    assert contrasting.contrast(SUPPORT, SUPPORT.examples[:3]) is None
    assert contrasting.contrast(SUPPORT, SUPPORT.examples[:4]) is not None
    assert Writer(Contrasting(context_length=600), CONTRAST).contrast(SUPPORT, SUPPORT.examples) is None
    assert Writer(Contrasting()).contrast(SUPPORT, SUPPORT.examples) is None
    assert Writer(writer(GOOD).model, CONTRAST).contrast(SUPPORT, SUPPORT.examples) is None


def test_samples_use_a_contrast_and_retries_do_not() -> None:
    model = Contrasting()
    MetaInducer(Writer(model, CONTRAST, budget=4)).induce(SUPPORT)
    assert [sampling.contrast is not None for sampling in model.samplings] == [True, False]
    sampled = Contrasting()
    BestOf(Writer(sampled, CONTRAST), follower(), k=2).induce(SUPPORT)
    assert sampled.samplings[0].contrast is not None


@pytest.mark.parametrize(
    "answer", ["<think>hm", "<think>hm</think>", Failure(FailureKind.TIMEOUT, "too slow"), "", "  \n "]
)
def test_a_missing_or_empty_answer_is_an_error(answer: str | Failure) -> None:
    with pytest.raises(EndpointError):
        MetaInducer(writer(answer)).induce(SUPPORT)


@pytest.mark.parametrize("thought", ["<think>Order 7 is one of them.</think>", "Order 7 is one of them.</think>"])
def test_a_thought_is_not_part_of_the_instruction(thought: str) -> None:
    instruction = MetaInducer(Writer(ScriptedModel(reply=[f"{thought}\n\nDecide."]))).induce(SUPPORT)
    assert instruction.text == "Decide."


def test_a_small_context_of_the_generator_limits_the_examples() -> None:
    instruction = MetaInducer(writer(GOOD, context_length=290)).induce(SUPPORT)
    assert 0 < instruction.provenance.n < 8
    assert any("fit the generator's context" in note for note in instruction.provenance.notes)


def test_it_is_an_error_if_no_example_fits() -> None:
    with pytest.raises(ConfigError, match="Not one of 8 examples"):
        MetaInducer(writer(GOOD, context_length=200)).induce(SUPPORT)
    with pytest.raises(ConfigError, match="no examples to write an instruction from"):
        MetaInducer(writer(GOOD)).induce(Support(SUPPORT.labels, ()))


def test_the_prompt_names_the_budget_and_a_longer_draft_is_retried_once() -> None:
    long = "\n".join(f"line {i} of a guide that is too long" for i in range(6))
    w = Writer(ScriptedModel(lambda chat, _: GOOD if len(chat) == 3 else long), budget=12)
    instruction = MetaInducer(w).induce(SUPPORT)
    assert instruction.text == GOOD
    assert instruction.cost.calls == 2
    assert "at most 9 words" in w.model.calls[0][-1]["content"]


class Narrow(ScriptedModel):
    """Fails if the prompt and the answer together do not fit its context."""

    def generate(self, chats, sampling):
        (chat,) = chats
        words = sum(self.count_tokens([message["content"] for message in chat]))
        fits = words + sampling.max_tokens <= self.card.context_length
        return super().generate(chats, sampling) if fits else [Failure(FailureKind.CONTEXT, "too long")]


def test_the_retry_fits_the_context_even_with_as_many_examples_as_possible() -> None:
    many = tuple(Example(f"{i} " + "word " * 30, ("money", "parcel")[i % 2]) for i in range(60))
    model = Narrow(lambda chat, _: GOOD if len(chat) == 3 else "long " * 200, context_length=1000)
    instruction = MetaInducer(Writer(model, budget=100)).induce(Support(SUPPORT.labels, many))
    assert (instruction.text, instruction.cost.calls) == (GOOD, 2)
    assert 0 < instruction.provenance.n < 60


def test_a_second_draft_over_the_budget_is_trimmed_at_a_line_end_with_a_note() -> None:
    lines = [f"line {i} of five words" for i in range(6)]
    instruction = MetaInducer(writer("\n".join(lines), budget=12)).induce(SUPPORT)
    assert instruction.text == "\n".join(lines[:2])
    assert any("trimmed to the budget of 12" in note for note in instruction.provenance.notes)


def test_an_empty_second_draft_does_not_lose_the_first() -> None:
    model = ScriptedModel(lambda chat, _: "<think>Shorter?</think>" if len(chat) == 3 else "line one\nline two")
    instruction = MetaInducer(Writer(model, budget=2)).induce(SUPPORT)
    assert instruction.text == "line one"
    assert instruction.cost.calls == 2


def test_a_note_says_that_a_draft_was_cut_at_its_token_limit() -> None:
    endless = MetaInducer(writer("word " * 3000)).induce(SUPPORT)
    assert any("cut at 1024 tokens" in note for note in endless.provenance.notes)
    assert MetaInducer(writer(GOOD)).induce(SUPPORT).provenance.notes == ()


def test_a_single_long_line_is_trimmed_between_words() -> None:
    instruction = MetaInducer(writer("word " * 300, budget=10)).induce(SUPPORT)
    assert len(instruction.text.split()) == 10


class Characters(ScriptedModel):
    """Counts characters as tokens."""

    def count_tokens(self, texts):
        return [len(text) for text in texts]


@pytest.mark.parametrize(
    ("draft", "trimmed"),
    [
        ("分类：" + "退货退款" * 50, "分类：" + "退货退款" * 4 + "退"),
        ("a: 退货退款" * 9, "a: 退货退款" * 2 + "a: 退货退"),
        ("x" * 99, "x" * 20),
    ],
)
def test_a_text_without_spaces_is_trimmed_too(draft: str, trimmed: str) -> None:
    text, notes = Writer(Characters(), budget=20).trim(draft)
    assert text == trimmed
    assert notes == ("trimmed to the budget of 20 tokens",)


def test_best_of_k_picks_the_draft_with_the_best_score_on_held_back_examples() -> None:
    instruction = BestOf(writer(BAD, GOOD, BAD), follower(), k=3).induce(SUPPORT)
    assert instruction.text == GOOD
    assert instruction.cost.calls == 3 + 2 * 2  # three drafts; the two different ones are scored on two examples each


def test_a_search_notes_that_the_chosen_draft_was_cut_at_its_token_limit() -> None:
    endless = writer(f"{GOOD} {'word ' * 3000}")
    searches = BestOf(endless, follower(), k=2), APE(endless, follower(), calls=6, rounds=0)
    for search, limit in zip(searches, (1024, 256), strict=True):
        assert f"cut at {limit} tokens; the generator had not finished" in search.induce(SUPPORT).provenance.notes


class OneRequest(ScriptedModel):
    """Writes all answers of a batch in one call, like a server that supports several samples."""

    def generate(self, chats, sampling):
        first, *others = super().generate(chats, sampling)
        return [first, *(replace(answer, usage=Usage(0, 0, 2)) for answer in others)]


def test_a_search_counts_the_texts_it_wrote_not_the_requests() -> None:
    notes = BestOf(Writer(OneRequest([BAD, GOOD])), follower(), k=4).induce(SUPPORT).provenance.notes
    assert "4 texts written, 4 metric calls" in notes


def test_a_search_notes_a_trim_only_if_it_affects_the_chosen_draft() -> None:
    long = "\n".join(f"line {i} of five words" for i in range(6))
    notes = BestOf(writer(long, budget=12), follower(), k=2).induce(SUPPORT).provenance.notes
    assert any("trimmed to the budget of 12" in note for note in notes)
    assert not any(
        "trimmed" in note
        for note in BestOf(writer(GOOD, long, budget=12), follower(), k=2).induce(SUPPORT).provenance.notes
    )


def test_a_search_does_not_count_held_back_examples_as_learned_from() -> None:
    w = writer(BAD, GOOD)
    for search in (BestOf(w, follower(), k=2), APE(w, follower(), calls=9, rounds=0), GEPA(w, follower(), calls=6)):
        assert search.induce(SUPPORT).provenance.n == 6


def test_best_of_k_needs_two_examples_of_a_label() -> None:
    with pytest.raises(ConfigError, match="at least two examples of one label"):
        BestOf(writer(GOOD), follower(), k=2).induce(Support(("money", "parcel"), SUPPORT.examples[:2]))


def test_copied_training_text_is_noted() -> None:
    text = "the quick brown fox jumps over the lazy dog today"
    copied = copied_runs("Rule: The quick, brown fox jumps over the LAZY dog!", [text, "something else"])
    assert copied == ["the quick brown fox jumps over the lazy dog"]
    assert copied_runs("a quick look over the fox", [text]) == []
    support = Support(("a", "b"), (Example(text, "a"), Example("nothing of note", "b")))
    notes = MetaInducer(writer(f"Say a for {text}")).induce(support).provenance.notes
    assert any("repeats training text" in note for note in notes)


@pytest.mark.parametrize(
    ("instruction", "text", "copied"),
    [
        (
            "故障：アプリを開くとすぐに落ちてしまう、など",
            "アプリを開くとすぐに落ちてしまう!",
            ["アプリを開くとすぐに落ちてしまう"],
        ),
        ("退款：如“我买的手机，屏幕碎了怎么退”。", "我买的手机屏幕碎了怎么退", ["我买的手机屏幕碎了怎么退"]),
        ("退款：要求退货退款，商品质量问题。", "商品质量有问题，我要求退货退款。", []),
        ("サブスクリプションのキャンセル", "サブスクリプションのキャンセルは?", []),
        ("การจัดส่งสินค้าล่าช้า", "การจัดส่งสินค้าแย่มาก", []),
    ],
)
def test_copies_are_found_in_scripts_without_spaces_and_shared_terms_are_not_copies(
    instruction: str, text: str, copied: list[str]
) -> None:
    assert copied_runs(instruction, [text]) == copied


@pytest.mark.parametrize("calibration", ["none", "support"])
def test_gepa_calibrates_each_candidate_once_and_counts_those_calls_separately(calibration: CalibrationKind) -> None:
    w = Writer(ScriptedModel(lambda _, i: f"Draft {i}"))
    calibrated = Follower(ScriptedModel(score=by_keyword), calibration=calibration)
    instruction = GEPA(w, calibrated, calls=60).induce(SUPPORT)
    (numbers,) = (re.findall(r"\d+", note) for note in instruction.provenance.notes if "metric calls" in note)
    written, metric_calls, *calibration_calls = map(int, numbers)
    assert 60 <= metric_calls <= 60 + 12
    shown = 6  # two of the eight examples are held back
    candidates = {chat[-1]["content"].split("Input:")[0] for chat in calibrated.model.calls}
    assert calibration_calls == ([] if calibration == "none" else [shown * len(candidates)])
    assert instruction.cost.calls == written + metric_calls + sum(calibration_calls)


def test_gepa_labels_the_held_back_rows_of_a_candidate_once() -> None:
    model = ScriptedModel(score=by_keyword)
    GEPA(Writer(ScriptedModel(lambda _, i: f"Draft {i}")), Follower(model), calls=20).induce(SUPPORT)
    _, held = inner_split(SUPPORT)
    prompts = [chat[-1]["content"] for chat in model.calls]
    for example in held.examples:
        with_seed = [prompt for prompt in prompts if SEED_INSTRUCTION in prompt and example.text in prompt]
        assert len(with_seed) == 1


@pytest.mark.parametrize("error", [EndpointError("no server"), SpendingLimitError("no money")])
def test_gepa_stops_and_raises_if_its_writer_raises(error: Exception) -> None:
    """As a server does that refuses the key, and a model whose spending limit is reached."""

    def fail(*_: object) -> str:
        raise error

    scoring = follower()
    with pytest.raises(type(error), match=str(error)):
        GEPA(Writer(ScriptedModel(fail)), scoring, calls=60).induce(SUPPORT)
    assert len(scoring.model.calls) < 10  # without a rewritten candidate, more scores would be paid for nothing


def test_ape_proposes_from_the_examples_that_fit_the_context() -> None:
    long = tuple(replace(example, text=f"{example.text} {'long ' * 400}") for example in SUPPORT.examples)
    model = ScriptedModel(lambda _, i: f"Draft {i}", context_length=2048)
    APE(Writer(model), follower(), calls=30, rounds=0).induce(replace(SUPPORT, examples=long))
    prompts = [chat[-1]["content"] for chat in model.calls]
    assert max(model.count_tokens(prompts)) < 2048 - 256
    assert {prompt.count("Input:") for prompt in prompts} == {4}
    tiny = Writer(ScriptedModel(context_length=512))
    with pytest.raises(ConfigError, match="Not one of 6 examples fits"):
        APE(tiny, follower(), calls=30).induce(replace(SUPPORT, examples=long))


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_ape_uses_its_calls_with_any_number_of_rounds(rounds: int) -> None:
    numbers = count()
    w = Writer(ScriptedModel(lambda *_: f"Draft {next(numbers)}"))
    instruction = APE(w, follower(), calls=60, rounds=rounds).induce(SUPPORT)
    assert 54 <= instruction.cost.calls <= 60


@pytest.mark.parametrize("calibration", ["none", "support"])
def test_calibration_does_not_reduce_the_number_of_instructions_that_ape_writes(calibration: CalibrationKind) -> None:
    w = Writer(ScriptedModel(lambda _, i: f"Draft {i}"))
    APE(w, Follower(ScriptedModel(score=by_keyword), calibration=calibration), calls=60).induce(SUPPORT)
    assert len(w.model.calls) == 10 + 3 * 3
