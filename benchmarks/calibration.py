"""Which calibration suits a model: mean macro-F1 over tasks for each kind, from one set of likelihoods.

    python benchmarks/calibration.py [TASK ...] [--model smol] [--n 20] [--rows 100] [--seeds 2]
        [--methods naive icl human]

All kinds share one set of answers, so each further kind costs next to nothing. `batch` reads the query itself: it is
shown for comparison only.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import get_args

from promptmii.evaluation import evaluate
from promptmii.evaluation.plan import EvaluateSettings
from promptmii.instruction import CalibrationKind


def main() -> None:
    """Print one row per method, one column per kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=["suite"])
    parser.add_argument("--model", default="smol")
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["naive", "icl"])
    given = parser.parse_args()
    kinds: tuple[str, ...] = get_args(CalibrationKind)
    scores: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    known: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            settings = EvaluateSettings.of(
                tasks=tuple(given.tasks),
                methods=tuple(given.methods),
                n=(given.n,),
                seeds=given.seeds,
                evaluate=given.rows,
                followers=(given.model,),
                calibration=kind,
            )
            for key, record in evaluate(settings, Path(folder)).records.items():
                if key not in known and record.instruction and record.instruction.measured:
                    scores[record.cell.method, kind][record.cell.task].append(record.instruction.measured.macro_f1)
                known.add(key)
    print(
        f"{given.model}: mean macro-F1 (standard error over tasks), n={given.n}, "
        f"up to {given.rows} rows, {given.seeds} seeds"
    )
    print(f"{'':12}" + "".join(f"{kind:>18}" for kind in kinds))
    for method in given.methods:
        cells = [[mean(of_task) for of_task in scores[method, kind].values()] for kind in kinds]
        print(f"{method:12}" + "".join(f"{summary(values):>18}" for values in cells))


def summary(values: list[float]) -> str:
    """Mean and standard error."""
    return f"{mean(values):.3f} ({stdev(values) / len(values) ** 0.5:.3f})" if len(values) > 1 else f"{values[0]:.3f}"


if __name__ == "__main__":
    main()
