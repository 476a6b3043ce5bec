"""Run folders that no model had to make: realistic records of any number of tasks and methods, written in seconds.

Methods differ on purpose (`SKILL`), tasks differ in difficulty, and a later generator or follower of the list is a
little better, so that statistics, figures and page have something to show.
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
"""Share of rows that a method gets right at n=20 on a task of average difficulty; 0.5 for names that are not here."""
READ_NOTHING = ("naive", "human")
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
class _Draw:
    """What all records of a folder share."""

    query: Query
    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    ease: float
    task: str
    words: tuple[str, ...]


@contextmanager
def recording(folder: Path) -> Generator[Recorder]:
    """A recorder on a run folder that is locked meanwhile."""
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
    """Write a run folder and return it. `failures` cells in a row have no score, as after an outage.

    `generators` multiply the methods that write. Methods that read no example have one cell per task and follower.
    """
    random = np.random.default_rng(seed)
    draws = [_draw(random, index, rows, labels, nameless) for index in range(tasks)]
    cells = [cell for draw in draws for cell in _cells(draw.task, methods, n, seeds, generators, followers, modes)]
    failed = range(len(cells) // 3, len(cells) // 3 + failures)
    by_task = {draw.task: draw for draw in draws}
    bonus = {name: 0.04 * i for names in (generators, followers) for i, name in enumerate(names)}
    lines = [
        _line(_record(random, cell, by_task[cell.task], bonus, number in failed)) for number, cell in enumerate(cells)
    ]
    with recording(folder):  # takes the lock and makes the files; one write is faster than 12,000
        (folder / "queries.jsonl").write_bytes(b"".join(_line(draw.query) for draw in draws))
        (folder / "records.jsonl").write_bytes(b"".join(lines))
    return folder


def _line(value: Record | Query) -> bytes:
    return (value.model_dump_json(exclude_defaults=True) + "\n").encode()


def _draw(random: np.random.Generator, index: int, rows: int, labels: int, nameless: bool) -> _Draw:
    topic = list(TOPICS)[index % len(TOPICS)]
    words = tuple(TOPICS[topic].split())
    names = tuple(f"class {i}" if nameless else LABELS[i] if i < len(LABELS) else f"kind {i}" for i in range(labels))
    gold = [names[i] for i in random.permutation(np.arange(rows) % labels)]
    task = f"{topic}_{index:03d}{':nameless' if nameless else ''}"
    texts = [f"{task} {i}: " + " ".join(random.choice(words, size=int(random.integers(6, 24)))) for i in range(rows)]
    examples = tuple(Example(text, label) for text, label in zip(texts, gold, strict=True))
    return _Draw(Query.of(task, examples), examples, names, float(random.normal(0, 0.1)), task, words)


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
            drawn = [(0, 0)] if method in READ_NOTHING else [(size, draw) for size in n for draw in range(seeds)]
            for writer in generators if method in WRITTEN else [None]:
                for size, draw in drawn:
                    yield Cell(
                        task=task, method=method, n=size, seed=draw, generator=writer, follower=follower, mode=mode
                    )


def _record(random: np.random.Generator, cell: Cell, draw: _Draw, bonus: dict[str, float], fails: bool) -> Record:
    key = content_key(cell.model_dump())
    if fails:
        return Record(
            key=key,
            cell=cell,
            status="failed",
            error="timeout: no answer after 5 tries",
            finished="2026-01-05T10:00:00Z",
        )
    skill = SKILL.get(cell.method, 0.5) + draw.ease + bonus.get(cell.generator or "", 0.0) + bonus[cell.follower]
    skill += 0.03 * math.log2(cell.n / 20) if cell.n else 0.0
    own = random.normal(0, 0.05)  # this method on this task
    scored = _scored(random, draw, min(0.97, max(0.05, skill + own)), cell.mode == "generate")
    instruction = _instruction(random, cell, draw, scored)
    used = instruction.measured
    assert used is not None
    tokens = int(used.prompt_tokens_per_query * used.n)
    spent = Cost(
        calls=used.n, prompt_tokens=tokens, completion_tokens=2 * used.n, seconds=tokens / 20_000, money=tokens * 1e-7
    )
    return Record(
        key=key,
        cell=cell,
        status="done",
        instruction=instruction,
        spent=spent,
        query=draw.query.key,
        answers=pack_predictions(scored.predictions, draw.labels),
        machine="a machine, 2 threads",
        revisions={cell.follower: "f0f0"},
        finished="2026-01-05T10:00:00Z",
    )


def _scored(random: np.random.Generator, draw: _Draw, skill: float, writes: bool) -> Scored:
    count, size = len(draw.examples), len(draw.labels)
    right, unparsed = random.random(count) < skill, random.random(count) < (0.03 if writes else 0.0)
    other, cut = random.integers(0, size, count), random.random(count) < 0.005
    chances = np.round(random.dirichlet(np.ones(size), count), 4)
    predictions: list[Prediction] = []
    for i, example in enumerate(draw.examples):
        label = example.label if right[i] else draw.labels[other[i]]
        if not writes:
            predictions.append(Prediction(label, tuple(chances[i].tolist()), truncated=bool(cut[i])))
        elif unparsed[i]:
            predictions.append(Prediction(None, answer="I am not sure what this is about.", truncated=bool(cut[i])))
        else:
            predictions.append(
                Prediction(label, match=Match.NORMALISED, answer=f"{label.title()}.", truncated=bool(cut[i]))
            )
    return Scored(draw.examples, tuple(predictions))


def _instruction(random: np.random.Generator, cell: Cell, draw: _Draw, scored: Scored) -> Instruction:
    text = _text(random, cell, draw)
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
        data_key=draw.query.key,
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
        labels=draw.labels,
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


def _text(random: np.random.Generator, cell: Cell, draw: _Draw) -> str:
    if cell.method in ("naive", "sft"):
        return ""
    if cell.method == "icl":
        return "Examples:\n\n" + example_lines(draw.examples[i % len(draw.examples)] for i in range(cell.n))
    word = random.choice(draw.words)
    if cell.method == "zero":
        return (
            f"Classify the text as one of: {'; '.join(draw.labels)}.\n"
            + f"Mind the tone, and phrases such as {str(word)!r}. " * 4
        )
    clues = [" ".join(random.choice(draw.words, size=min(6 + cell.n // 4, 20))) for _ in draw.labels]
    lines = [
        f"- {label}: the writer speaks about {clue}, not about {word}."
        for label, clue in zip(draw.labels, clues, strict=True)
    ]
    topic = cell.task.split("_")[0]
    return "\n".join(
        [f"The texts are messages of a {topic} forum. Decide what each is:", *lines, "Answer with the label only."]
    )
