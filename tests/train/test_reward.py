"""Properties of the reward that hold for any rows, labels and instructions."""
# pyright: reportArgumentType=false

import random
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models.faulty_server import FaultyServer, serving
from tests.recorder import Recorder

from promptmii import Example, ScriptedModel, Support
from promptmii.errors import ConfigError, EndpointError
from promptmii.follower import Follower
from promptmii.models.base import Chat, Failure, FailureKind
from promptmii.models.http.client import HttpModel
from promptmii.models.http.config import HttpConfig
from promptmii.task import Episode
from promptmii.train.measures import ANSWER_MEASURES, PROBABILITY_MEASURES, Measure
from promptmii.train.reward import Draft, Reward
from promptmii.train.settings import RewardSettings

LABELS = ("alpha", "beta", "gamma")
rows = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(LABELS)), min_size=1, max_size=12, unique_by=lambda pair: pair[0]
)
MEASURES = ("macro_f1", *PROBABILITY_MEASURES)


def row_reader() -> ScriptedModel:
    """A model that labels the rows named in the instruction ("row7.") correctly, and all others "alpha"."""

    def score(chat: Chat, option: str) -> float:
        instruction, _, text = chat[-1]["content"].partition("Classify")
        row, _, label = text.split('Input: "')[-1].rstrip('"\n').partition(" is ")
        named = f"{row}." in instruction
        return 3.0 * (option == label) if named else -0.1 * LABELS.index(option)

    return ScriptedModel(score=score)


def episode(pairs: list[tuple[int, str]], labels: tuple[str, ...] = LABELS) -> Episode:
    query = tuple(Example(f"row{number} is {label}", label) for number, label in pairs)
    return Episode("toy", Support(labels, (Example("something else", labels[0]),)), query)


def reward_of(scored_episode: Episode, text: str, **settings: Any) -> float | None:
    reward = Reward(RewardSettings.of(mode="choose", **settings), [Follower(row_reader())])
    return reward.judge([Draft(scored_episode, text, len(text.split()))])[0].reward


def text_for(numbers: list[int]) -> str:
    return " ".join(["Look.", *(f"row{number}." for number in numbers)])


def test_every_measure_has_one_table_entry() -> None:
    assert sorted([*ANSWER_MEASURES, *PROBABILITY_MEASURES]) == sorted(get_args(Measure))


def test_every_measure_is_described() -> None:
    page = (Path(__file__).parents[2] / "docs" / "train.md").read_text(encoding="utf-8")
    assert [name for name in get_args(Measure) if name not in page] == []


@given(rows, st.integers(0, 2**32), st.sampled_from(MEASURES))
def test_order_of_rows_and_labels_does_not_matter(pairs: list[tuple[int, str]], seed: int, measure: str) -> None:
    shuffled, labels = list(pairs), list(LABELS)
    random.Random(seed).shuffle(shuffled)
    random.Random(seed + 1).shuffle(labels)
    text = text_for([number for number, _ in pairs[::2]])
    expected = reward_of(episode(pairs), text, measure=measure)
    assert reward_of(episode(shuffled), text, measure=measure) == pytest.approx(expected)
    assert reward_of(episode(pairs, tuple(labels)), text, measure=measure) == pytest.approx(expected)


@given(rows, st.sampled_from(MEASURES))
def test_a_better_instruction_never_scores_lower(pairs: list[tuple[int, str]], measure: str) -> None:
    # With one more row named, its true label gains, the others lose, and no other row changes. So no label's F1 falls.
    numbers = [number for number, _ in pairs]
    texts = [text_for(numbers[:count]) for count in range(len(numbers) + 1)]
    reward = Reward(RewardSettings.of(mode="choose", measure=measure), [Follower(row_reader())])
    values = [result.reward for result in reward.judge([Draft(episode(pairs), text, 1) for text in texts])]
    assert None not in values
    assert values == sorted(values)
    if measure != "macro_f1":  # likelihoods distinguish any two drafts, counted labels need not
        assert len(set(values)) == len(values)


@given(rows, st.integers(0, 40), st.floats(0, 0.01))
def test_tokens_beyond_the_free_ones_are_penalised(pairs: list[tuple[int, str]], free: int, price: float) -> None:
    text = text_for([number for number, _ in pairs])
    unpriced = reward_of(episode(pairs), text)
    priced = reward_of(episode(pairs), text, token_price=price, free_tokens=free)
    assert unpriced is not None
    assert priced == pytest.approx(unpriced - price * max(len(text.split()) - free, 0))


def test_identical_instructions_are_scored_once_and_followers_are_averaged() -> None:
    model, other = row_reader(), ScriptedModel(score=lambda _c, option: float(option == "alpha"), name="stubborn")
    toy = episode([(1, "alpha"), (2, "beta")])
    judged = Reward(RewardSettings.of(mode="choose"), [Follower(model), Follower(other)]).judge(
        [Draft(toy, "row1. row2.", 2)] * 4
    )
    assert len(model.calls) == len(other.calls) == 2
    assert [result.reward for result in judged] == pytest.approx([(1 + 1 / 3) / 2] * 4)


def test_failure_gives_no_reward_and_empty_text_scores_zero() -> None:
    def score(chat: Chat, option: str) -> float | Failure:
        return (
            Failure(FailureKind.CONTEXT, "too long") if "trouble" in chat[-1]["content"] else float(option == "alpha")
        )

    reward = Reward(RewardSettings.of(mode="choose"), [Follower(ScriptedModel(score=score))])
    toy = episode([(1, "alpha")])
    failed, fine, empty = reward.judge([Draft(toy, "trouble", 1), Draft(toy, "fine", 1), Draft(toy, "", 1)])
    assert (failed.reward, failed.failure) == (None, "context: too long")
    assert (fine.reward, empty.reward) == (1.0, 0.0)
    with pytest.raises(EndpointError, match="100% of the instructions"):
        reward.judge([Draft(toy, "trouble", 1)])


def test_copied_and_unfinished_drafts_are_penalised() -> None:
    example = Example("one two three four five six seven", "alpha")
    toy = episode([(1, "alpha")])
    toy = replace(toy, support=Support(LABELS, (example,)))
    reward = Reward(
        RewardSettings.of(mode="choose", copy_penalty=0.25, unfinished_penalty=0.125), [Follower(row_reader())]
    )
    judged = reward.judge([Draft(toy, "row1. " + example.text, 8), Draft(toy, "row1.", 1, unfinished=True)])
    assert [result.reward for result in judged] == [0.75, 0.875]
    assert judged[0].copied


def test_likelihood_measure_in_generate_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs likelihoods, so mode = 'choose'"):
        RewardSettings.of(measure="gold_probability", mode="generate")


def test_likelihood_measure_is_refused_for_a_follower_without_likelihoods() -> None:
    mute = ScriptedModel(score=lambda _c, option: float(option == "alpha"), gives_scores=False)
    for measure in ("expected_macro_f1", "gold_probability"):
        reward = Reward(RewardSettings.of(mode="choose", measure=measure), [Follower(row_reader()), Follower(mute)])
        with pytest.raises(
            ConfigError,
            match=rf"{measure} needs likelihoods.* Set reward.measure = 'macro_f1', or name followers with likelihoods",
        ):
            reward.check(episode([(1, "alpha")]))
    Reward(RewardSettings.of(mode="choose"), [Follower(mute)]).check(episode([(1, "alpha")]))


def test_one_dead_follower_among_several_stops_training() -> None:
    dead = ScriptedModel(score=lambda _c, _o: Failure(FailureKind.CONNECTION, "gone"), name="dead")
    recorder = Recorder()
    reward = Reward(
        RewardSettings.of(mode="choose", wait=0.05), [Follower(row_reader()), Follower(dead)], progress=recorder
    )
    toy = episode([(1, "alpha")])
    with pytest.raises(
        EndpointError, match=r"100% of the instructions of a step could not be scored \(first: connection: gone\)"
    ):
        reward.judge([Draft(toy, "row1.", 1), Draft(toy, "Look.", 1), Draft(toy, "", 0)])
    assert recorder.notes == ["Followers fail; waiting for them"]


def test_failed_share_counts_distinct_instructions_over_all_followers() -> None:
    def trouble_with(word: str) -> Follower:
        def score(chat: Chat, option: str) -> float | Failure:
            return Failure(FailureKind.CONTEXT, "too long") if word in chat[-1]["content"] else float(option == "alpha")

        return Follower(ScriptedModel(score=score, name=word))

    toy = episode([(1, "alpha")])
    reward = Reward(RewardSettings.of(mode="choose"), [trouble_with("left"), trouble_with("right")])
    drafts = [Draft(toy, text, 1) for text in ("left", "left", "right", "fine", "good")]
    assert [result.reward for result in reward.judge(drafts)] == [None, None, None, 1.0, 1.0]
    with pytest.raises(EndpointError, match="67% of the instructions"):
        reward.judge(drafts[:4])


@pytest.mark.parametrize("fault", ["500", "401"])
def test_failed_token_counts_are_retried_only_if_transient(fault: str) -> None:
    recorder = Recorder()
    with (
        serving(FaultyServer(default="say:alpha", counts=True)) as server,
        HttpModel("m", HttpConfig(server.url, patience=0.0)) as model,
    ):
        assert model.card.exact_tokens
        server.count_plan = [fault]
        reward = Reward(RewardSettings.of(wait=0.05), [Follower(model, "generate")], progress=recorder)
        drafts = [Draft(episode([(1, "alpha")]), "Look.", 1)]
        if fault == "500":
            assert [result.reward for result in reward.judge(drafts)] == [1.0]
            assert recorder.notes == ["Followers fail; waiting for them"]
        else:
            with pytest.raises(EndpointError, match="refuses the key"):
                reward.judge(drafts)
            assert not recorder.notes


@pytest.mark.parametrize("kind", [FailureKind.CONNECTION, FailureKind.CONTEXT])
def test_failed_calibration_is_retried_only_if_transient(kind: FailureKind) -> None:
    faults = [Failure(kind, "gone")]
    recorder = Recorder()
    model = ScriptedModel(score=lambda _c, option: faults.pop() if faults else float(option == "alpha"))
    reward = Reward(
        RewardSettings.of(mode="choose", wait=0.05), [Follower(model, calibration="contextual")], progress=recorder
    )
    drafts = [Draft(episode([(1, "alpha")]), "Look.", 1)]
    if kind is FailureKind.CONNECTION:
        assert reward.judge(drafts)[0].reward is not None
        assert recorder.notes == ["Followers fail; waiting for them"]
    else:
        with pytest.raises(EndpointError, match="during calibration: gone"):
            reward.judge(drafts)
        assert not recorder.notes
