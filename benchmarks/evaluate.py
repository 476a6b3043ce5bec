"""How fast a grid of evaluations runs: promptmii against the straightforward loop, in one run on one model.

    python benchmarks/evaluate.py TASK... [--rows 100] [--n 5 20] [--budget 64] [--share 0.1]

a  `promptmii.evaluation.evaluate` on {naive, ICL, zero} x n: each prompt asked once, shared prefixes, batched writing
b  every cell by itself: generate the instruction, then the label for each full prompt, in left-padded batches by length

The loop, including the writing of instructions, is timed on a share of the rows of each cell and scaled up.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from promptmii.data import draw_query, draw_support
from promptmii.evaluation import evaluate
from promptmii.evaluation.plan import EvaluateSettings, grid_tasks
from promptmii.inducers import InContext, Naive, Writer
from promptmii.instruction import Instruction
from promptmii.models import load_model
from promptmii.models.hf.model import TransformersModel
from promptmii.task import Support

BATCH = 16
ANSWER = 10


def generate(model: TransformersModel, prompts: list[list[int]], limit: int) -> float:
    """Seconds of batched greedy generation, the usual way."""
    tokenizer, network = model.tokenizer, model.model
    started = perf_counter()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for first in range(0, len(order), BATCH):
        inputs = tokenizer.pad(
            {"input_ids": [prompts[i] for i in order[first : first + BATCH]]}, padding_side="left", return_tensors="pt"
        )
        with torch.inference_mode():
            network.generate(**inputs, max_new_tokens=limit, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    return perf_counter() - started


def loop(settings: EvaluateSettings, share: float) -> float:
    """Seconds that the straightforward loop would take, scaled up from a share."""
    model: Any = load_model("smol")
    network: Any = model.model
    network.set_attn_implementation("sdpa")
    writer, seconds = Writer(model, budget=settings.budget), 0.0
    text = (
        "The inputs are short texts. Decide what each is about.\n" * 4
    )  # as long as what is written, whose own words do not matter here
    for number, task in enumerate(grid_tasks(settings).values()):
        query = draw_query(task, settings.evaluate)
        part = query[:: max(1, round(1 / share))]
        for n in settings.n:
            support = draw_support(task, n)
            zero = Instruction(text=text, labels=task.labels, method="zero")
            for instruction in (Naive().induce(Support(task.labels, ())), InContext(model).induce(support), zero):
                seconds += (
                    generate(model, model.prompts([instruction.messages(e.text) for e in part]), ANSWER)
                    * len(query)
                    / len(part)
                )
            if number % max(1, round(1 / share)) == 0:
                scale = max(1, round(1 / share))
                seconds += (
                    generate(
                        model,
                        model.prompts([[writer.request(support, support.examples)]]),
                        writer.max_tokens(support.labels),
                    )
                    * scale
                )
    return seconds


def main() -> None:
    """Run both and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=["suite"])
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--n", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--budget", type=int, default=64)
    parser.add_argument("--share", type=float, default=0.1)
    given = parser.parse_args()
    settings = EvaluateSettings.of(
        tasks=tuple(given.tasks),
        methods=("naive", "icl", "zero"),
        n=tuple(given.n),
        seeds=1,
        evaluate=given.rows,
        budget=given.budget,
        calibration="none",  # the loop has none either
    )
    with tempfile.TemporaryDirectory() as folder:
        started = perf_counter()
        run = evaluate(settings, Path(folder))
        ours = perf_counter() - started
    print(f"{len(run.records)} cells, {len(run.failed)} failed, {torch.get_num_threads()} threads")
    print(f"a  evaluate          {ours:8.1f} s (models loaded anew)", flush=True)
    usual = loop(settings, given.share)
    print(f"b  straightforward   {usual:8.1f} s (from {given.share:.0%} of it)   b/a = {usual / ours:.1f}")


if __name__ == "__main__":
    main()
