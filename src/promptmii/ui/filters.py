"""Numbers and sentences as the page shows them: the filters of its templates."""

import re
from math import floor

from promptmii.instruction import Cost
from promptmii.markup import share
from promptmii.messages import counted
from promptmii.ui.store import Trial

STEPS = {" mii": " the instruction", " naive": " the label list", " icl": " the examples"}
"""The page's words for methods at the end of a pipeline step."""
_FIELDS = {
    "-n": '"Examples for the writer":',
    "--text": '"Text"',
    "--label": '"Label"',
    "--labels": "the check boxes",
    "--follower": '"Follower"',
    "--mode": '"How the follower answers":',
    "--calibration": '"Label bias correction":',
    "--base-url": '"Server address"',
}
"""The page's words for options of the command line, which messages name."""
_OPTION = re.compile(r"(?<![\w-])(?:--[a-z-]+|-n\b)")
_ABSENT = re.compile(r"[,;] [^,;.]*?--(?:cache|context-length|eval)\b[^.]*")
"""Advice on an option that the page lacks: the end of a sentence, from the clause that names it."""
SHADES = 8
"""Steps of colour in a confusion matrix."""


def signed(value: float, digits: int = 3) -> str:
    """A difference of two shares, with its sign."""
    return ("+" if value >= 0 else "−") + share(abs(value), digits)


def in_page_words(message: str, tables: str) -> str:
    """A message with fields of the page instead of options, and the names of uploaded tables without their folder."""
    message = re.sub(rf"{re.escape(tables)}[/\\][0-9a-f]{{16}}[/\\]", "", message)
    return _OPTION.sub(lambda option: _FIELDS.get(option[0], option[0]), _ABSENT.sub("", message))


def step_name(name: str) -> str:
    """The name of a pipeline step, in the page's words."""
    for suffix, words in STEPS.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix) + words
    return name


def money(value: float | None) -> str:
    """An amount of money, or a dash if unknown."""
    if value is None:
        return "–"
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def per_thousand(trial: Trial, tokens: float | None) -> str:
    """The price of a thousand prompts of so many tokens, or a dash if unknown."""
    price = next(iter(trial.settings.endpoint.prices.values()), None)
    return money(None if price is None or tokens is None else price.of_prompt(tokens) / 1000)


def seconds(value: float) -> str:
    """A duration."""
    return f"{value:.1f} s" if value < 60 else f"{int(value // 60)} min {int(value % 60)} s"


def time_left(value: float | None) -> str:
    """The seconds left as text, or nothing if unknown."""
    if value is None:
        return ""
    return f"{seconds(value)} left" if value >= 60 else f"{value:.0f} s left"


def tokens(cost: Cost) -> str:
    """The tokens and money of a cost."""
    count = "unknown" if cost.tokens is None else integer(cost.tokens)
    return f"{count} tokens" + ("" if cost.money is None else f", {money(cost.money)}")


def integer(number: float | None) -> str:
    """A whole number, or a dash if unknown."""
    return "–" if number is None else f"{number:,.0f}"


def shade(count: int, total: int) -> int:
    """The shade of a cell with `count` of `total` rows, from 0 to `SHADES`."""
    if not count:
        return 0
    return max(1, min(SHADES, floor(count / max(total, 1) * SHADES + 0.5)))


def verdict(trial: Trial) -> tuple[str, str]:
    """The result of a trial in two sentences: its score, and the comparison with another prompt."""
    measured = trial.own.instruction.measured if trial.own else None
    if not measured:
        return "", ""
    score = f"Macro-F1 {share(measured.macro_f1)} on {counted(measured.n, 'held-back row')}"
    if not trial.differences:
        return f"{score}.", ""
    # An edit is compared with the instruction before it, any other instruction with the label list.
    index = len(trial.differences) - 1 if trial.parent else 0
    other, difference = trial.answers[index], trial.differences[index]
    name = "before the edit" if trial.parent else "of the label list alone"
    baseline = other.instruction.measured
    against = f", against {share(baseline.macro_f1)} {name}" if baseline else ""
    if not difference.beyond_noise:
        judgement = "The difference is within noise: more rows would tell."
    elif difference.mean > 0:
        judgement = "It is better, beyond noise."
    else:
        judgement = "It is worse, beyond noise."
    interval = f"{signed(difference.mean)} [{signed(difference.low, 2)}, {signed(difference.high, 2)}]"
    p = f"p = {share(difference.p)}" if difference.p >= 0.001 else "p < .001"
    return f"{score}{against}.", f"{judgement} {interval}, {p}."


FILTERS = (share, signed, step_name, money, per_thousand, seconds, time_left, tokens, integer, shade, verdict)
"""The filters that need nothing but their arguments."""
