"""Synthetic run folders: realistic records for any number of tasks and methods, written in seconds without a model.

Methods differ in skill (`SKILL`), tasks differ in difficulty, and each generator or follower is slightly better than
the one listed before it, so that statistics, figures and the page have differences to show.
"""
# pyright: reportOptionalOperand=false

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from promptmii.files import locked
from promptmii.follower import Prediction
from promptmii.instruction import Cost, Instruction, Measurement, Mode, Provenance
from promptmii.metrics import accuracy, macro_f1
from promptmii.parse import Match
from promptmii.prompts import example_lines
from promptmii.records import Cell, Query, Record, Recorder, pack_predictions
from promptmii.scoring import Scored
from promptmii.task import Example, content_key

SKILL = {
    "naive": 0.35,
    "human": 0.5,
    "icl": 0.62,
    "zero": 0.48,
    "mii": 0.63,
    "best-of-k": 0.65,
    "ape": 0.42,
    "gepa": 0.5,
    "sft": 0.55,
}
"""Share of rows a method gets right at n=20 on a task of average difficulty; 0.5 for other methods."""
WITHOUT_EXAMPLES = ("naive", "human")
WRITTEN = ("zero", "mii", "best-of-k", "ape", "gepa")
CALLS = {"zero": 1, "mii": 1, "best-of-k": 105, "ape": 2000, "gepa": 150}
TOPICS = {
    "banking": "card transfer refund fee balance statement branch app login limit payment dispute",
    "health": "fever dose nurse clinic rash sleep therapy scan allergy vaccine blood recovery",
    "travel": "gate luggage delay visa hotel booking beach train ticket crew airport shuttle",
    "hardware": "fan driver board socket cable memory screen battery noise upgrade cooler disk",
    "law": "clause tenant appeal court notice contract damages witness statute filing hearing licence",
    "cinema": "plot actor scene score ending camera dialogue cast sequel trailer director costume",
}
LABELS = ("question", "complaint", "request", "praise", "report", "offer", "warning", "other")


@dataclass(frozen=True)
class _Task:
    """One synthetic task, shared by all its records."""

    name: str
    query: Query
    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    ease: float
    """Added to the skill of every method."""
    words: tuple[str, ...]
    """The vocabulary of its topic."""


@contextmanager
def recording(folder: Path) -> Generator[Recorder]:
    """A recorder for a run folder, which stays locked until the block ends."""
    with locked(folder):
        yield Recorder(folder)


def write_run(
    folder: Path,
    tasks: int,
    methods: Sequence[str],
    n: Sequence[int],
    seeds: int,
    *,
    rows: int = 200,
    labels: int = 4,
    generators: Sequence[str] = ("smol",),
    followers: Sequence[str] = ("smol",),
    modes: Sequence[Mode] = ("choose",),
    failures: int = 0,
    nameless: bool = False,
    seed: int = 0,
) -> Path:
    """Write a run folder and return it. `failures` consecutive cells have no score, as after an outage.

    Methods that write an instruction have cells for each of `generators`. Methods that read no examples have one cell
    per task, follower and mode.
    """
    random = np.random.default_rng(seed)
    by_name = {task.name: task for task in (_task(random, index, rows, labels, nameless) for index in range(tasks))}
    cells = [cell for name in by_name for cell in _cells(name, methods, n, seeds, generators, followers, modes)]
    failed = range(len(cells) // 3, len(cells) // 3 + failures)
    bonus = {name: 0.04 * i for names in (generators, followers) for i, name in enumerate(names)}
    lines = [_line(_record(random, cell, by_name[cell.task], bonus, i in failed)) for i, cell in enumerate(cells)]
    with recording(folder):  # takes the lock and creates the files; one write is faster than 12,000
        (folder / "queries.jsonl").write_bytes(b"".join(_line(task.query) for task in by_name.values()))
        (folder / "records.jsonl").write_bytes(b"".join(lines))
    return folder


def _line(value: Record | Query) -> bytes:
    return (value.model_dump_json(exclude_defaults=True) + "\n").encode()


def _task(random: np.random.Generator, index: int, rows: int, labels: int, nameless: bool) -> _Task:
    topic = list(TOPICS)[index % len(TOPICS)]
    words = tuple(TOPICS[topic].split())
    if nameless:
        label_names = tuple(f"class {i}" for i in range(labels))
    else:
        label_names = tuple(LABELS[i] if i < len(LABELS) else f"kind {i}" for i in range(labels))
    gold = [label_names[i] for i in random.permutation(np.arange(rows) % labels)]
    name = f"{topic}_{index:03d}{':nameless' if nameless else ''}"
    texts = [f"{name} {i}: " + " ".join(random.choice(words, size=int(random.integers(6, 24)))) for i in range(rows)]
    examples = tuple(Example(text, label) for text, label in zip(texts, gold, strict=True))
    return _Task(name, Query.of(name, examples), examples, label_names, float(random.normal(0, 0.1)), words)


def _cells(
    task: str,
    methods: Sequence[str],
    n: Sequence[int],
    seeds: int,
    generators: Sequence[str],
    followers: Sequence[str],
    modes: Sequence[Mode],
) -> Iterator[Cell]:
    for follower, mode in product(followers, modes):
        for method in methods:
            samples = [(0, 0)] if method in WITHOUT_EXAMPLES else product(n, range(seeds))
            writers = generators if method in WRITTEN else [None]
            for generator, (size, seed) in product(writers, samples):
                yield Cell(
                    task=task, method=method, n=size, seed=seed, generator=generator, follower=follower, mode=mode
                )


def _record(random: np.random.Generator, cell: Cell, task: _Task, bonus: dict[str, float], fails: bool) -> Record:
    key = content_key(cell.model_dump())
    if fails:
        return Record(
            key=key,
            cell=cell,
            status="failed",
            error="timeout: no answer after 5 tries",
            finished="2026-01-05T10:00:00Z",
        )
    skill = SKILL.get(cell.method, 0.5) + task.ease + bonus.get(cell.generator or "", 0.0) + bonus[cell.follower]
    skill += 0.03 * math.log2(cell.n / 20) if cell.n else 0.0
    skill += random.normal(0, 0.05)  # noise of this method on this task
    scored = _scored(random, task, min(0.97, max(0.05, skill)), cell.mode == "generate")
    instruction = _instruction(random, cell, task, scored)
    measured = instruction.measured
    assert measured is not None
    tokens = int(measured.prompt_tokens_per_query * measured.n)
    spent = Cost(
        calls=measured.n,
        prompt_tokens=tokens,
        completion_tokens=2 * measured.n,
        seconds=tokens / 20_000,
        money=tokens * 1e-7,
    )
    return Record(
        key=key,
        cell=cell,
        status="done",
        instruction=instruction,
        spent=spent,
        query=task.query.key,
        answers=pack_predictions(scored.predictions, task.labels),
        machine="a machine, 2 threads",
        revisions={cell.follower: "f0f0"},
        finished="2026-01-05T10:00:00Z",
    )


def _scored(random: np.random.Generator, task: _Task, skill: float, generates: bool) -> Scored:
    count, size = len(task.examples), len(task.labels)
    correct, unparsed = random.random(count) < skill, random.random(count) < (0.03 if generates else 0.0)
    guesses, truncated = random.integers(0, size, count), random.random(count) < 0.005
    probabilities = np.round(random.dirichlet(np.ones(size), count), 4)
    predictions: list[Prediction] = []
    for i, example in enumerate(task.examples):
        label = example.label if correct[i] else task.labels[guesses[i]]
        cut = bool(truncated[i])
        if not generates:
            prediction = Prediction(label, tuple(probabilities[i].tolist()), truncated=cut)
        elif unparsed[i]:
            prediction = Prediction(None, answer="I am not sure what this is about.", truncated=cut)
        else:
            prediction = Prediction(label, match=Match.NORMALISED, answer=f"{label.title()}.", truncated=cut)
        predictions.append(prediction)
    return Scored(task.examples, tuple(predictions))


def _instruction(random: np.random.Generator, cell: Cell, task: _Task, scored: Scored) -> Instruction:
    text = _text(random, cell, task)
    gold, predicted = scored.gold, scored.labels
    score = macro_f1(gold, predicted)
    spread = 1.96 * math.sqrt(max(score * (1 - score), 0.01) / scored.n)
    measured = Measurement(
        macro_f1=score,
        low=max(0.0, score - spread),
        high=min(1.0, score + spread),
        accuracy=accuracy(gold, predicted),
        n=scored.n,
        n_unparsed=scored.n_unparsed,
        n_truncated=scored.n_truncated,
        prompt_tokens_per_query=60 + len(text) / 4.2,
        data_key=task.query.key,
    )
    calls = CALLS.get(cell.method, 0)
    tokens = calls * (200 + 25 * cell.n)
    cost = Cost(
        calls=calls,
        prompt_tokens=tokens,
        completion_tokens=calls * 180,
        seconds=1.4 * calls,
        money=tokens * 4e-7 if calls else None,
    )
    return Instruction(
        text=text,
        labels=task.labels,
        method=cell.method,
        generator=cell.generator,
        follower=cell.follower,
        mode=cell.mode,
        cost=cost,
        provenance=Provenance(
            n=cell.n, seed=cell.seed, support_key=content_key([cell.task, cell.n, cell.seed]), source=cell.task
        ),
        measured=measured,
    )


def _text(random: np.random.Generator, cell: Cell, task: _Task) -> str:
    if cell.method in ("naive", "sft"):
        return ""
    if cell.method == "icl":
        return "Examples:\n\n" + example_lines(task.examples[i % len(task.examples)] for i in range(cell.n))
    word = random.choice(task.words)
    if cell.method == "zero":
        return (
            f"Classify the text as one of: {'; '.join(task.labels)}.\n"
            + f"Mind the tone, and phrases such as {str(word)!r}. " * 4
        )
    clues = [" ".join(random.choice(task.words, size=min(6 + cell.n // 4, 20))) for _ in task.labels]
    lines = [
        f"- {label}: the writer speaks about {clue}, not about {word}."
        for label, clue in zip(task.labels, clues, strict=True)
    ]
    topic = cell.task.split("_")[0]
    return "\n".join(
        [f"The texts are messages of a {topic} forum. Decide what each is:", *lines, "Answer with the label only."]
    )
