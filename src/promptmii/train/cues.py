"""Cue words: those of the examples that tell a label from its neighbours. They are what a small model can read out of examples, and what
a small reader can hold on to where the labels' names say nothing.

Which words tell labels apart is decided with hindsight, on all training rows of the task; only words that stand in the few examples shown
are taken, so that a writer can learn to find them there. Score: the log-odds ratio over its standard error (Monroe et al. 2008,
"Fightin' Words", doi 10.1093/pan/mpn018), counted in texts.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from promptmii.task import Example

LEAST = 2.0
"""Standard errors by which a word must lean to its label."""
LEAST_COMMON = 3.0
"""The same for the commonest words of English, which seldom say what a text is about; `why` or `you` may."""
LEAST_TEXTS = 3
"""Texts of the label in which it must stand: a rarer word says little about the next text, and no writer could guess that it matters."""
AT_LEAST = 3
"""Words that a line names though they tell less than that, the best of those that are not common: a line that says nothing misleads."""
PRIOR = 0.5
_WORD = re.compile(r"[^\W\d_](?:[\w'’-]*[^\W_])?")


class Cues:
    """The words of a task, counted by label once."""

    def __init__(self, rows: Mapping[str, Sequence[Example]]) -> None:
        self._texts = {label: len(examples) for label, examples in rows.items()}
        self._counts = {
            label: Counter(word for e in examples for word in set(words(e.text))) for label, examples in rows.items()
        }

    def of(self, shown: Mapping[str, Sequence[str]], most: int) -> dict[str, tuple[str, ...]]:
        """Up to `most` cue words for each label of `shown`, which maps it to the texts that are seen; in the order in which they stand."""
        return {label: self._best(label, list(shown), texts, most) for label, texts in shown.items()}

    def _best(self, label: str, among: Sequence[str], texts: Iterable[str], most: int) -> tuple[str, ...]:
        candidates = list(dict.fromkeys(word for text in texts for word in words(text)))
        scores = {word: self._lean(word, label, among) for word in candidates}
        ranked = sorted(candidates, key=lambda word: -scores[word])
        telling = [word for word in ranked if self._counts[label][word] >= LEAST_TEXTS and scores[word] >= _least(word)]
        weaker = [
            word for word in ranked if word not in telling and word not in ENGLISH_STOP_WORDS and scores[word] > 0
        ]
        best = [*telling, *weaker[: max(AT_LEAST - len(telling), 0)]][:most]
        return tuple(word for word in candidates if word in best)

    def _lean(self, word: str, label: str, among: Sequence[str]) -> float:
        inside, size = self._counts[label][word], self._texts[label]
        outside = sum(self._counts[other][word] for other in among if other != label)
        rest = sum(self._texts[other] for other in among if other != label)
        odds = [
            math.log((count + PRIOR) / (total - count + PRIOR)) for count, total in ((inside, size), (outside, rest))
        ]
        return (odds[0] - odds[1]) / math.sqrt(1 / (inside + PRIOR) + 1 / (outside + PRIOR))


def _least(word: str) -> float:
    return LEAST_COMMON if word in ENGLISH_STOP_WORDS else LEAST


def words(text: str) -> list[str]:
    """The words of three letters or more, in lower case."""
    return [word for word in _WORD.findall(text.lower()) if 3 <= len(word) <= 20]
