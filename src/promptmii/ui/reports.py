"""Reports of `promptmii evaluate` runs, inside the page."""

import hashlib
import os
from pathlib import Path
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from promptmii.ui.context import AppContext, form_text, go

MAX_DEPTH = 3
"""Levels of folders to search for runs."""


def reports(request: Request) -> Response:
    """The list of runs."""
    return _list(AppContext.of(request))


def _list(context: AppContext, failure: str = "") -> Response:
    """The run folders, newest first."""
    paths = [path for depth in range(MAX_DEPTH) for path in context.runs.glob("*/" * depth + "records.jsonl")]
    runs = [path.parent for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)]
    return context.page("reports.html", runs=runs, folder=context.runs, failure=failure)


async def draw(request: Request) -> Response:
    """Start writing the report of a run."""
    from promptmii.report.page import write_report
    from promptmii.report.results import Results

    context = AppContext.of(request)
    async with request.form() as form:
        run = Path(os.path.expanduser(form_text(form, "run")))  # unlike Path.expanduser, takes an unknown user
    key = hashlib.sha256(str(run.absolute()).encode()).hexdigest()[:16]
    context.drawings.start(key, key, lambda _: write_report(Results.read([run]), context.store.home / "reports" / key))
    return go(request, f"/reports/{key}?name={quote(run.name)}")


def show(request: Request) -> Response:
    """The page of a report, which shows it once it is written."""
    context, key = AppContext.of(request), request.path_params["key"]
    job = context.drawings.of(key)
    if job and job.failure:
        return _list(context, job.failure)
    drawing = job is not None and job.live
    if not drawing and not (context.store.home / "reports" / key / "index.html").is_file():
        raise HTTPException(404, "There is no such report here. Open its run again.")
    name = request.query_params.get("name", "Report")
    return context.page("report.html", key=key, name=name, drawing=drawing)


def file(request: Request) -> Response:
    """A file of a report. Serves no other files."""
    folder = AppContext.of(request).store.home / "reports"
    path = (folder / request.path_params["path"]).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise HTTPException(404, "There is no such file.")
    return FileResponse(path)
