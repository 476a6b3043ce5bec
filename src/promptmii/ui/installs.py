"""Embedded models that are fetched from the page, watched while they come."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from promptmii.models.embedded import Embedded, install
from promptmii.ui.desk import Desk
from promptmii.ui.jobs import LOOK, Job, event


def begin(request: Request) -> Response:
    """Fetch a model, unless that is under way already."""
    desk, model = Desk.of(request), _asked(request)
    if model is None:
        return desk.missing("There is no such model.")
    job = desk.installing(model.name)
    if job is None or not job.live:
        job = desk.installs.start(model.name, "", lambda job: install(model, job))
    return desk.page("_install.html", model=model, job=job)


def cancel(request: Request) -> Response:
    """Stop; what has arrived is kept."""
    desk, model = Desk.of(request), _asked(request)
    if model and (job := desk.installing(model.name)):
        job.cancel()
    return Response(status_code=204)


def events(request: Request) -> Response:
    """How far it is, until it is over, as pieces of the page."""
    desk, model = Desk.of(request), _asked(request)
    job = desk.installing(model.name) if model else None
    return StreamingResponse(_watch(desk, model, job), media_type="text/event-stream")


def _asked(request: Request) -> Embedded | None:
    return Desk.of(request).installable.get(request.path_params["name"])


async def _watch(desk: Desk, model: Embedded | None, job: Job | None) -> AsyncGenerator[str]:
    seen = -1
    while model and job:
        live = job.live
        if job.version != seen:
            seen = job.version
            yield event("install", await run_in_threadpool(desk.html, "_install_state.html", model=model, job=job))
        if not live:
            break
        await asyncio.sleep(LOOK)
    if job and job.state == "done":
        yield event("done", "")
    yield event("ended", "")
