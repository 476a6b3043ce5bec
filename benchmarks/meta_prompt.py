"""Compare meta-prompts: score the instructions that an untrained model writes from each.

    python benchmarks/meta_prompt.py TASKS... --template mine.txt [--template other.txt] [--follower hf:qwen]

Each cell is one greedy instruction from n examples, scored by a follower on held-back rows with the default
calibration. `-` is the bundled meta-prompt; the label list is measured too. Choose a meta-prompt on training tasks,
and report on others.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter

from promptmii.data.nameless import nameless
from promptmii.data.sample import sample
from promptmii.data.sources import read_tasks
from promptmii.follower import Follower
from promptmii.inducers import Inducer, MetaInducer, Naive, Writer
from promptmii.models import load_model
from promptmii.scoring import score
from promptmii.styles import style_for


def main() -> None:
    """Measure every template on every task, and print cells and means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--template", action="append", default=[])
    parser.add_argument("--writer", default="qwen")
    parser.add_argument("--follower", default="qwen")
    parser.add_argument("-n", type=int, default=20)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nameless", action="store_true")
    parser.add_argument("--show", action="store_true", help="print the instructions")
    given = parser.parse_args()
    writer, reader = load_model(given.writer), load_model(given.follower)
    follower = Follower(reader, calibration="support")
    methods: dict[str, Inducer] = {"label list": Naive()}
    for name in given.template or ["-"]:
        style = style_for("", None if name == "-" else name).model_copy(update={"longest": 400})
        methods[Path(name).stem] = MetaInducer(Writer(writer, style))
    found: dict[str, list[float]] = defaultdict(list)
    for source in given.tasks:
        for task in read_tasks([source]).values():
            episode = sample(nameless(task) if given.nameless else task, given.n, given.seed, query=given.rows)
            for name, method in methods.items():
                started = perf_counter()
                plain = method.induce(episode.support, seed=given.seed)
                wrote = perf_counter() - started
                scored = score(follower, follower.prepare(plain, episode.support), episode.query)
                found[name].append(scored.macro_f1 or 0.0)
                tokens = reader.count_tokens([plain.text])[0]
                took = f"{wrote:.0f} + {perf_counter() - started - wrote:.0f} s"
                print(f"{task.name:<28} {name:<12} {found[name][-1]:.3f}  {tokens:4} tokens  {took}", flush=True)
                if given.show and plain.text:
                    print("    " + plain.text.replace("\n", "\n    "), flush=True)
    for name, values in found.items():
        error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        print(f"{'mean':<28} {name:<12} {mean(values):.3f} ({error:.3f})")


if __name__ == "__main__":
    main()
