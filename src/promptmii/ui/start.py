"""Start a run: the first page, the form for columns, labels and models, and the installation of models."""

import os
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import Any, get_args

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from promptmii.calibration_kinds import FixedCalibration
from promptmii.config import InduceSettings
from promptmii.data import LoadedTask
from promptmii.data.readers import SUFFIXES
from promptmii.data.table import is_number
from promptmii.errors import ConfigError, DataError, PromptMIIError
from promptmii.models.embedded import Embedded, install
from promptmii.models.references import WRITERS
from promptmii.ui.context import AppContext, form_text, go, stream
from promptmii.ui.store import SAMPLE, Store, Trial
from promptmii.ui.trials import begin

RECENT = 5
"""Trials on the first page."""
PREVIEW_ROWS = 5
MAX_UPLOAD = 512 << 20
"""Maximum size of an uploaded table, in bytes."""
CALIBRATIONS = ("auto", *get_args(FixedCalibration))
OTHER = "other"
"""The list entry for typing another model."""


def start(request: Request) -> Response:
    """The first page."""
    return _first_page(AppContext.of(request))


async def add(request: Request) -> Response:
    """Store an uploaded table, or take the sample."""
    context = AppContext.of(request)
    failure = "No file arrived. Choose one, or take the sample."
    async with request.form() as form:
        if form_text(form, "sample"):
            return go(request, f"/new?data={SAMPLE}")
        file = form.get("file")
        if isinstance(file, UploadFile) and file.filename:
            try:
                if (file.size or 0) > MAX_UPLOAD:
                    raise DataError(
                        f"{file.filename} has more than {MAX_UPLOAD >> 20} MB. Use the command line for it."
                    )
                key = context.store.add(file.filename, await file.read())
                await run_in_threadpool(context.store.table, key)
                return go(request, f"/new?data={key}")
            except PromptMIIError as error:
                failure = str(error)
    return _first_page(context, failure)


def _recent(context: AppContext, most: int) -> list[Trial]:
    return list(islice(context.store.trials(), most))


def _first_page(context: AppContext, failure: str = "") -> Response:
    recent = [(0, trial) for trial in _recent(context, RECENT)]
    return context.page(
        "start.html", recent=recent, store=context.store, failure=failure, endings=",".join((*SUFFIXES, ".gz"))
    )


@dataclass(frozen=True)
class DataPreview:
    """The labels and some rows of a table under the chosen columns, or why the columns do not work."""

    columns: tuple[str, ...]
    text: tuple[str, ...] = ()
    label: str = ""
    task: LoadedTask | None = None
    failure: str = ""

    @classmethod
    def of(cls, store: Store, data: str, text: tuple[str, ...] = (), label: str = "") -> "DataPreview":
        """Detects columns that are not named."""
        table = store.table(data)
        try:
            loaded = store.task(data, text or None, label or None, None, 0)
        except DataError as error:
            return cls(table.columns, text, label, failure=str(error))
        return cls(table.columns, loaded.columns.text, loaded.columns.label or "", loaded)

    @property
    def labels(self) -> list[tuple[str, int]]:
        """The labels with their numbers of rows."""
        if self.task is None:
            return []
        counts = Counter(row.label for row in self.task.task.rows)
        return [(label, counts[label]) for label in self.task.task.labels]

    @property
    def rows(self) -> list[Any]:
        """A few rows, evenly spaced in the table."""
        rows = self.task.task.rows if self.task else ()
        return list(rows[:: max(len(rows) // PREVIEW_ROWS, 1)][:PREVIEW_ROWS])


def new(request: Request) -> Response:
    """The form for a new run on a table, with the settings of the trial `like` if there is one."""
    context, data = AppContext.of(request), request.query_params.get("data", "")
    trial = context.store.trial(request.query_params.get("like", ""))
    settings = trial.settings if trial else InduceSettings()
    columns = settings.columns
    text = (columns.text,) if isinstance(columns.text, str) else columns.text or ()
    try:
        preview = DataPreview.of(context.store, data, text, columns.label or "")
    except DataError as error:
        return context.page("message.html", title="This table cannot be used", message=str(error))
    if preview.task and not trial:
        settings = settings.model_copy(update={"n": min(settings.n, max(len(preview.task.task.train), 1))})
    return context.page(
        "new.html",
        title=context.store.title(data),
        data=data,
        preview=preview,
        chosen=columns.labels,
        calibrations=CALIBRATIONS,
        **_choices(context, settings),
    )


def columns(request: Request) -> Response:
    """The preview under other columns. The labels of the same label column keep their ticks."""
    context, query = AppContext.of(request), request.query_params
    text, label = tuple(query.getlist("text")), query.get("label_column", "")
    preview = DataPreview.of(context.store, query.get("data", ""), text, label)
    chosen = query.getlist("labels") if query.get("labels_of") == preview.label else None
    return context.page("_labels.html", preview=preview, chosen=chosen)


async def begin_run(request: Request) -> Response:
    """Start the run in the form. An error appears beside the button, and the form keeps its input."""
    context = AppContext.of(request)
    async with request.form() as form:
        data, text = form_text(form, "data"), tuple(str(name) for name in form.getlist("text"))
        try:
            preview = await run_in_threadpool(
                DataPreview.of, context.store, data, text, form_text(form, "label_column")
            )
            if preview.failure:
                raise DataError(preview.failure)
            settings = _settings(form, preview)
        except PromptMIIError as error:
            return context.page("_problem.html", failure=str(error))
    return go(request, f"/trials/{begin(context, data, settings)}")


def _choices(context: AppContext, settings: InduceSettings) -> dict[str, Any]:
    embedded = context.installable
    models = [(name, embedded[base]) for name, base in WRITERS.items() if base in embedded] + [*embedded.items()]
    ready = [name for name, model in models if model.installed]
    used = [settings, *(trial.settings for trial in _recent(context, 50))]
    references = dict.fromkeys(name for settings in used for name in (settings.generator, settings.follower) if name)
    others = [name for name in references if name not in embedded and name not in WRITERS]
    usable = [*ready, *others]
    return {
        "models": [(name, _about(name, model), model.installed) for name, model in models],
        "others": others,
        "missing": [(model, context.installs.of(model.name)) for model in embedded.values() if not model.installed],
        "generator": settings.generator if settings.generator in usable else [*usable, OTHER][0],
        "follower": settings.follower or "",
        "settings": settings,
        "price": next(iter(settings.endpoint.prices.values()), None),
        "has_key": bool(os.environ.get("OPENAI_API_KEY")),
        "base_url": settings.endpoint.base_url or os.environ.get("OPENAI_BASE_URL", ""),
    }


def _about(name: str, model: Embedded) -> str:
    title = f"trained to write, on {model.name}" if name in WRITERS else model.title
    return f"{name}: {title}" + ("" if model.installed else " (not installed)")


def _settings(form: FormData, preview: DataPreview) -> InduceSettings:
    """The form's settings. Raises `ConfigError`."""
    chosen = tuple(str(name) for name in form.getlist("labels"))
    if len(chosen) < 2:
        raise ConfigError("Choose at least two labels.")
    all_labels = {label for label, _ in preview.labels}
    numbers = {name: form_text(form, name) for name in ("n", "evaluate", "best_of", "seed")}
    prices = [form_text(form, "price_prompt"), form_text(form, "price_completion")]
    if any(prices) and not all(prices):
        raise ConfigError("Give both prices, of prompt and of written tokens, or neither.")
    for price in filter(None, prices):
        if not is_number(price) or float(price) < 0:
            raise ConfigError(f"The price {price!r} is not a number from 0; expected one such as 0.15.")
    return InduceSettings.of(
        **{name: value for name, value in numbers.items() if value},
        generator=_model(form, "generator"),
        follower=_model(form, "follower") or None,
        start=form_text(form, "start").replace("\r\n", "\n") or None,
        mode=form_text(form, "mode") or "choose",
        calibration=form_text(form, "calibration") or "auto",
        columns={"text": preview.text, "label": preview.label, "labels": chosen if set(chosen) != all_labels else None},
        endpoint={"base_url": form_text(form, "base_url") or None, "prices": {"*": prices} if all(prices) else {}},
    )


def _model(form: FormData, role: str) -> str:
    """The chosen or typed model reference. Raises `ConfigError`."""
    chosen = form_text(form, role)
    if chosen != OTHER:
        return chosen
    typed = form_text(form, f"{role}_other")
    if not typed:
        raise ConfigError("Type a model reference, such as openai:gpt-4.1-mini, or choose one from the list.")
    return typed


def begin_install(request: Request) -> Response:
    """Start installing a model, unless that is in progress."""
    context, model = AppContext.of(request), _model_of(request)
    job = context.installs.of(model.name)
    if job is None or not job.live:
        job = context.installs.start(model.name, "", lambda job: install(model, job))
    return context.page("_install.html", model=model, job=job)


def cancel_install(request: Request) -> Response:
    """Stop the download, and keep the bytes received so far."""
    if job := AppContext.of(request).installs.of(_model_of(request).name):
        job.cancel()
    return Response(status_code=204)


def install_events(request: Request) -> Response:
    """The progress of an installation, as server-sent HTML."""
    context, model = AppContext.of(request), _model_of(request)
    job = context.installs.of(model.name)
    return stream(job, lambda job: context.html("_install_state.html", model=model, job=job))


def _model_of(request: Request) -> Embedded:
    model = AppContext.of(request).installable.get(request.path_params["name"])
    if model is None:
        raise HTTPException(404, "There is no such model.")
    return model
