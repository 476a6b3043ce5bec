"""The context of every request: the application's state, its templates, and common responses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from promptmii.models.embedded import Embedded
from promptmii.ui import filters
from promptmii.ui.jobs import Job, Jobs, watch
from promptmii.ui.store import Store
from promptmii.ui.work import Work
from promptmii.version import VERSION


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("promptmii.ui"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cast("dict[str, Any]", environment.filters).update({function.__name__: function for function in filters.FILTERS})
    cast("dict[str, Any]", environment.globals)["version"] = VERSION
    return environment


@dataclass(frozen=True)
class AppContext:
    """The state of an application."""

    store: Store
    work: Work
    runs: Path
    """Folder of `promptmii evaluate` runs."""
    installable: Mapping[str, Embedded]
    """Models that the page offers to install."""
    jobs: Jobs = field(default_factory=Jobs)
    """Jobs that use the models."""
    drawings: Jobs = field(default_factory=Jobs)
    """Jobs that draw reports, which need no model."""
    installs: Jobs = field(default_factory=Jobs)
    """Downloads of models."""
    templates: Environment = field(default_factory=_environment)

    def __post_init__(self) -> None:
        tables = str(self.store.home / "data")
        self.templates.filters["in_page_words"] = partial(filters.in_page_words, tables=tables)

    @classmethod
    def of(cls, request: Request) -> "AppContext":
        """The context of the request's application."""
        return request.app.state.context

    def html(self, template: str, **values: Any) -> str:
        """The rendered template."""
        return self.templates.get_template(template).render(live=self.jobs.live, **values)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """The rendered template as a response."""
        return HTMLResponse(self.html(template, **values), status)


def go(request: Request, address: str) -> Response:
    """Redirect the browser, or htmx within it."""
    if "hx-request" in request.headers:
        return Response(headers={"HX-Redirect": address})
    return RedirectResponse(address, 303)


def stream(job: Job | None, html: Callable[[Job], str]) -> Response:
    """A job's progress as server-sent events, until the job ends."""
    return StreamingResponse(watch(job, html), media_type="text/event-stream")


def form_text(form: Mapping[str, Any], name: str) -> str:
    """The stripped value of a form field, or an empty string."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""
