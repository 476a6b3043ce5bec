"""The cost of a grid before it runs: calls, tokens, time and money.

Each method knows its calls. The models' own tokenizers count a sample of each task's rows; an instruction counts as
`ASSUMED_TOKENS` long. A few calls to each model measure how fast it reads and writes.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from promptmii.calibration_kinds import READS, Reads
from promptmii.data import draw_query, draw_support
from promptmii.errors import DataError
from promptmii.evaluation.bench import Bench
from promptmii.evaluation.plan import EvaluateSettings, PlannedCell, grid_tasks, plan, references
from promptmii.evaluation.run import is_open
from promptmii.inducers.method import WrittenBy
from promptmii.instruction import Cost
from promptmii.models.base import Chat, LanguageModel, Sampling, Usage
from promptmii.progress import QUIET, Progress
from promptmii.prompts import example_lines, follower_frame, frame_prompt, induction_prompt, quote
from promptmii.records import RECORDS, Run
from promptmii.styles import style_for
from promptmii.task import Task

ASSUMED_TOKENS = 200
SAMPLED = 20
"""Rows of a task that are counted for all of them."""
FULLEST = 0.75
"""The longest prompt, as a part of the context."""
WRITTEN = 32
"""Tokens of the answer that shows how fast a model writes."""
QUESTION: Chat = [{"role": "user", "content": "Say something about the weather. " * 8}]


@dataclass(frozen=True)
class MethodEstimate:
    """Cells and cost of one method, or of all."""

    method: str
    cells: int
    done: int
    """Cells recorded already, which are not part of the cost."""
    cost: Cost


@dataclass(frozen=True)
class _Sizes:
    """Tokens of a task's parts, on average."""

    frame: float
    row: float
    example: float
    answer: float


def estimate(
    settings: EvaluateSettings, folder: Path, *, retry_failed: bool = False, progress: Progress = QUIET
) -> list[MethodEstimate]:
    """Cost of the cells that `evaluate` would run: one line per method, then their sum. Raises as it does.

    Loads the models and calls each a few times; writes nothing.
    """
    tasks = grid_tasks(settings)
    with closing(Bench(settings, None)) as bench:
        models: dict[str, LanguageModel] = {}
        for reference in references(settings):
            progress.step(f"Loading {reference}")
            models[reference] = bench.model(reference)
        jobs = plan(settings, tasks, {reference: model.card for reference, model in models.items()})
        known = Run.read(folder).records if (folder / RECORDS).exists() else {}
        rates = {reference: _rates(model, settings.mode) for reference, model in models.items()}
        pairs = dict.fromkeys((job.cell.task, job.cell.follower) for job in jobs)
        sizes = {(task, follower): _sizes(tasks[task], models[follower]) for task, follower in pairs}
        lines: list[MethodEstimate] = []
        for method in dict.fromkeys(job.cell.method for job in jobs):
            own = [job for job in jobs if job.cell.method == method]
            todo = [job for job in own if is_open(known.get(job.key), retry_failed)]
            costs = [
                _cost(job, tasks[job.cell.task], sizes[job.cell.task, job.cell.follower], models, rates) for job in todo
            ]
            lines.append(MethodEstimate(method, len(own), len(own) - len(todo), sum(costs, Cost())))
    cells, done, cost = sum(e.cells for e in lines), sum(e.done for e in lines), sum((e.cost for e in lines), Cost())
    return [*lines, MethodEstimate("all", cells, done, cost)]


def _sizes(task: Task, model: LanguageModel) -> _Sizes:
    rows = task.test[:SAMPLED] or task.train[:SAMPLED]
    frame, *counts = model.count_tokens(
        [
            frame_prompt(follower_frame(), "", task.labels, ""),
            *(quote(row.text) for row in rows),
            *(example_lines([row]) for row in rows),
        ]
    )
    answers = model.count_tokens(list(task.labels))
    half = len(rows)
    return _Sizes(frame, sum(counts[:half]) / half, sum(counts[half:]) / half, sum(answers) / len(answers))


Rates = tuple[float, float]
"""Seconds per prompt token, and per token written."""


def _rates(model: LanguageModel, mode: str) -> Rates:
    started = perf_counter()
    answer = model.generate([QUESTION], Sampling(max_tokens=WRITTEN))[0]
    wrote = (perf_counter() - started) / max(answer.usage.completion_tokens or WRITTEN, 1)
    chats: list[Chat] = [[{"role": "user", "content": f"{i}. {QUESTION[0]['content']}"}] for i in range(16)]
    started = perf_counter()
    model.choose(chats, ["sun", "rain"]) if mode == "choose" else model.generate(chats, Sampling(max_tokens=2))
    spent = perf_counter() - started
    return spent / sum(model.count_tokens([chat[0]["content"] for chat in chats])), wrote


def _cost(
    job: PlannedCell, task: Task, sizes: _Sizes, models: Mapping[str, LanguageModel], rates: Mapping[str, Rates]
) -> Cost:
    cell, settings = job.cell, job.settings
    method = settings.method(cell.method)
    try:
        n = len(draw_support(task, cell.n, cell.seed).examples) if cell.n else 0
        query = len(draw_query(task, settings.evaluate))
    except DataError:
        return Cost()  # such a cell fails at once
    if not method.asks_follower:
        return Cost()
    expected = method.expected(n)
    calibration = n + expected.calibration_calls if READS[job.calibration] is Reads.SUPPORT else 0
    labelled = query + expected.metric_calls + calibration
    length = settings.budget or ASSUMED_TOKENS
    bodies = {"labels": 0.0, "examples": method.in_prompt(n) * sizes.example, "instruction": length}
    body = min(bodies[method.prompt], models[cell.follower].card.context_length * FULLEST)
    answer = sizes.answer if cell.mode == "generate" else 0.0
    follow = Usage(labelled, round(labelled * (sizes.frame + body + sizes.row)), round(labelled * answer))
    total = _priced(follow, models[cell.follower], rates[cell.follower])
    if cell.generator and expected.written:
        writer, style = models[cell.generator], style_for(cell.generator, settings.template)
        frame = writer.count_tokens([induction_prompt(style.template, task.labels, ())])[0]
        searched = method.written_by is WrittenBy.SEARCHER  # without a contrast, which is a second prompt
        prompts = 2 if writer.card.contrasts and style.contrast and not searched else 1
        request = min(prompts * (frame + expected.shown * sizes.example), writer.card.context_length * FULLEST)
        written = Usage(expected.written, round(expected.written * request), round(expected.written * length))
        total += _priced(written, writer, rates[cell.generator])
    return total


def _priced(usage: Usage, model: LanguageModel, rates: Rates) -> Cost:
    read, write = rates
    seconds = (usage.prompt_tokens or 0) * read + (usage.completion_tokens or 0) * write
    return Cost.of(replace(usage, seconds=seconds), model.card.price)
