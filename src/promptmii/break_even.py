"""When does an instruction repay what it cost? Against ICL, with and without a provider's prompt cache.

ICL repeats its examples with every query. A provider that caches the beginning of a prompt makes ICL much cheaper and a
short instruction no cheaper: most caches take no prefix below some 1,024 tokens. So both numbers are given.
"""

from dataclasses import dataclass
from math import ceil

from promptmii.instruction import Cost
from promptmii.models.base import Price

UNIT = Price(prompt=1.0, completion=1.0)
"""Money is tokens where nobody gave a price, or prompts are free."""


@dataclass(frozen=True)
class PromptCost:
    """The cost of one way of prompting."""

    once: Cost
    """To make and to calibrate."""
    tokens: float | None
    """Mean tokens of a prompt; `None` if the server did not report them."""
    shared_tokens: int
    """Tokens of the prefix that all its prompts share."""


@dataclass(frozen=True)
class PerQuery:
    """The price of the prompts: money per million queries, or tokens per query if they have no price."""

    ours: float
    icl: float
    queries: int | None
    """Queries after which the instruction has repaid what it cost; `None`: never."""

    @property
    def times(self) -> float:
        """How many times the cost of our prompt ICL's costs."""
        return self.icl / self.ours


@dataclass(frozen=True)
class BreakEven:
    """An instruction against ICL."""

    saved_tokens_per_query: float
    one_off_tokens: int
    """The cost of making and calibrating the instruction, less that of calibrating ICL."""
    uncached: PerQuery
    cached: PerQuery
    """With the provider's prompt cache."""
    one_off_money: float | None
    saved_money_per_query: float | None
    """Without a prompt cache. `None`: no price is known."""

    def __str__(self) -> str:
        saved = self.saved_tokens_per_query
        if self.uncached.queries is None:
            return f"Against the examples in the prompt (ICL) it saves nothing: {-saved:,.0f} more tokens per query."
        same = self.cached == self.uncached
        text = (
            f"Against the examples in the prompt (ICL) it saves {saved:,.0f} tokens per query: they cost "
            f"{self.uncached.times:.1f} times as much{', also with a prompt cache' if same else ''}"
            f"{_repaid(self.uncached, ', and what it took to make is repaid')}."
        )
        if same:
            pass
        elif self.cached.queries is None:
            text += f" With a prompt cache they are cheaper: {self.cached.times:.1f} times its cost."
        else:
            text += f" With a prompt cache: {self.cached.times:.1f} times as much{_repaid(self.cached, ', repaid')}."
        if self.one_off_money is not None and self.saved_money_per_query is not None:
            saved_money = self.saved_money_per_query * 1000
            text += f" In money: {self.one_off_money:.3g} once, {saved_money:.3g} saved per 1,000 queries, uncached."
        return text


def _repaid(cost: PerQuery, words: str) -> str:
    """When what it took to make and to calibrate is saved again; nothing where it took no more than ICL."""
    return f"{words} after {cost.queries:,} {'query' if cost.queries == 1 else 'queries'}" if cost.queries else ""


def break_even(ours: PromptCost, icl: PromptCost, price: Price | None) -> BreakEven | None:
    """Compare an instruction with ICL. `None` if a server did not say how many tokens it read or wrote."""
    made, calibrated = ours.once.tokens, icl.once.tokens
    if made is None or calibrated is None or ours.tokens is None or icl.tokens is None:
        return None
    tokens = made - calibrated
    unknown = ours.once.money is None or icl.once.money is None
    money = None if unknown else max((ours.once.money or 0.0) - (icl.once.money or 0.0), 0.0)
    rate = price if price and price.prompt else UNIT
    # A local writer has no price, and still costs tokens.
    once = max(tokens, 0) * rate.prompt if money is None or rate is UNIT else money * 1e6
    return BreakEven(
        saved_tokens_per_query=icl.tokens - ours.tokens,
        one_off_tokens=max(tokens, 0),
        uncached=_per_query(rate.of_prompt(ours.tokens), rate.of_prompt(icl.tokens), once),
        cached=_per_query(
            rate.of_prompt(ours.tokens, ours.shared_tokens), rate.of_prompt(icl.tokens, icl.shared_tokens), once
        ),
        one_off_money=money if price else None,
        saved_money_per_query=(price.of_prompt(icl.tokens) - price.of_prompt(ours.tokens)) / 1e6 if price else None,
    )


def _per_query(ours: float, icl: float, once: float) -> PerQuery:
    return PerQuery(ours, icl, ceil(once / (icl - ours)) if icl > ours else None)
