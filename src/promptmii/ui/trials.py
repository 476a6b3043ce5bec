"""The pages of a trial: progress, results, edits, labelling a text, and export."""

from collections.abc import Sequence
from difflib import ndiff
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from promptmii.config import InduceSettings
from promptmii.errors import ConfigError
from promptmii.exports import ENDINGS, TARGETS
from promptmii.follower import Prediction
from promptmii.metrics import confusion
from promptmii.ui.context import AppContext, form_text, stream
from promptmii.ui.jobs import Job
from promptmii.ui.store import Answers, Trial
from promptmii.ui.work import Change

PAGE = 100
"""Rows to send at once. Scrolling a table loads more."""
LABEL_TIMEOUT = 120.0
"""Seconds that a typed text waits for its label."""
EDIT = "edit:"
"""Key prefix of jobs that measure an edit. The key of the new trial follows."""


def begin(context: AppContext, data: str, settings: InduceSettings) -> str:
    """Start a run and return the key of its trial."""
    trial = context.store.new(data, settings)
    context.store.save(trial)
    context.jobs.start(trial.key, trial.key, lambda job: context.work.induce(trial, job))
    return trial.key


def show(request: Request) -> Response:
    """The page of a trial, running or done."""
    context, trial = AppContext.of(request), _trial(request)
    if trial.own is None:
        job = context.jobs.of(trial.key)
        live = job if job and job.live else None
        failure = trial.failure or (job.failure if job else "")  # a full disk keeps it from being saved
        written = _written(context, trial)
        return context.page("run.html", trial=trial, job=live, failure=failure, store=context.store, written=written)
    return context.page(
        "trial.html",
        trial=trial,
        own=trial.own,
        store=context.store,
        edit=next((job for job in context.jobs.live if job.trial_key == trial.key and job.key != trial.key), None),
        targets=TARGETS,
        changes=_changes(trial),
        lines=_changed_lines(trial),
        **_errors(trial, len(trial.answers) - 1),
    )


def _changes(trial: Trial) -> list[Change]:
    """The rows whose label an edit changed."""
    if not trial.parent:
        return []
    before, after = trial.answers[-2:]
    changes = [Change(*values) for values in zip(trial.query, before.labels, after.labels, strict=True)]
    return [change for change in changes if change.before != change.after]


def _changed_lines(trial: Trial) -> list[tuple[str, str]]:
    """The lines that an edit removed (-) and added (+)."""
    if not trial.parent:
        return []
    before, after = (answers.instruction.text.splitlines() for answers in trial.answers[-2:])
    return [(line[0], line[2:]) for line in ndiff(before, after) if line[0] in "-+"]


def _written(context: AppContext, trial: Trial) -> str:
    instruction = context.store.instruction(trial)
    return instruction.text if instruction else ""


def events(request: Request) -> Response:
    """The progress of a job, as server-sent HTML."""
    context, trial = AppContext.of(request), _trial(request)
    return stream(context.jobs.of(request.path_params["job"]), lambda job: _job_html(context, trial, job))


def _job_html(context: AppContext, trial: Trial, job: Job) -> str:
    if job.key == trial.key:
        return context.html("_job.html", trial=trial, job=job, written=_written(context, trial))
    return context.html("_edit.html", trial=trial, job=job, edited=job.result)


def cancel(request: Request) -> Response:
    """Cancel the jobs of this trial."""
    _stop(AppContext.of(request), request.path_params["key"])
    return Response(status_code=204)


def _stop(context: AppContext, key: str) -> None:
    for job in context.jobs.live:
        if job.trial_key == key:
            job.cancel()


async def edit(request: Request) -> Response:
    """Measure an edited instruction."""
    context, parent = AppContext.of(request), await run_in_threadpool(_trial, request)
    _measured_answers(parent)
    async with request.form() as form:
        text = form_text(form, "instruction").replace("\r\n", "\n")
    _stop(context, parent.key)
    trial = context.store.new(parent.data, parent.settings, parent.key)
    job = context.jobs.start(EDIT + trial.key, parent.key, lambda job: context.work.edit(trial, parent, text, job))
    job.text = text
    return context.page("_edit_live.html", trial=parent, edit=job)


async def label(request: Request) -> Response:
    """Label a typed text."""
    context, trial = AppContext.of(request), await run_in_threadpool(_trial, request)
    instruction = _measured_answers(trial).instruction
    async with request.form() as form:
        text = form_text(form, "text")
    if not text:
        return context.page("_answer.html", failure="Type a text first.")

    def work(job: Job) -> Prediction:
        job.step("Labelling")  # raises if the job was cancelled after the timeout
        return context.work.label(trial, instruction, text)

    job = context.jobs.start(f"label:{trial.key}", "", work)
    if await run_in_threadpool(job.finished.wait, LABEL_TIMEOUT):
        failure = job.failure
    else:
        failure = "Another run is under way. Try again when it is done."
        job.cancel()
    prediction = job.result
    probabilities = prediction.probabilities if prediction else None
    chances = sorted(zip(probabilities or (), instruction.labels, strict=False), reverse=True)
    return context.page("_answer.html", prediction=prediction, chances=chances, failure=failure)


def errors(request: Request) -> Response:
    """The confusion matrix of one prompt, and the rows it labels wrongly."""
    trial = _trial(request)
    return AppContext.of(request).page("_errors.html", trial=trial, **_errors(trial, _index(request, trial)))


def rows(request: Request) -> Response:
    """Rows of a trial: those in one cell of the confusion matrix, the wrong ones, or all."""
    trial, query = _trial(request), request.query_params
    cell = (query["gold"], query.get("given") or None) if "gold" in query else None
    first = _number(query.get("from", ""), 0)
    values = _rows(trial, _index(request, trial), query.get("which", "wrong"), cell, first)
    return AppContext.of(request).page("_more_rows.html" if first else "_rows.html", trial=trial, **values)


def export(request: Request) -> Response:
    """The instruction as a file."""
    target, instruction = request.path_params["target"], AppContext.of(request).store.instruction(_trial(request))
    if instruction is None:
        raise HTTPException(404, "There is no instruction here.")
    try:
        content = instruction.model_dump_json(indent=2) + "\n" if target == "json" else instruction.export(target)
    except ConfigError as error:
        raise HTTPException(404, str(error)) from error
    name = "classify.json" if target == "json" else f"classify{ENDINGS.get(target, '.py')}"
    attached = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="application/octet-stream", headers=attached)


def history(request: Request) -> Response:
    """All trials, with each edit below the trial it is based on."""
    context = AppContext.of(request)
    trials = list(context.store.trials())
    keys = {trial.key for trial in trials}
    roots = [trial for trial in trials if trial.parent not in keys]
    listed = [entry for root in roots for entry in _with_edits(root, trials, 0)]
    return context.page("history.html", listed=listed, store=context.store)


def _with_edits(trial: Trial, trials: Sequence[Trial], depth: int) -> list[tuple[int, Trial]]:
    """A trial and its edits, each with its depth in the tree."""
    entries = [(depth, trial)]
    for child in trials:
        if child.parent == trial.key:
            entries += _with_edits(child, trials, depth + 1)
    return entries


def _trial(request: Request) -> Trial:
    trial = AppContext.of(request).store.trial(request.path_params["key"])
    if trial is None:
        raise HTTPException(404, "There is no such run here.")
    return trial


def _measured_answers(trial: Trial) -> Answers:
    if trial.own is None:
        raise HTTPException(404, "This run was not measured.")
    return trial.own


def _index(request: Request, trial: Trial) -> int:
    """Index of the requested prompt, by default the instruction."""
    _measured_answers(trial)
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
    page = chosen[first : first + PAGE]
    return {
        "index": index,
        "which": which,
        "cell": cell,
        "total": len(chosen),
        "rows": [(trial.query[i], answers.labels[i], answers.probabilities[i]) for i in page],
        "following": first + PAGE if first + PAGE < len(chosen) else None,
    }


def _belongs(gold: str, predicted: str | None, which: str, cell: tuple[str, str | None] | None) -> bool:
    if cell:
        return (gold, predicted) == cell
    return which == "all" or gold != predicted
