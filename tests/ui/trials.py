"""Synthetic trials."""

from collections.abc import Sequence
from pathlib import Path

from promptmii import Example, Instruction
from promptmii.config import InduceSettings
from promptmii.instruction import Measurement
from promptmii.ui.store import SAMPLE, Answers, Store


def many_rows(home: Path, n: int = 10_000, labels: Sequence[str] = ("delivery", "refund")) -> str:
    """The address of a trial with many rows."""
    store = Store(home)
    rows = tuple(
        Example(f"Parcel number {i} is late, and I want my money back.", labels[i % len(labels)]) for i in range(n)
    )
    measured = Measurement(
        macro_f1=0.5, low=0.4, high=0.6, accuracy=0.5, n=n, n_unparsed=0, n_truncated=0, prompt_tokens_per_query=9,
        data_key="",
    )  # fmt: skip
    instruction = Instruction(text="Say.", labels=tuple(labels), method="mii", measured=measured)
    answers = Answers(
        name="The instruction",
        instruction=instruction,
        labels=tuple(labels[i * i % len(labels)] for i in range(n)),
        probabilities=(0.9,) * n,
        seconds=1.0,
    )
    trial = store.new(SAMPLE, InduceSettings()).model_copy(update={"query": rows, "answers": (answers,)})
    store.save(trial)
    return f"/trials/{trial.key}"
