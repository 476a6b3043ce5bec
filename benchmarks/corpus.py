"""Near-duplicate search over 10,000, 100,000 and 1,000,000 texts: seconds and bytes per text stay the same.

    python benchmarks/corpus.py [--most 1000000]

Texts are drawn from a vocabulary, 150 characters each. One in ten copies an earlier one with a word changed.
"""

import argparse
import random
import resource
import time
from collections.abc import Iterator

from promptmii.corpus.overlap import clusters, sign

WORDS = [
    f"{a}{b}{c}"
    for a in "bdfgklmnprst"
    for b in ("a", "e", "i", "o", "u", "ai", "ou")
    for c in ("n", "r", "st", "ck", "lle", "ter", "mp")
]


def texts(count: int) -> Iterator[tuple[str, int | None]]:
    """Texts, each with the number of the text that it copies, if any."""
    stream = random.Random(0)
    recent: list[tuple[int, list[str]]] = []
    for number in range(count):
        if number % 10 == 9:
            original, words = stream.choice(recent)
            yield " ".join([*words[:-1], stream.choice(WORDS)]), original
            continue
        words = stream.choices(WORDS, k=30)
        recent = [*recent[-99:], (number, words)]
        yield " ".join(words), None


def main() -> None:
    """Measure each size and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=1_000_000)
    most = parser.parse_args().most
    sign(["loads the libraries"])
    print("| texts | signing s | comparing s | microseconds per text | peak MiB | copies found | others joined |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for count in (10_000, 100_000, 1_000_000):
        if count > most:
            break
        copies: list[tuple[int, int]] = []

        def given(count: int = count, copies: list[tuple[int, int]] = copies) -> Iterator[str]:
            for number, (text, original) in enumerate(texts(count)):
                if original is not None:
                    copies.append((number, original))
                yield text

        start = time.perf_counter()
        for _ in texts(count):
            pass
        making = time.perf_counter() - start
        start = time.perf_counter()
        signatures = sign(given())
        signing = time.perf_counter() - start - making
        start = time.perf_counter()
        numbers = clusters(signatures, 0.7)
        comparing = time.perf_counter() - start
        found = sum(numbers[a] == numbers[b] for a, b in copies)
        joined = count - len(set(numbers.tolist())) - found
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        each = (signing + comparing) / count * 1e6
        print(
            f"| {count:,} | {signing:.1f} | {comparing:.2f} | {each:.0f} | {peak:.0f} "
            f"| {found:,} of {len(copies):,} | {joined} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
