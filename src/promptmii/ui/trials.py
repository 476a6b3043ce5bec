"""One trial: watch it run, read it, edit it, try it and export it."""

from collections.abc import Sequence
from difflib import ndiff
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from promptmii.config import InduceSettings
from promptmii.errors import ConfigError
from promptmii.exports import TARGETS
from promptmii.follower import Prediction
from promptmii.metrics import confusion
from promptmii.ui.desk import Desk, go, stream, text_of
from promptmii.ui.jobs import Job
from promptmii.ui.store import Answers, Trial
from promptmii.ui.work import Change

PAGE = 100
"""Rows that a table gets at once; more follow as it scrolls."""
PATIENCE = 120.0
"""Seconds that a typed text waits for its label."""
EDIT = "edit:"
"""Begins the key of a job that measures an edit; the key of its trial follows."""


def begin(desk: Desk, data: str, settings: InduceSettings) -> str:
    """Start a run; the key of its trial."""
    trial = desk.store.new(data, settings)
    desk.store.save(trial)
    desk.jobs.start(trial.key, trial.key, lambda job: desk.work.induce(trial, job))
    return trial.key


def show(request: Request) -> Response:
    """A trial, running or done."""
    desk, trial = Desk.of(request), _trial(request)
    if trial.own is None:
        job = desk.jobs.of(trial.key)
        live = job if job and job.live else None
        return desk.page("run.html", trial=trial, job=live, store=desk.store, written=_written(desk, trial))
    return desk.page(
        "trial.html",
        trial=trial,
        own=trial.own,
        store=desk.store,
        edit=next((job for job in desk.jobs.live if job.about == trial.key and job.key != trial.key), None),
        targets=TARGETS,
        changes=_changes(trial),
        lines=_changed_lines(trial),
        **_errors(trial, len(trial.answers) - 1),
    )


def _changes(trial: Trial) -> list[Change]:
    """The rows whose label an edit changed."""
    if not trial.parent:
        return []
    before, after = trial.answers[-2], trial.answers[-1]
    rows = zip(trial.query, before.labels, after.labels, strict=True)
    return [Change(row, was, now) for row, was, now in rows if was != now]


def _changed_lines(trial: Trial) -> list[tuple[str, str]]:
    """The lines that an edit removed (-) and added (+)."""
    if not trial.parent:
        return []
    before, after = (answers.instruction.text.splitlines() for answers in trial.answers[-2:])
    return [(line[0], line[2:]) for line in ndiff(before, after) if line[0] in "-+"]


def _written(desk: Desk, trial: Trial) -> str:
    instruction = desk.store.instruction(trial)
    return instruction.text if instruction else ""


def events(request: Request) -> Response:
    """Progress of a job, as pieces of the page."""
    desk, trial = Desk.of(request), _trial(request)
    return stream(desk.jobs.of(request.path_params["job"]), lambda job: _job_html(desk, trial, job))


def _job_html(desk: Desk, trial: Trial, job: Job) -> str:
    if job.key == trial.key:
        return desk.html("_job.html", trial=trial, job=job, written=_written(desk, trial))
    return desk.html("_edit.html", trial=trial, job=job, edited=job.result)


def cancel(request: Request) -> Response:
    """Cancel the jobs of this trial."""
    desk, key = Desk.of(request), request.path_params["key"]
    _stop(desk, key)
    return Response(status_code=204) if "hx-request" in request.headers else go(request, f"/trials/{key}")


def _stop(desk: Desk, key: str) -> None:
    for job in desk.jobs.live:
        if job.about == key:
            job.cancel()


async def edit(request: Request) -> Response:
    """Measure another text in place of the instruction."""
    desk, parent = Desk.of(request), await run_in_threadpool(_trial, request)
    _own(parent)
    async with request.form() as form:
        text = text_of(form, "instruction").replace("\r\n", "\n")
    _stop(desk, parent.key)
    trial = desk.store.new(parent.data, parent.settings, parent.key)
    job = desk.jobs.start(EDIT + trial.key, parent.key, lambda job: desk.work.edit(trial, parent, text, job))
    return desk.page("_edit_live.html", trial=parent, edit=job)


async def label(request: Request) -> Response:
    """Label a text that was typed."""
    desk, trial = Desk.of(request), await run_in_threadpool(_trial, request)
    instruction = _own(trial).instruction
    async with request.form() as form:
        text = text_of(form, "text")
    if not text:
        return desk.page("_answer.html", failure="Type a text first.")

    def work(job: Job) -> Prediction:
        job.step("Labelling")  # raises if nobody waits for it any more
        return desk.work.label(trial, instruction, text)

    job = desk.jobs.start(f"label:{trial.key}", "", work)
    done = await run_in_threadpool(job.finished.wait, PATIENCE)
    failure = job.failure if done else "Another run is under way. Try again when it is done."
    if not done:
        job.cancel()
    prediction = job.result
    probabilities = prediction.probabilities if prediction else None
    chances = sorted(zip(probabilities or (), instruction.labels, strict=False), reverse=True)
    return desk.page("_answer.html", prediction=prediction, chances=chances, failure=failure)


def errors(request: Request) -> Response:
    """The confusion matrix of one prompt, and the rows it gets wrong."""
    trial = _trial(request)
    return Desk.of(request).page("_errors.html", trial=trial, **_errors(trial, _index(request, trial)))


def rows(request: Request) -> Response:
    """Rows of a trial: those in a cell of its confusion matrix, those that are wrong, or all."""
    trial, query = _trial(request), request.query_params
    cell = (query["gold"], query.get("given") or None) if "gold" in query else None
    first = _number(query.get("from", ""), 0)
    values = _rows(trial, _index(request, trial), query.get("which", "wrong"), cell, first)
    return Desk.of(request).page("_more_rows.html" if first else "_rows.html", trial=trial, **values)


def export(request: Request) -> Response:
    """The instruction as a file."""
    target, instruction = request.path_params["target"], Desk.of(request).store.instruction(_trial(request))
    if instruction is None:
        raise HTTPException(404, "There is no instruction here.")
    try:
        content = instruction.model_dump_json(indent=2) + "\n" if target == "json" else instruction.export(target)
    except ConfigError as error:
        raise HTTPException(404, str(error)) from error
    name = f"classify.{target if target in ('json', 'txt') else 'py'}"
    attached = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="application/octet-stream", headers=attached)


def history(request: Request) -> Response:
    """All trials, each edit below the trial it started from."""
    desk = Desk.of(request)
    trials = list(desk.store.trials())
    keys = {trial.key for trial in trials}
    roots = [trial for trial in trials if trial.parent not in keys]
    listed = [line for root in roots for line in _family(root, trials, 0)]
    return desk.page("history.html", listed=listed, store=desk.store)


def _family(trial: Trial, trials: Sequence[Trial], depth: int) -> list[tuple[int, Trial]]:
    children = [line for child in trials if child.parent == trial.key for line in _family(child, trials, depth + 1)]
    return [(depth, trial), *children]


def _trial(request: Request) -> Trial:
    trial = Desk.of(request).store.trial(request.path_params["key"])
    if trial is None:
        raise HTTPException(404, "There is no such run here.")
    return trial


def _own(trial: Trial) -> Answers:
    if trial.own is None:
        raise HTTPException(404, "This run was not measured.")
    return trial.own


def _index(request: Request, trial: Trial) -> int:
    """Index of the prompt asked for; the instruction by default."""
    _own(trial)
    last = len(trial.answers) - 1
    return min(_number(request.query_params.get("answers", ""), last), last)


def _number(text: str, default: int) -> int:
    return int(text) if text.isdecimal() else default


def _errors(trial: Trial, index: int) -> dict[str, Any]:
    answers = trial.answers[index]
    names = answers.instruction.labels
    counts = confusion(trial.gold, answers.labels, names)
    return {
        "index": index,
        "names": names,
        "counts": counts,
        "unlabelled": any(row[-1] for row in counts),
        **_rows(trial, index, "wrong", None, 0),
    }


def _rows(trial: Trial, index: int, which: str, cell: tuple[str, str | None] | None, first: int) -> dict[str, Any]:
    answers = trial.answers[index]
    chosen = [i for i, row in enumerate(trial.query) if _belongs(row.label, answers.labels[i], which, cell)]
    shown = [(trial.query[i], answers.labels[i], answers.probabilities[i]) for i in chosen[first : first + PAGE]]
    following = first + PAGE if first + PAGE < len(chosen) else None
    about = {"index": index, "which": which, "cell": cell, "total": len(chosen)}
    return about | {"rows": shown, "following": following}


def _belongs(gold: str, predicted: str | None, which: str, cell: tuple[str, str | None] | None) -> bool:
    return (gold, predicted) == cell if cell else which == "all" or gold != predicted
