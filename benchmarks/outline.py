"""What the outline of a small writer is worth, and what its training is: instructions written freely and within it, by each writer.

    python benchmarks/outline.py --tasks my-tasks/ --only snips_intents,emotion_statements

Macro-F1 of the follower (`support` calibration), n=20, seed 0: mean over the tasks, names kept and hidden, with its standard error.
"""

import argparse
from collections.abc import Iterator
from statistics import fmean, stdev

from promptmii import Follower, MetaInducer, Task, Writer, load_model, score
from promptmii.data import draw_query, draw_support
from promptmii.data.nameless import nameless
from promptmii.models import weights_of
from promptmii.models.base import LanguageModel, Outline
from promptmii.models.local import LocalModel, outline_of
from promptmii.models.turns import compute
from promptmii.train.source import named_tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--only", required=True, help="comma-separated names of tasks")
    parser.add_argument(
        "--writers", default="smol,smol-writer-sft", help="comma-separated; the last one's outline is given to all"
    )
    parser.add_argument("--follower", default="smol-follower")
    parser.add_argument("--rows", type=int, default=60)
    options = parser.parse_args()
    writers = options.writers.split(",")
    weights = weights_of(writers[-1])
    outline = outline_of(weights) if weights else None
    if outline is None:
        parser.error(f"{writers[-1]} has no outline")
    follower = Follower(load_model(options.follower), "choose", "support")
    tasks = [
        each for task in named_tasks(options.tasks, options.only.split(",")).values() for each in (task, nameless(task))
    ]
    print(f"{options.follower}, n=20, {options.rows} rows, {len(tasks) // 2} tasks")
    print("| writer | form | names kept | names hidden | tokens |\n| --- | --- | ---: | ---: | ---: |")
    for reference in writers:
        for form, model in _models(reference, outline):
            found = [(":nameless" in task.name, *_measured(model, follower, task, options.rows)) for task in tasks]
            cells = [_cell([reached for hidden, reached, _ in found if hidden == wanted]) for wanted in (False, True)]
            print(
                f"| {reference} | {form} | {cells[0]} | {cells[1]} | {fmean(length for *_, length in found):.0f} |",
                flush=True,
            )


def _models(reference: str, outline: Outline) -> Iterator[tuple[str, LanguageModel]]:
    loaded = load_model(reference)
    assert isinstance(loaded, LocalModel)
    yield "free", _with(loaded, None)
    yield "outline", _with(loaded, outline)


def _with(loaded: LocalModel, outline: Outline | None) -> LanguageModel:
    card = loaded.card
    return compute(lambda: LocalModel(card.reference, loaded.model, loaded.tokenizer, card.revision, outline))


def _measured(model: LanguageModel, follower: Follower, task: Task, rows: int) -> tuple[float, int]:
    support = draw_support(task, 20)
    instruction = MetaInducer(Writer(model, longest=400)).induce(support)
    scored = score(follower, follower.prepare(instruction, support), draw_query(task, rows))
    return scored.macro_f1 or 0.0, model.count_tokens([instruction.text])[0]


def _cell(scores: list[float]) -> str:
    error = stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
    return f"{fmean(scores):.3f} ({error:.3f})"


if __name__ == "__main__":
    main()
