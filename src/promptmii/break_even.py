"""Computes after how many queries an instruction has paid for itself compared with ICL.

ICL repeats its examples with every query. A provider's prompt cache makes that much cheaper, but it does not help a
short instruction: most caches ignore prefixes below about 1,024 tokens. So there are two results, one with the cache.
"""

from dataclasses import dataclass
from math import ceil

from promptmii.instruction import Cost
from promptmii.models.base import Price

UNIT = Price(prompt=1.0, completion=1.0)
"""Counts tokens instead of money if no price is known, or prompts are free."""


@dataclass(frozen=True)
class PromptCost:
    """The cost of one way of prompting."""

    once: Cost
    """Cost of making and calibrating it."""
    tokens: float | None
    """Mean tokens per prompt; `None` if the server did not report them."""
    shared_tokens: int
    """Tokens in the prefix that all prompts share."""


@dataclass(frozen=True)
class PerQuery:
    """The cost of prompts: money per million queries, or tokens per query without a price."""

    ours: float
    icl: float
    queries: int | None
    """Queries after which the instruction has paid for itself; `None` if it never does."""

    @property
    def times(self) -> float:
        """ICL's cost as a multiple of ours."""
        return self.icl / self.ours


@dataclass(frozen=True)
class BreakEven:
    """An instruction compared with ICL."""

    saved_tokens_per_query: float
    one_off_tokens: int
    """Tokens to make and calibrate the instruction, minus those to calibrate ICL."""
    uncached: PerQuery
    cached: PerQuery
    """With the provider's prompt cache."""
    one_off_money: float | None
    saved_money_per_query: float | None
    """Without a prompt cache; `None` if no price is known."""

    def __str__(self) -> str:
        saved = self.saved_tokens_per_query
        compared = "Compared with the examples in the prompt (ICL), it saves"
        if self.uncached.queries is None:
            return f"{compared} nothing: {abs(saved):,.0f} more tokens per query."
        same = self.cached == self.uncached
        text = (
            f"{compared} {saved:,.0f} tokens per query: they cost "
            f"{self.uncached.times:.1f} times as much{', even with a prompt cache' if same else ''}"
            f"{_repaid(self.uncached, ', and the cost of making it is repaid')}."
        )
        if not same and self.cached.queries is None:
            text += f" With a prompt cache they are cheaper: {self.cached.times:.1f} times its cost."
        elif not same:
            text += f" With a prompt cache: {self.cached.times:.1f} times as much{_repaid(self.cached, ', repaid')}."
        if self.one_off_money is not None and self.saved_money_per_query is not None:
            saved_money = self.saved_money_per_query * 1000
            text += f" In money: {self.one_off_money:.3g} once, {saved_money:.3g} saved per 1,000 queries, uncached."
        return text


def _repaid(cost: PerQuery, words: str) -> str:
    """`words` and the number of queries until break-even; empty if making the instruction cost no more than ICL."""
    return f"{words} after {cost.queries:,} {'query' if cost.queries == 1 else 'queries'}" if cost.queries else ""


def break_even(ours: PromptCost, icl: PromptCost, price: Price | None) -> BreakEven | None:
    """Compare an instruction with ICL. `None` if a server did not report its token counts."""
    if ours.once.tokens is None or icl.once.tokens is None or ours.tokens is None or icl.tokens is None:
        return None
    tokens = max(ours.once.tokens - icl.once.tokens, 0)
    money = None
    if ours.once.money is not None and icl.once.money is not None:
        money = max(ours.once.money - icl.once.money, 0.0)
    rate = price if price and price.prompt else UNIT
    # A local writer has no price, but its tokens count.
    once = tokens * rate.prompt if money is None or rate is UNIT else money * 1e6
    return BreakEven(
        saved_tokens_per_query=icl.tokens - ours.tokens,
        one_off_tokens=tokens,
        uncached=_per_query(rate.of_prompt(ours.tokens), rate.of_prompt(icl.tokens), once),
        cached=_per_query(
            rate.of_prompt(ours.tokens, ours.shared_tokens), rate.of_prompt(icl.tokens, icl.shared_tokens), once
        ),
        one_off_money=money if price else None,
        saved_money_per_query=(price.of_prompt(icl.tokens) - price.of_prompt(ours.tokens)) / 1e6 if price else None,
    )


def _per_query(ours: float, icl: float, once: float) -> PerQuery:
    return PerQuery(ours, icl, ceil(once / (icl - ours)) if icl > ours else None)
