"""Estimate the cost of a grid before it runs: calls, tokens, time and money.

Methods state their number of calls. Each model's tokenizer counts a sample of each task's rows, and an instruction is
assumed to have `ASSUMED_TOKENS`. A few calls to each model measure how fast it reads and writes.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from time import perf_counter
from typing import Self

from promptmii.calibrate import CONTENT_FREE
from promptmii.calibration_kinds import READS, Reads
from promptmii.config import Endpoint
from promptmii.data import draw_query, draw_support
from promptmii.errors import DataError, EndpointError
from promptmii.evaluation.plan import EvaluateSettings, PlannedCell, grid_tasks, plan, references
from promptmii.evaluation.run import is_open
from promptmii.evaluation.runner import CellRunner
from promptmii.inducers.method import Expected, WrittenBy
from promptmii.instruction import Cost
from promptmii.models.base import OUTAGES, Chat, LanguageModel, ModelCard, Sampling, Usage
from promptmii.models.http.client import ASSUMED_CONTEXT
from promptmii.models.http.tokens import estimate as estimate_tokens
from promptmii.progress import QUIET, Progress
from promptmii.prompts import example_lines, follower_frame, frame_prompt, induction_prompt, quote
from promptmii.records import RECORDS, Run
from promptmii.serving import model_to_serve
from promptmii.styles import split_style, style_for
from promptmii.task import Task

ASSUMED_TOKENS = 200
SAMPLED_ROWS = 20
"""Rows per task whose tokens are counted."""
MAX_PROMPT_SHARE = 0.75
"""The longest prompt, as a share of the context length."""
TIMED_TOKENS = 32
"""Tokens to write when measuring a model's speed."""
UNKNOWN = (
    "Without an answer, tokens are estimated, the time is unknown, finished cells count as not done, and in mode "
    "choose, likelihoods are assumed."
)
"""What a dry run does not know of a model whose server does not answer."""
QUESTION: Chat = [{"role": "user", "content": "Say something about the weather. " * 8}]


@dataclass(frozen=True)
class MethodEstimate:
    """The cells and the cost of one method, or of all methods."""

    method: str
    cells: int
    done: int
    """Cells already recorded, which the cost leaves out."""
    cost: Cost
    """Its seconds are NaN if a server does not answer."""


@dataclass(frozen=True)
class _Sizes:
    """Mean number of tokens in the parts of a task's prompts."""

    frame: float
    row: float
    example: float
    answer: float


@dataclass(frozen=True)
class _Model:
    """What the estimate knows of a model; by default, of one that cannot be asked now."""

    card: ModelCard
    count_tokens: Callable[[Sequence[str]], list[int]] = lambda texts: [estimate_tokens(text) for text in texts]
    read_rate: float = nan
    """Seconds per prompt token."""
    write_rate: float = nan
    """Seconds per written token."""

    @classmethod
    def timed(cls, model: LanguageModel, mode: str) -> Self:
        """Calls the model a few times."""
        return cls(model.card, model.count_tokens, *_rates(model, mode))

    def cost(self, usage: Usage) -> Cost:
        """The cost of calls, with their time."""
        seconds = (usage.prompt_tokens or 0) * self.read_rate + (usage.completion_tokens or 0) * self.write_rate
        return Cost.of(replace(usage, seconds=seconds), self.card.price)


def estimate(
    settings: EvaluateSettings, folder: Path, *, retry_failed: bool = False, progress: Progress = QUIET
) -> list[MethodEstimate]:
    """The cost of the cells that `evaluate` would run: per method, then in total. Raises the errors of `evaluate`.

    Loads the models and calls each a few times. If a server does not answer, a note says what is not known. Writes
    nothing.
    """
    tasks = grid_tasks(settings)
    with closing(CellRunner(settings, None)) as runner:
        cards: dict[str, ModelCard] = {}
        absent: dict[str, str] = {}
        for reference in references(settings):
            progress.step(f"Loading {reference}")
            if reason := _absence(runner, settings, reference):
                absent[reference] = reason
            cards[reference] = _assumed_card(reference, settings.endpoint) if reason else runner.card(reference)
        if absent:
            progress.note(f"{' '.join(dict.fromkeys(absent.values()))} {UNKNOWN}")
        jobs = plan(settings, tasks, cards)
        records = Run.read(folder).records if (folder / RECORDS).exists() else {}
        models = {
            reference: _Model(card) if reference in absent else _Model.timed(runner.model(reference), settings.mode)
            for reference, card in cards.items()
        }
        pairs = dict.fromkeys((job.cell.task, job.cell.follower) for job in jobs)
        sizes = {(task, follower): _sizes(tasks[task], models[follower]) for task, follower in pairs}
        estimates: list[MethodEstimate] = []
        for method in dict.fromkeys(job.cell.method for job in jobs):
            method_jobs = [job for job in jobs if job.cell.method == method]
            todo = [job for job in method_jobs if is_open(records.get(job.key), retry_failed)]
            costs = [_cost(job, tasks[job.cell.task], sizes[job.cell.task, job.cell.follower], models) for job in todo]
            done = len(method_jobs) - len(todo)
            estimates.append(MethodEstimate(method, len(method_jobs), done, sum(costs, Cost())))
    cells, done = sum(e.cells for e in estimates), sum(e.done for e in estimates)
    return [*estimates, MethodEstimate("all", cells, done, sum((e.cost for e in estimates), Cost()))]


def _absence(runner: CellRunner, settings: EvaluateSettings, reference: str) -> str | None:
    """Why the model cannot be asked now, if it is behind a server that does not answer."""
    if settings.serve and model_to_serve(split_style(reference)[0]):
        return f"The server of {reference} starts with the run."
    try:
        runner.model(reference)
    except EndpointError as error:
        if error.kind not in OUTAGES:
            raise
        return str(error)
    return None


def _assumed_card(reference: str, endpoint: Endpoint) -> ModelCard:
    """The card of a model that cannot be asked now."""
    reference, _ = split_style(reference)
    context, price = endpoint.context_length or ASSUMED_CONTEXT, endpoint.price(reference)
    return ModelCard(reference, revision="unknown", context_length=context, gives_scores=True, price=price)


def _sizes(task: Task, model: _Model) -> _Sizes:
    rows = task.test[:SAMPLED_ROWS] or task.train[:SAMPLED_ROWS]
    frame, *counts = model.count_tokens(
        [
            frame_prompt(follower_frame(), "", task.labels, ""),
            *(quote(row.text) for row in rows),
            *(example_lines([row]) for row in rows),
        ]
    )
    answers = model.count_tokens(list(task.labels))
    n = len(rows)
    return _Sizes(frame, sum(counts[:n]) / n, sum(counts[n:]) / n, sum(answers) / len(answers))


def _rates(model: LanguageModel, mode: str) -> tuple[float, float]:
    """Seconds per prompt token and per written token."""
    started = perf_counter()
    answer = model.generate([QUESTION], Sampling(max_tokens=TIMED_TOKENS))[0]
    write_rate = (perf_counter() - started) / max(answer.usage.completion_tokens or TIMED_TOKENS, 1)
    chats: list[Chat] = [[{"role": "user", "content": f"{i}. {QUESTION[0]['content']}"}] for i in range(16)]
    started = perf_counter()
    if mode == "choose":
        model.choose(chats, ["sun", "rain"])
    else:
        model.generate(chats, Sampling(max_tokens=2))
    seconds = perf_counter() - started
    return seconds / sum(model.count_tokens([chat[0]["content"] for chat in chats])), write_rate


def _cost(job: PlannedCell, task: Task, sizes: _Sizes, models: Mapping[str, _Model]) -> Cost:
    cell, settings = job.cell, job.settings
    method = settings.method(cell.method)
    try:
        n = len(draw_support(task, cell.n, cell.seed).examples) if cell.n else 0
        query = len(draw_query(task, settings.evaluate))
    except DataError:
        return Cost()  # the cell will fail at once
    if not method.asks_follower:
        return Cost()
    expected = method.expected(n)
    calls = query + expected.metric_calls + expected.training_calls + _calibration_calls(job, n, expected)
    length = min(settings.budget or ASSUMED_TOKENS, ASSUMED_TOKENS)
    bodies = {"labels": 0.0, "examples": method.in_prompt(n) * sizes.example, "instruction": length}
    body = min(bodies[method.prompt], models[cell.follower].card.context_length * MAX_PROMPT_SHARE)
    answer = sizes.answer if cell.mode == "generate" else 0.0
    labelling = Usage(calls, round(calls * (sizes.frame + body + sizes.row)), round(calls * answer))
    total = models[cell.follower].cost(labelling)
    if cell.generator and expected.written:
        writer, style = models[cell.generator], style_for(cell.generator, settings.template)
        frame = writer.count_tokens([induction_prompt(style.template, task.labels, ())])[0]
        # A contrast is a second prompt. Searches use none.
        contrasts = writer.card.contrasts and style.contrast and method.written_by is not WrittenBy.SEARCHER
        prompt = (2 if contrasts else 1) * (frame + expected.shown * sizes.example)
        prompt = min(prompt, writer.card.context_length * MAX_PROMPT_SHARE)
        writing = Usage(expected.written, round(expected.written * prompt), round(expected.written * length))
        total += writer.cost(writing)
    return total


def _calibration_calls(job: PlannedCell, n: int, expected: Expected) -> int:
    match READS[job.calibration]:
        case Reads.SUPPORT:
            return 0 if expected.training_calls else n + expected.calibration_calls
        case Reads.CONTENT_FREE:
            candidates = expected.written if expected.metric_calls else 0
            return len(CONTENT_FREE) * (1 + candidates)
        case _:
            return 0
