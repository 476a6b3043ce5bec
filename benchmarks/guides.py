"""What a perfect writer could win: guides of several forms, made with hindsight, through a follower. No generator is asked.

    python benchmarks/guides.py --tasks my-tasks/ --only snips_intents,emotion_statements

Forms: the label list, the examples, the bank's descriptions, cue words of the examples (`promptmii/train/cues.py`), and both; each with the
names of the labels and without. Macro-F1, `batch` calibration, mean over the tasks with its standard error.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev

from promptmii import Example, Follower, Task, load_model, score
from promptmii.data import draw_query, draw_support
from promptmii.data.nameless import hide, renamed
from promptmii.inducers import InContext, Naive
from promptmii.instruction import Instruction
from promptmii.models.base import LanguageModel
from promptmii.train.bank import Guide, read_bank
from promptmii.train.cues import Cues
from promptmii.train.source import named_tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--only", required=True, help="comma-separated names of tasks that the bank describes")
    parser.add_argument("--bank", default="corpora/descriptions")
    parser.add_argument("--follower", default="smol-follower")
    parser.add_argument("-n", type=int, default=20)
    parser.add_argument("--rows", type=int, default=40)
    options = parser.parse_args()
    follower = Follower(load_model(options.follower), "choose", "batch")
    bank = read_bank(Path(options.bank))
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for name, task in named_tasks(options.tasks, options.only.split(",")).items():
        for names, shown in _names(task):
            seen = renamed(task, shown)
            support, query = draw_support(seen, options.n), draw_query(seen, options.rows)
            for form, instruction in _forms(follower.model, seen, support.examples, bank[name], shown):
                scored = score(follower, instruction, query)
                found.setdefault((names, form), []).append(
                    (scored.macro_f1 or 0.0, scored.usage.prompt_tokens / scored.n)
                )
    print(f"{follower.model.card.reference}, n={options.n}, {options.rows} rows, {len(options.only.split(','))} tasks")
    print("| names | form | macro-F1 | prompt tokens |\n| --- | --- | ---: | ---: |")
    for (names, form), values in found.items():
        scores = [value for value, _ in values]
        error = stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
        print(f"| {names} | {form} | {fmean(scores):.3f} ({error:.3f}) | {fmean(tokens for _, tokens in values):.0f} |")


def _names(task: Task) -> Iterator[tuple[str, dict[str, str]]]:
    yield "kept", {label: label for label in task.labels}
    hidden = hide(task.labels, random.Random(task.name))
    yield "hidden", dict(sorted(hidden.items(), key=lambda pair: pair[1]))


def _forms(
    model: LanguageModel, task: Task, examples: Sequence[Example], guide: Guide, shown: dict[str, str]
) -> Iterator[tuple[str, Instruction]]:
    support = draw_support(task, len(examples))
    yield "label list", Naive().induce(support)
    yield "examples (ICL)", InContext(model).induce(support)
    rows = {label: [e for e in task.train if e.label == label] for label in task.labels}
    texts = {label: [e.text for e in examples if e.label == label] for label in task.labels}
    few, many = (
        {old: found[new] for old, new in shown.items()} for found in (Cues(rows).of(texts, most) for most in (5, 10))
    )
    for form, text in (
        ("descriptions", guide.plain(shown)),
        ("5 cue words", guide.plain(shown, few, described=False)),
        ("10 cue words", guide.plain(shown, many, described=False)),
        ("descriptions and 5 cue words", guide.plain(shown, few)),
    ):
        yield form, Instruction(text=text, labels=task.labels, method="guide")


if __name__ == "__main__":
    main()
