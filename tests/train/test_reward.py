"""Laws of the reward, whatever the rows, labels and instructions."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii import Example, ScriptedModel, Support
from promptmii.errors import ConfigError, EndpointError
from promptmii.follower import Follower
from promptmii.models.base import Chat, Failure, FailureKind
from promptmii.task import Episode
from promptmii.train.config import RewardSettings
from promptmii.train.reward import Draft, Reward

LABELS = ("alpha", "beta", "gamma")
rows = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(LABELS)), min_size=1, max_size=12, unique_by=lambda pair: pair[0])
MEASURES = ("macro_f1", "expected_macro_f1", "gold_probability")


def knowing() -> ScriptedModel:
    """Labels rightly the rows that the instruction names ("row 7."), and says the first of the alphabet otherwise."""

    def score(chat: Chat, option: str) -> float:
        instruction, _, text = chat[-1]["content"].partition("Classify")
        word, _, truth = text.split('Input: "')[-1].rstrip('"\n').partition(" is ")
        known = f"{word}." in instruction
        return 3.0 * (option == truth) if known else -0.1 * LABELS.index(option)

    return ScriptedModel(score=score)


def episode(pairs: list[tuple[int, str]], labels: tuple[str, ...] = LABELS) -> Episode:
    query = tuple(Example(f"row{number} is {label}", label) for number, label in pairs)
    return Episode("toy", Support(labels, (Example("something else", labels[0]),)), query)


def reward_of(given_episode: Episode, text: str, **settings: Any) -> float | None:
    reward = Reward(RewardSettings.of(mode="choose", **settings), [Follower(knowing())])
    return reward.judge([Draft(given_episode, text, len(text.split()))])[0].reward


def text_for(numbers: list[int]) -> str:
    return " ".join(["Look.", *(f"row{number}." for number in numbers)])


@given(rows, st.integers(0, 2**32), st.sampled_from(MEASURES))
def test_the_order_of_rows_and_labels_does_not_matter(pairs: list[tuple[int, str]], seed: int, measure: str) -> None:
    shuffled, labels = list(pairs), list(LABELS)
    random.Random(seed).shuffle(shuffled)
    random.Random(seed + 1).shuffle(labels)
    text = text_for([number for number, _ in pairs[::2]])
    plain = reward_of(episode(pairs), text, measure=measure)
    assert reward_of(episode(shuffled), text, measure=measure) == pytest.approx(plain)
    assert reward_of(episode(pairs, tuple(labels)), text, measure=measure) == pytest.approx(plain)


@given(rows, st.data())
def test_knowing_all_is_best_and_knowing_more_raises_the_chance_of_the_truth(pairs: list[tuple[int, str]], data: st.DataObject) -> None:
    numbers = [number for number, _ in pairs]
    fewer = data.draw(st.integers(0, len(numbers)))
    for measure in MEASURES:
        best, some = (reward_of(episode(pairs), text_for(numbers[:count]), measure=measure) for count in (len(numbers), fewer))
        assert best is not None
        assert some is not None
        assert best >= some - 1e-12
    values = [reward_of(episode(pairs), text_for(numbers[:count]), measure="gold_probability") for count in range(len(numbers) + 1)]
    assert values == sorted(values)


@given(rows, st.integers(0, 40), st.floats(0, 0.01))
def test_length_has_its_price_beyond_what_is_free(pairs: list[tuple[int, str]], free: int, price: float) -> None:
    text = text_for([number for number, _ in pairs])
    plain, priced = reward_of(episode(pairs), text), reward_of(episode(pairs), text, token_price=price, free_tokens=free)
    assert plain is not None
    assert priced == pytest.approx(plain - price * max(len(text.split()) - free, 0))


def test_equal_instructions_are_scored_once_and_several_followers_are_averaged() -> None:
    model, other = knowing(), ScriptedModel(score=lambda _c, option: float(option == "alpha"), name="stubborn")
    asked = episode([(1, "alpha"), (2, "beta")])
    judged = Reward(RewardSettings.of(mode="choose"), [Follower(model), Follower(other)]).judge([Draft(asked, "row1. row2.", 2)] * 4)
    assert len(model.calls) == len(other.calls) == 2
    assert [one.reward for one in judged] == pytest.approx([(1 + 1 / 3) / 2] * 4)


def test_a_failure_is_no_reward_and_an_empty_text_is_worth_nothing() -> None:
    def score(chat: Chat, option: str) -> float | Failure:
        return Failure(FailureKind.CONTEXT, "too long") if "trouble" in chat[-1]["content"] else float(option == "alpha")

    reward = Reward(RewardSettings.of(mode="choose"), [Follower(ScriptedModel(score=score))])
    asked = episode([(1, "alpha")])
    failed, fine, empty = reward.judge([Draft(asked, "trouble", 1), Draft(asked, "fine", 1), Draft(asked, "", 1)])
    assert (failed.reward, failed.failure) == (None, "context: too long")
    assert (fine.reward, empty.reward) == (1.0, 0.0)
    with pytest.raises(EndpointError, match="100% of the instructions"):
        reward.judge([Draft(asked, "trouble", 1)])


def test_copying_and_running_on_are_taken_off() -> None:
    told = Example("one two three four five six seven", "alpha")
    asked = episode([(1, "alpha")])
    asked = replace(asked, support=Support(LABELS, (told,)))
    reward = Reward(RewardSettings.of(mode="choose", copy_penalty=0.25, unfinished_penalty=0.125), [Follower(knowing())])
    judged = reward.judge([Draft(asked, "row1. " + told.text, 8), Draft(asked, "row1.", 1, unfinished=True)])
    assert [one.reward for one in judged] == [0.75, 0.875]
    assert judged[0].copied


def test_a_measure_without_likelihoods_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs likelihoods, so mode = 'choose'"):
        RewardSettings.of(measure="gold_probability", mode="generate")
