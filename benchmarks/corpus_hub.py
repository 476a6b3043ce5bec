"""What a corpus build spends on one hub repository: requests, worker seconds, bytes. docs/scale.md uses it.

    python benchmarks/corpus_hub.py [--repositories 24] [--rows 5000] [--workers 2]

The hub is the tests' server on loopback, so the time of a real network comes on top.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.corpus.hub_server import HubServer, Repository, serving
from tests.corpus.repositories import as_csv, as_lines, as_parquet, card, rows

CONFIG = "workers = {workers}\n[list]\nhub = true\n"
FORMS = {"parquet": as_parquet, "csv": as_csv, "jsonl": as_lines}


def repository(number: int, count: int) -> Repository:
    """A training and a test file, as Parquet, CSV or JSON lines in turn."""
    form = list(FORMS)[number % len(FORMS)]
    given = rows(f"topic{number}", ["good", "bad", "neither"], count)
    cut = count * 4 // 5
    files = {f"train.{form}": FORMS[form](given[:cut]), f"test.{form}": FORMS[form](given[cut:])}
    return Repository({"README.md": card(license="mit", language=["en"]), **files})


def main() -> None:
    """Build once, and print the costs per repository."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repositories", type=int, default=24)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    hub = HubServer({f"owner/set{i}": repository(i, given.rows) for i in range(given.repositories)})
    with tempfile.TemporaryDirectory() as scratch, serving(hub):
        (Path(scratch) / "corpus.toml").write_text(CONFIG.format(workers=given.workers), encoding="utf-8")
        command = [sys.executable, "-m", "promptmii", "corpus", "build", "corpus.toml", "-o", "corpus"]
        spent: dict[str, float] = {}
        for stage in ("list", "fetch", "columns", "clean", "split"):
            start = time.perf_counter()
            subprocess.run(
                [*command, "--stage", stage],
                cwd=scratch,
                env=hub.environment(Path(scratch)),
                check=True,
                capture_output=True,
            )
            spent[stage] = time.perf_counter() - start
        kept = sum(path.stat().st_size for path in (Path(scratch) / "corpus" / "raw").rglob("*") if path.is_file())
    files = sum("/resolve/" in request for request in hub.requests)
    sizes = sum(len(data) for one in hub.repositories.values() for data in one.files.values())
    n = given.repositories
    print(f"{n} repositories of {given.rows} rows, {sizes / n / 1024:.0f} KiB each, {given.workers} workers")
    print(f"requests per repository: {(len(hub.requests) - files) / n:.1f} to the API, {files / n:.1f} for files")
    print(f"kept per repository: {kept / n / 1024:.0f} KiB")
    print(
        "seconds per repository, start-ups included: "
        + ", ".join(f"{name} {value / n:.2f}" for name, value in spent.items())
    )


if __name__ == "__main__":
    main()
