"""Reports of runs of `promptmii evaluate`, in the page's own frame."""

import hashlib
from pathlib import Path
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from promptmii.ui.desk import Desk, go, text_of

DEEPEST = 3
"""Levels of folders to search for runs."""


def reports(request: Request) -> Response:
    """The list of runs."""
    desk = Desk.of(request)
    return desk.page("reports.html", runs=_runs(desk.runs), folder=desk.runs, failure="")


def _runs(folder: Path) -> list[Path]:
    """Run folders, the newest first."""
    found = [path for depth in range(DEEPEST) for path in folder.glob("*/" * depth + "records.jsonl")]
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


async def draw(request: Request) -> Response:
    """Start to write the report of a run."""
    from promptmii.report.page import write_report

    desk = Desk.of(request)
    async with request.form() as form:
        run = Path(text_of(form, "run")).expanduser()
    key = hashlib.sha256(str(run.absolute()).encode()).hexdigest()[:16]
    desk.drawings.start(key, key, lambda _: write_report([run], desk.store.home / "reports" / key))
    return go(request, f"/reports/{key}?name={quote(run.name)}")


def show(request: Request) -> Response:
    """A report in the frame, once it is written."""
    desk, key = Desk.of(request), request.path_params["key"]
    job = desk.drawings.of(key)
    if job and job.failure:
        return desk.page("reports.html", runs=_runs(desk.runs), folder=desk.runs, failure=job.failure)
    drawing = job is not None and job.live
    if not drawing and not (desk.store.home / "reports" / key / "index.html").is_file():
        raise HTTPException(404, "There is no such report here. Open its run again.")
    name = request.query_params.get("name", "Report")
    return desk.page("report.html", key=key, name=name, drawing=drawing)


def file(request: Request) -> Response:
    """A file of a report; no other file is served."""
    folder = Desk.of(request).store.home / "reports"
    path = (folder / request.path_params["path"]).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise HTTPException(404, "There is no such file.")
    return FileResponse(path)
