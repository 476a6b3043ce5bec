"""How fast `predict` is apart from the model, and how much memory a long table takes.

    python benchmarks/label.py                       # a million rows, CSV to CSV
    python benchmarks/label.py --rows 100000 --input jsonl --output parquet

The model is scripted: it answers at once, and the time spent in it is subtracted. Times are processor times, so that a
busy machine does not distort them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from promptmii import Follower, Instruction, workbench
from promptmii.models.base import Chat, Choice, Completion, Failure, ModelCard, Sampling, Usage

LABELS = ("delivery", "refund", "login", "invoice")
LEAST_SPEED, MOST_MEMORY = 20_000, 300 << 20


class Instant:
    """A model with fixed answers that keeps nothing and measures the time spent in it."""

    card = ModelCard("instant", "instant", 8192, gives_scores=True)

    def __init__(self) -> None:
        self.seconds = 0.0
        self.peak = 0
        self._process = psutil.Process()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) // 4 for text in texts]

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        started = time.process_time()
        self.peak = max(self.peak, self._process.memory_info().rss)
        scores = tuple(-float(i) for i in range(len(options)))
        answers: list[Choice | Failure] = [Choice(0, scores, Usage(1, 80, 0)) for _ in chats]
        self.seconds += time.process_time() - started
        return answers

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        raise NotImplementedError(sampling)

    def close(self) -> None:
        pass


def write(path: Path, rows: int) -> None:
    texts = (f"my parcel number {i} is late, and I would like to know where it is" for i in range(rows))
    if path.suffix == ".csv":
        with path.open("w") as file:
            file.write("id,text\n")
            file.writelines(f'{i},"{text}"\n' for i, text in enumerate(texts))
    elif path.suffix == ".jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"id": range(rows), "text": list(texts)}), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    for name in ("--input", "--output"):
        parser.add_argument(name, choices=["csv", "jsonl", "parquet"], default="csv")
    given = parser.parse_args()
    instruction = Instruction(text="Tickets of a shop. " * 20, labels=LABELS, method="mii")
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, f"new.{given.input}"), Path(folder, f"labelled.{given.output}")
        write(source, given.rows)
        model = Instant()
        workbench.predict(instruction, ["a text"], Follower(model))  # imports
        before, started = psutil.Process().memory_info().rss, time.process_time()
        result = workbench.predict(instruction, source, Follower(model), output=output)
        seconds = time.process_time() - started
    assert result.n_labelled == given.rows
    speed, memory = given.rows / (seconds - model.seconds), model.peak - before
    print(f"{given.rows:,} rows, {given.input} to {given.output}: {seconds:.1f} s, {model.seconds:.1f} s in the model")
    print(f"{speed:,.0f} rows/s outside the model (wanted: {LEAST_SPEED:,})")
    print(f"{memory / 2**20:.0f} MiB above the start (wanted: less than {MOST_MEMORY / 2**20:.0f})")


if __name__ == "__main__":
    main()
