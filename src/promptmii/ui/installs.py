"""Fetch embedded models from the page, and watch them come."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from promptmii.models.embedded import Embedded, install
from promptmii.ui.desk import Desk, stream


def begin(request: Request) -> Response:
    """Start to fetch a model, unless that is under way."""
    desk, model = Desk.of(request), _asked(request)
    job = desk.installs.of(model.name)
    if job is None or not job.live:
        job = desk.installs.start(model.name, "", lambda job: install(model, job))
    return desk.page("_install.html", model=model, job=job)


def cancel(request: Request) -> Response:
    """Stop; what has arrived is kept."""
    if job := Desk.of(request).installs.of(_asked(request).name):
        job.cancel()
    return Response(status_code=204)


def events(request: Request) -> Response:
    """Progress until it is over, as pieces of the page."""
    desk, model = Desk.of(request), _asked(request)
    return stream(desk.installs.of(model.name), lambda job: desk.html("_install_state.html", model=model, job=job))


def _asked(request: Request) -> Embedded:
    model = Desk.of(request).installable.get(request.path_params["name"])
    if model is None:
        raise HTTPException(404, "There is no such model.")
    return model
