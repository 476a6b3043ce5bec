"""Measure methods side by side on a few tasks: python examples/compare_methods.py [MODEL [FOLDER [TASKS]]]"""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from promptmii.evaluation import evaluate
from promptmii.evaluation.plan import EvaluateSettings


def main(
    model: str = "qwen",
    folder: str = "runs/compare",
    tasks: str = "suite",
    *,
    methods: tuple[str, ...] = ("naive", "icl", "mii"),
) -> None:
    """Run it again to continue after a stop. `promptmii report FOLDER` reports on the result."""
    settings = EvaluateSettings.of(
        tasks=(tasks,),
        methods=methods,
        n=(5,),
        seeds=1,
        evaluate=12,
        budget=60,
        generators=(model,),
        followers=(model,),
    )
    run = evaluate(settings, Path(folder))
    scores = defaultdict[str, list[float]](list)
    for record in run.records.values():
        if record.instruction and record.instruction.measured:
            scores[record.cell.method].append(record.instruction.measured.macro_f1)
    print(*(f"{method}: mean macro-F1 {mean(values):.2f}" for method, values in scores.items()), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
