"""From a table to a run: the first page, the form for columns, labels and models, and models to fetch."""

import os
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import Any, get_args

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, QueryParams, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from promptmii.calibration_kinds import FixedCalibration
from promptmii.config import InduceSettings
from promptmii.data import LoadedTask
from promptmii.data.load import SUFFIXES
from promptmii.errors import ConfigError, DataError, PromptMIIError
from promptmii.models.embedded import Embedded, install
from promptmii.models.references import WRITERS
from promptmii.ui.desk import Desk, go, stream, text_of
from promptmii.ui.store import SAMPLE, Store, Trial
from promptmii.ui.trials import begin

RECENT = 5
SHOWN = 5
"""Example rows of a table."""
LARGEST = 512 << 20
"""Bytes of an uploaded table."""
CALIBRATIONS = ("auto", *get_args(FixedCalibration))
OTHER = "other"
"""The entry for a model that the list lacks."""


def start(request: Request) -> Response:
    """The first page."""
    return _first_page(Desk.of(request))


async def add(request: Request) -> Response:
    """Take an uploaded table, or the sample."""
    desk = Desk.of(request)
    failure = "No file arrived. Choose one, or take the sample."
    async with request.form() as form:
        if text_of(form, "sample"):
            return go(request, f"/new?data={SAMPLE}")
        file = form.get("file")
        if isinstance(file, UploadFile) and file.filename:
            try:
                if (file.size or 0) > LARGEST:
                    raise DataError(f"{file.filename} has more than {LARGEST >> 20} MB. Use the command line for it.")
                key = desk.store.add(file.filename, await file.read())
                await run_in_threadpool(desk.store.table, key)
                return go(request, f"/new?data={key}")
            except PromptMIIError as error:
                failure = str(error).replace(f"{desk.store.home}{os.sep}", "")
    return _first_page(desk, failure)


def _recent(desk: Desk, most: int) -> list[Trial]:
    return list(islice(desk.store.trials(), most))


def _first_page(desk: Desk, failure: str = "") -> Response:
    recent = _recent(desk, RECENT)
    return desk.page(
        "start.html", recent=recent, store=desk.store, failure=failure, endings=",".join((*SUFFIXES, ".gz"))
    )


@dataclass(frozen=True)
class Found:
    """The rows and labels of a table under the chosen columns, or why these do not work."""

    columns: tuple[str, ...]
    text: tuple[str, ...] = ()
    label: str = ""
    task: LoadedTask | None = None
    failure: str = ""

    @classmethod
    def of(cls, store: Store, data: str, text: tuple[str, ...] = (), label: str = "") -> "Found":
        """Columns that are not named are detected."""
        table = store.table(data)
        try:
            loaded = store.task(data, text or None, label or None, None, 0)
        except DataError as error:
            return cls(table.columns, text, label, failure=str(error))
        return cls(table.columns, loaded.columns.text, loaded.columns.label or "", loaded)

    @property
    def labels(self) -> list[tuple[str, int]]:
        """Each with its rows."""
        if self.task is None:
            return []
        counts = Counter(row.label for row in self.task.task.rows)
        return [(label, counts[label]) for label in self.task.task.labels]

    @property
    def rows(self) -> list[Any]:
        """A few, from all over the table."""
        rows = self.task.task.rows if self.task else ()
        return list(rows[:: max(len(rows) // SHOWN, 1)][:SHOWN])


def new(request: Request) -> Response:
    """The form for a table."""
    desk, data = Desk.of(request), request.query_params.get("data", "")
    like = desk.store.trial(request.query_params.get("like", ""))
    settings = like.settings if like else InduceSettings()
    columns = settings.columns
    text = (columns.text,) if isinstance(columns.text, str) else columns.text or ()
    try:
        found = Found.of(desk.store, data, text, columns.label or "")
    except DataError as error:
        return desk.page("message.html", title="This table cannot be used", message=str(error))
    shown: dict[str, Any] = {"title": desk.store.title(data), "data": data, "found": found, "chosen": columns.labels}
    return desk.page("new.html", calibrations=CALIBRATIONS, **_choices(desk, settings), **shown)


def columns(request: Request) -> Response:
    """The labels and rows under other columns."""
    desk, query = Desk.of(request), request.query_params
    found = Found.of(desk.store, query.get("data", ""), tuple(query.getlist("text")), query.get("label_column", ""))
    return desk.page("_labels.html", found=found, chosen=None)


async def begin_run(request: Request) -> Response:
    """Start what the form asks for, or show beside its button why not; the form keeps what was typed."""
    desk = Desk.of(request)
    async with request.form() as form:
        data, text = text_of(form, "data"), tuple(str(name) for name in form.getlist("text"))
        try:
            found = await run_in_threadpool(Found.of, desk.store, data, text, text_of(form, "label_column"))
            if found.failure:
                raise DataError(found.failure)
            settings = _settings(form, found)
        except PromptMIIError as error:
            return desk.page("_problem.html", failure=str(error))
    return go(request, f"/trials/{begin(desk, data, settings)}")


def _choices(desk: Desk, settings: InduceSettings) -> dict[str, Any]:
    embedded = desk.installable
    writers = {name: base for name, base in WRITERS.items() if base in embedded}
    models = [(name, embedded[base]) for name, base in {**writers, **{name: name for name in embedded}}.items()]
    ready = [name for name, model in models if model.installed]
    used = [settings, *(trial.settings for trial in _recent(desk, 50))]
    references = dict.fromkeys(name for settings in used for name in (settings.generator, settings.follower) if name)
    others = [name for name in references if name not in embedded and name not in WRITERS]
    usable = settings.generator in (*ready, *others)
    return {
        "models": [(name, _about(name, model), model.installed) for name, model in models],
        "others": others,
        "missing": [(model, desk.installs.of(model.name)) for model in embedded.values() if not model.installed],
        "generator": settings.generator if usable else next(iter([*ready, *others]), OTHER),
        "follower": settings.follower or "",
        "settings": settings,
        "price": next(iter(settings.endpoint.prices.values()), None),
        "has_key": bool(os.environ.get("OPENAI_API_KEY")),
        "base_url": settings.endpoint.base_url or os.environ.get("OPENAI_BASE_URL", ""),
    }


def _about(name: str, model: Embedded) -> str:
    title = f"trained to write, on {model.name}" if name in WRITERS else model.title
    return f"{name}: {title}" + ("" if model.installed else " (not installed)")


def _settings(form: FormData | QueryParams, found: Found) -> InduceSettings:
    """The settings in the form. Raises `ConfigError`."""
    chosen = tuple(str(name) for name in form.getlist("labels"))
    if len(chosen) < 2:
        raise ConfigError("Choose at least two labels.")
    all_labels = {label for label, _ in found.labels}
    numbers = {name: text_of(form, name) for name in ("n", "evaluate", "best_of", "seed")}
    prices = [text_of(form, "price_prompt"), text_of(form, "price_completion")]
    if any(prices) and not all(prices):
        raise ConfigError("Give both prices, of prompt and of written tokens, or neither.")
    return InduceSettings.of(
        **{name: value for name, value in numbers.items() if value},
        generator=_model(form, "generator"),
        follower=_model(form, "follower") or None,
        start=text_of(form, "start").replace("\r\n", "\n") or None,
        mode=text_of(form, "mode") or "choose",
        calibration=text_of(form, "calibration") or "auto",
        columns={"text": found.text, "label": found.label, "labels": chosen if set(chosen) != all_labels else None},
        endpoint={"base_url": text_of(form, "base_url") or None, "prices": {"*": prices} if all(prices) else {}},
    )


def _model(form: FormData | QueryParams, role: str) -> str:
    """A reference from the list, or a typed one. Raises `ConfigError`."""
    chosen = text_of(form, role)
    if chosen != OTHER:
        return chosen
    typed = text_of(form, f"{role}_other")
    if not typed:
        raise ConfigError("Type a model reference, such as openai:gpt-4.1-mini, or choose one from the list.")
    return typed


def begin_install(request: Request) -> Response:
    """Start to fetch a model, unless that is under way."""
    desk, model = Desk.of(request), _asked(request)
    job = desk.installs.of(model.name)
    if job is None or not job.live:
        job = desk.installs.start(model.name, "", lambda job: install(model, job))
    return desk.page("_install.html", model=model, job=job)


def cancel_install(request: Request) -> Response:
    """Stop the download; the bytes that arrived stay."""
    if job := Desk.of(request).installs.of(_asked(request).name):
        job.cancel()
    return Response(status_code=204)


def install_events(request: Request) -> Response:
    """Progress until it is over, as pieces of the page."""
    desk, model = Desk.of(request), _asked(request)
    return stream(desk.installs.of(model.name), lambda job: desk.html("_install_state.html", model=model, job=job))


def _asked(request: Request) -> Embedded:
    model = Desk.of(request).installable.get(request.path_params["name"])
    if model is None:
        raise HTTPException(404, "There is no such model.")
    return model
