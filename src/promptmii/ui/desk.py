"""What every page needs: templates, and numbers and sentences as the page shows them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import floor
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from promptmii.errors import counted
from promptmii.instruction import Cost
from promptmii.models.embedded import Embedded
from promptmii.ui.jobs import Job, Jobs, watch
from promptmii.ui.store import Store, Trial
from promptmii.ui.work import Work
from promptmii.version import VERSION

STEPS = {" mii": " the instruction", " naive": " the label list", " icl": " the examples"}
SHADES = 8
"""Steps of colour in a confusion matrix."""


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("promptmii.ui"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for words in (share, signed, step_name, money, seconds, left, tokens, whole):
        environment.filters[words.__name__] = words
    functions = {"per_thousand": per_thousand, "shade": shade, "verdict": verdict}
    cast("dict[str, Any]", environment.globals).update(functions, version=VERSION)
    return environment


@dataclass(frozen=True)
class Desk:
    """The state of one application."""

    store: Store
    work: Work
    runs: Path
    """Folder with runs of `promptmii evaluate`."""
    installable: Mapping[str, Embedded]
    """Models that the page offers, and fetches if they are missing."""
    jobs: Jobs = field(default_factory=Jobs)
    """Jobs that use the models."""
    drawings: Jobs = field(default_factory=Jobs)
    """Jobs that draw reports, which need no model."""
    installs: Jobs = field(default_factory=Jobs)
    """Downloads of models."""
    templates: Environment = field(default_factory=_environment)

    @classmethod
    def of(cls, request: Request) -> "Desk":
        """The desk of the application that got the request."""
        return request.app.state.desk

    def html(self, template: str, **values: Any) -> str:
        """A template, filled in."""
        return self.templates.get_template(template).render(live=self.jobs.live, **values)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """A template as a response."""
        return HTMLResponse(self.html(template, **values), status)


def go(request: Request, address: str) -> Response:
    """Redirect the browser."""
    if "hx-request" in request.headers:
        return Response(headers={"HX-Redirect": address})
    return RedirectResponse(address, 303)


def stream(job: Job | None, html: Callable[[Job], str]) -> Response:
    """The progress of a job as server-sent events, until it ends."""
    return StreamingResponse(watch(job, html), media_type="text/event-stream")


def text_of(form: Mapping[str, Any], name: str) -> str:
    """A field of a form, stripped."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def share(value: float, digits: int = 3) -> str:
    """A number from 0 to 1 without its zero."""
    return f"{value:.{digits}f}".removeprefix("0")


def signed(value: float, digits: int = 3) -> str:
    """A difference of two such numbers, with its sign."""
    return ("+" if value >= 0 else "−") + share(abs(value), digits)


def step_name(name: str) -> str:
    """A pipeline step in the page's words."""
    return next((name.removesuffix(end) + words for end, words in STEPS.items() if name.endswith(end)), name)


def money(value: float | None) -> str:
    """A price; a dash if unknown."""
    return "–" if value is None else f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def per_thousand(trial: Trial, tokens: float | None) -> str:
    """The price of a thousand prompts; a dash if unknown."""
    price = next(iter(trial.settings.endpoint.prices.values()), None)
    return money(None if price is None or tokens is None else price.of_prompt(tokens) / 1000)


def seconds(value: float) -> str:
    """A duration."""
    return f"{value:.1f} s" if value < 60 else f"{int(value // 60)} min {int(value % 60)} s"


def left(value: float | None) -> str:
    """Time left; nothing if unknown."""
    return "" if value is None else f"{seconds(value) if value >= 60 else f'{value:.0f} s'} left"


def tokens(cost: Cost) -> str:
    """The tokens and money that a text cost to write."""
    count = "unknown" if cost.tokens is None else whole(cost.tokens)
    return f"{count} tokens" + ("" if cost.money is None else f", {money(cost.money)}")


def whole(number: float | None) -> str:
    """A count; a dash if unknown."""
    return "–" if number is None else f"{number:,.0f}"


def shade(count: int, total: int) -> int:
    """How dark a cell is, from 0 to `SHADES`."""
    return 0 if not count else max(1, min(SHADES, floor(count / max(total, 1) * SHADES + 0.5)))


def verdict(trial: Trial) -> tuple[str, str]:
    """The result of a trial: its score, and how it compares."""
    if not trial.own or not (measured := trial.own.instruction.measured):
        return "", ""
    score = f"Macro-F1 {share(measured.macro_f1)} on {counted(measured.n, 'held-back row')}"
    if not trial.differences:
        return f"{score}.", ""
    # An edit is compared with what it was before, an instruction with the bare label list.
    index = len(trial.differences) - 1 if trial.parent else 0
    other, difference = trial.answers[index], trial.differences[index]
    name = "before the edit" if trial.parent else "of the label list alone"
    was = other.instruction.measured
    level = f", against {share(was.macro_f1)} {name}" if was else ""
    if not difference.beyond_noise:
        worth = "The difference is within noise: more rows would tell."
    elif difference.mean > 0:
        worth = "It is better, beyond noise."
    else:
        worth = "It is worse, beyond noise."
    worth += f" {signed(difference.mean)} [{signed(difference.low, 2)}, {signed(difference.high, 2)}], "
    return f"{score}{level}.", worth + (f"p = {share(difference.p)}." if difference.p >= 0.001 else "p < .001.")
