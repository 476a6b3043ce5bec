"""What every page works with, and how a template becomes a response."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from promptmii.models.embedded import Embedded
from promptmii.ui import words
from promptmii.ui.jobs import Job, Jobs
from promptmii.ui.store import Store
from promptmii.ui.work import Work
from promptmii.version import VERSION


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("promptmii.ui"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for act in (
        words.share,
        words.signed,
        words.step_name,
        words.money,
        words.seconds,
        words.left,
        words.tokens,
        words.whole,
    ):
        made.filters[act.__name__] = act
    made.globals |= {"version": VERSION, "shade": words.shade, "verdict": words.verdict, "saving": words.saving}  # pyright: ignore[reportAttributeAccessIssue]
    return made


@dataclass(frozen=True)
class Desk:
    """One per application."""

    store: Store
    jobs: Jobs
    """Of the models."""
    drawings: Jobs
    """Of reports, which wait for no model."""
    installs: Jobs
    """Of models that are fetched."""
    work: Work
    runs: Path
    """Folder in which runs of `promptmii evaluate` are looked for."""
    templates: Environment
    installable: Mapping[str, Embedded]
    """Models that the page offers, and fetches where they are not on this machine."""

    @classmethod
    def of(cls, request: Request) -> "Desk":
        """The desk of the application that got the request."""
        return request.app.state.desk

    @classmethod
    def at(cls, store: Store, work: Work, runs: Path, installable: Mapping[str, Embedded]) -> "Desk":
        """A desk with nothing on it."""
        return cls(store, Jobs(), Jobs(), Jobs(), work, runs, _environment(), installable)

    def installing(self, model: str) -> Job | None:
        """The job that fetches a model, or did since the page was started."""
        return self.installs.of(model)

    def html(self, template: str, **values: Any) -> str:
        """A template, filled in."""
        return self.templates.get_template(template).render(live=self.jobs.live, **values)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """A template as a response."""
        return HTMLResponse(self.html(template, **values), status)

    def missing(self, what: str) -> Response:
        """There is no such thing."""
        return self.page("message.html", status=404, title="Not here", message=what)


def go(address: str) -> Response:
    """Look there next."""
    return RedirectResponse(address, 303)


def text_of(form: Mapping[str, Any], name: str) -> str:
    """A field of a form, without the blanks around it."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""
