"""Time and size of the report of a large run, by default 100 tasks x (8 methods x 5 n x 3 seeds + naive).

    python benchmarks/report.py [--tasks 100] [--rows 200] [--keep FOLDER]

The records are made up (tests/report/synthetic.py), so no model is needed.
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.report.synthetic import write_run

METHODS = ("naive", "icl", "zero", "mii", "best-of-k", "ape", "gepa", "sft", "my-own")
SIZES = (5, 10, 20, 50, 100)


def megabytes(path: Path) -> float:
    """The megabytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def main() -> None:
    """Make the run, build its report, and print seconds and megabytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--rows", type=int, default=200, help="query rows per task")
    parser.add_argument("--keep", type=Path, help="where to write run and report; without it they are deleted")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        started = perf_counter()
        run = write_run(folder / "run", given.tasks, METHODS, SIZES, 3, rows=given.rows, failures=20)
        records = sum(1 for _ in (run / "records.jsonl").open("rb"))
        print(f"run       {perf_counter() - started:6.1f} s   {megabytes(run):6.1f} MB   {records:,} records")

        # The time that a user waits holds the imports.
        started = perf_counter()
        from promptmii.report.page import write_report
        from promptmii.report.results import Results

        page = write_report(Results.read([run]), folder / "report")
        seconds = perf_counter() - started
        print(f"report    {seconds:6.1f} s   {megabytes(page):6.1f} MB   {page.name}")
        print(f"          with figures and tables {megabytes(page.parent):.1f} MB")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
