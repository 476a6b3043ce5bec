"""What every page needs, and how a template becomes a response."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from promptmii.models.embedded import Embedded
from promptmii.ui import words
from promptmii.ui.jobs import Job, Jobs, watch
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
    made.filters.update({act.__name__: act for act in words.FILTERS})
    functions = {act.__name__: act for act in words.FUNCTIONS}
    cast("dict[str, Any]", made.globals).update(functions, version=VERSION)
    return made


@dataclass(frozen=True)
class Desk:
    """One per application."""

    store: Store
    work: Work
    runs: Path
    """Folder with runs of `promptmii evaluate`."""
    installable: Mapping[str, Embedded]
    """Models that the page offers, and fetches if they are missing."""
    jobs: Jobs = field(default_factory=Jobs)
    """Of the models."""
    drawings: Jobs = field(default_factory=Jobs)
    """Of reports, which need no model."""
    installs: Jobs = field(default_factory=Jobs)
    """Of models that are fetched."""
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
    """How far a job is, until it is over, as server-sent events."""
    return StreamingResponse(watch(job, html), media_type="text/event-stream")


def text_of(form: Mapping[str, Any], name: str) -> str:
    """A field of a form, stripped."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""
