"""Compare a method of your own with built-in ones: python examples/own_method.py [MODEL]"""

import sys
from collections import Counter

from compare_methods import main as compare
from promptmii import Instruction, Support
from promptmii.inducers import METHODS, Kit, Method


class FrequentWords:
    """Lists the most frequent words of each label. Calls no model."""

    name = "frequent-words"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:  # noqa: ARG002
        lines = []
        for label in support.labels:
            words = Counter(word for e in support.examples if e.label == label for word in e.text.lower().split())
            lines.append(f"{label}: {', '.join(word for word, _ in words.most_common(5))}")
        instruction = Instruction(text="\n".join(lines), labels=support.labels, method=self.name)
        return instruction.fitted_on(support)  # records the examples, which must not measure it


class FrequentWordsMethod(Method):
    name = "frequent-words"
    summary = "the most frequent words of each label"

    def inducer(self, kit: Kit) -> FrequentWords:  # noqa: ARG002
        return FrequentWords()


METHODS[FrequentWordsMethod.name] = FrequentWordsMethod  # from now on `methods` may name it

if __name__ == "__main__":
    compare(*sys.argv[1:], methods=("naive", "frequent-words", "icl"))
