"""The saving of an instruction over ICL, with and without a prompt cache, computed by hand."""
# pyright: reportOptionalMemberAccess=false

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii.break_even import PromptCost, break_even
from promptmii.instruction import Cost
from promptmii.models.base import Price, Usage

PRICE = Price(prompt=2.0, completion=8.0, cached=0.2, minimum=1024)
FREE = Cost()


def priced(prompt: int, completion: int, price: Price = PRICE) -> Cost:
    return Cost.of(Usage(1, prompt, completion), price)


def test_a_price_covers_cached_tokens_and_batches() -> None:
    usage = Usage(calls=1, prompt_tokens=1_000_000, completion_tokens=500_000, cached_tokens=800_000)
    assert Price(2.0, 8.0).of(usage) == pytest.approx(2.0 + 4.0)
    assert PRICE.of(usage) == pytest.approx(0.4 + 0.16 + 4.0)
    assert PRICE._replace(batch=0.5).of(usage) == pytest.approx((0.4 + 0.16 + 4.0) / 2)
    assert Price(2.0, 8.0, cached=0.0).of(usage) == pytest.approx(0.4 + 4.0)


def test_a_prompt_cache_shrinks_the_saving() -> None:
    """ICL shares 11,500 tokens at a tenth of the price; the instruction's 900 tokens are too few for the cache."""
    result = break_even(PromptCost(FREE, 900, 880), PromptCost(FREE, 11_500, 11_500), None)
    assert result.uncached.times == pytest.approx(11_500 / 900)
    assert result.cached.times == pytest.approx(1_150 / 900)


def test_the_number_of_queries_until_break_even() -> None:
    ours, icl = PromptCost(priced(900, 100), 300, 250), PromptCost(priced(100, 0), 2_050, 2_000)
    result = break_even(ours, icl, PRICE)
    once = 800 * 2.0 + 100 * 8.0
    assert result.one_off_tokens == 900
    assert result.one_off_money == pytest.approx(once / 1e6)
    assert result.uncached.queries == math.ceil(once / (1_750 * 2.0))
    assert result.saved_money_per_query == pytest.approx(1_750 * 2.0 / 1e6)
    cached_icl = 2_000 * 0.2 + 50 * 2.0
    assert result.cached.icl == pytest.approx(cached_icl)
    assert result.cached.ours == pytest.approx(300 * 2.0)
    assert result.cached.queries is None  # 500 against 600


def test_the_summary_in_words() -> None:
    ours, icl = PromptCost(priced(900, 100), 300, 250), PromptCost(priced(100, 0), 2_050, 2_000)
    assert str(break_even(ours, icl, PRICE)) == (
        "Compared with the examples in the prompt (ICL), it saves 1,750 tokens per query: they cost 6.8 times as much, "
        "and the cost of making it is repaid after 1 query. With a prompt cache they are cheaper: 0.8 times its cost. "
        "In money: 0.0024 once, 3.5 saved per 1,000 queries, uncached."
    )
    assert str(break_even(icl, ours, PRICE)).endswith("it saves nothing: 1,750 more tokens per query.")
    same = PromptCost(FREE, 300.0, 250)
    assert str(break_even(same, same, PRICE)).endswith("it saves nothing: 0 more tokens per query.")


def test_a_cache_without_effect_is_mentioned_once() -> None:
    made = Cost(calls=1, prompt_tokens=500, completion_tokens=100)
    assert str(break_even(PromptCost(made, 200, 150), PromptCost(FREE, 500, 450), None)) == (
        "Compared with the examples in the prompt (ICL), it saves 300 tokens per query: they cost 2.5 times as much, "
        "even with a prompt cache, and the cost of making it is repaid after 2 queries."
    )


def test_without_a_price_tokens_are_counted_and_money_is_unknown() -> None:
    made = Cost(calls=1, prompt_tokens=500, completion_tokens=100)
    result = break_even(PromptCost(made, 200, 150), PromptCost(FREE, 500, 450), None)
    assert result.uncached.queries == 2
    assert (result.one_off_money, result.saved_money_per_query) == (None, None)
    assert break_even(PromptCost(made, 200, 0), PromptCost(FREE, 500, 0), PRICE).one_off_money is None


def test_free_prompts_are_counted_in_tokens() -> None:
    free = Price(prompt=0.0, completion=0.4)
    result = break_even(PromptCost(priced(500, 100, free), 200, 150), PromptCost(priced(0, 0, free), 500, 450), free)
    assert (result.saved_tokens_per_query, result.uncached.queries, result.uncached.times) == (300, 2, 2.5)
    assert result.one_off_money == pytest.approx(40 / 1e6)
    assert result.saved_money_per_query == 0.0


tokens = st.integers(1, 10**6)


@given(tokens, tokens, st.integers(0, 4096))
def test_a_cache_never_raises_the_price_and_ignores_short_prefixes(whole: int, shared: int, minimum: int) -> None:
    price = PRICE._replace(minimum=minimum)
    assert price.of_prompt(whole, shared) <= price.of_prompt(whole)
    if shared < minimum:
        assert price.of_prompt(whole, shared) == price.of_prompt(whole)
