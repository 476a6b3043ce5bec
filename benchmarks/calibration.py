"""Which calibration suits a follower: mean macro-F1 over tasks, for each method and calibration.

    python benchmarks/calibration.py /path/to/tasks/*.jsonl -o runs/calibration --follower smol --follower hf:qwen
    python benchmarks/calibration.py -o runs/calibration       # prints the tables again, and runs nothing
    python benchmarks/calibration.py /path/to/tasks/*.jsonl -o runs/bound --follower hf:qwen --method human --nameless

Methods: the label list (naive), the examples in the prompt (icl, cross-fitted), and an instruction from the shipped
bank of label descriptions (human), which shows what good instructions are worth. `--nameless` hides the label names.
Every score is appended to `scores.jsonl` at once, and every answer is kept, so run it again to continue after an
interruption. `batch` reads the query itself; it is shown only for comparison.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, get_args

from promptmii.calibration_kinds import CalibrationKind
from promptmii.data import draw_query, draw_support, load_task
from promptmii.data.nameless import hidden_names, nameless
from promptmii.files import append_line
from promptmii.follower import Follower
from promptmii.inducers import Inducer
from promptmii.inducers.fixed import FixedInstruction, Naive
from promptmii.inducers.icl import InContext
from promptmii.models import load_model
from promptmii.models.base import LanguageModel
from promptmii.models.cache import Cached
from promptmii.scoring import score
from promptmii.task import Support, Task
from promptmii.train.warmup.pairs import SHIPPED, read_bank

KINDS: tuple[CalibrationKind, ...] = get_args(CalibrationKind)


def main() -> None:
    """Score what is missing, task by task, and print a table per follower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", type=Path)
    parser.add_argument("--follower", action="append", default=[])
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/calibration"))
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--method", action="append", choices=("naive", "icl", "human"), default=[], help="else all")
    parser.add_argument("--nameless", action="store_true")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    path = given.output / "scores.jsonl"
    known = {tuple(line[:-1]): line[-1] for line in read(path)}
    for reference in given.follower if given.tasks else []:
        with closing(Cached(load_model(reference), given.output)) as model:
            for task, seed in ((task, seed) for task in given.tasks for seed in range(given.seeds)):
                loaded = replace(load_task(str(task)).task, name=task.stem)
                for line in scores(model, loaded, given, seed, known):
                    append_line(path, (json.dumps(line) + "\n").encode())
                    known[tuple(line[:-1])] = line[-1]
                print(f"{reference}: {task.stem}, seed {seed}", flush=True)
    for reference in dict.fromkeys(key[0] for key in known):
        show(reference, known)


def read(path: Path) -> list[list[Any]]:
    """The lines of the results file: follower, task, method, calibration, n, rows, seed, macro-F1."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def scores(
    model: LanguageModel, task: Task, given: argparse.Namespace, seed: int, known: dict[tuple[Any, ...], float]
) -> Iterator[list[Any]]:
    """The missing scores of one task: a line per method and calibration."""
    shown = nameless(task) if given.nameless else task
    support, query = draw_support(shown, given.n, seed), draw_query(shown, given.rows)
    for inducer in methods(model, task, hidden=given.nameless):
        if given.method and inducer.name not in given.method:
            continue
        for kind in KINDS:
            key = (model.card.reference, shown.name, inducer.name, kind, given.n, given.rows, seed)
            if key not in known:
                yield [*key, macro_f1(Follower(model, "choose", kind), inducer, support, query)]


def methods(model: LanguageModel, task: Task, *, hidden: bool) -> Iterator[Inducer]:
    """The label list, the examples, and the bank's instruction if it describes every label."""
    yield Naive()
    yield InContext(model)
    guide = read_bank(SHIPPED).get(task.name)
    if guide and guide.covers(task.labels):
        yield FixedInstruction(guide.text(hidden_names(task) if hidden else {label: label for label in task.labels}))


def macro_f1(follower: Follower, inducer: Inducer, support: Support, query: Any) -> float:
    """The macro-F1 of one method under one calibration."""
    return score(follower, follower.prepare(inducer.induce(support), support), query).measurement().macro_f1


def show(reference: str, known: dict[tuple[Any, ...], float]) -> None:
    """Two rows per method: the means over the tasks that have all calibrations, and paired differences to `support`."""
    found: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for (owner, task, method, kind, *_), value in known.items():
        if owner == reference:
            found[method][task][kind].append(value)
    print(f"\n{reference}: mean macro-F1 (standard error over tasks)")
    print(f"{'':8}{'tasks':>6}" + "".join(f"{kind:>15}" for kind in KINDS))
    for method, by_task in found.items():
        whole = [by_kind for by_kind in by_task.values() if len(by_kind) == len(KINDS)]
        means = {kind: [mean(by_kind[kind]) for by_kind in whole] for kind in KINDS}
        apart = ([a - b for a, b in zip(means[kind], means["support"], strict=True)] for kind in KINDS)
        print(f"{method:8}{len(whole):>6}" + "".join(f"{summary(means[kind]):>15}" for kind in KINDS))
        print(f"{'- support':>14}" + "".join(f"{summary(values, '+'):>15}" for values in apart))


def summary(values: list[float], sign: str = "") -> str:
    """Mean and standard error."""
    error = f" ({stdev(values) / len(values) ** 0.5:.3f})" if len(values) > 1 else ""
    return f"{mean(values):{sign}.3f}{error}" if values else "-"


if __name__ == "__main__":
    main()
