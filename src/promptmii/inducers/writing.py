"""A model that writes instructions: what it is shown, how long it may write, and what a text is checked for."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median_low

from promptmii.errors import ConfigError, EndpointError
from promptmii.inducers.repeats import listed_once, same_lines
from promptmii.instruction import Cost, Instruction, Provenance
from promptmii.models.base import Completion, Contrast, Failure, LanguageModel, Message, Sampling
from promptmii.parse import without_thought
from promptmii.prompts import Template, example_lines, improvement_prompt, induction_prompt
from promptmii.schema import storable
from promptmii.styles import Style
from promptmii.task import Example, Support, normalise_text

TEMPLATE_MARGIN = 64
CONTRASTED = 4
"""Most examples of a label that a contrast shows."""
SHARED = 2
"""Minimum mean examples per label for a contrast: what is peculiar to a single text is not what its label shares."""
LINE = 32
"""Tokens of a line about a label: where there are many labels, a draft may be longer than its style's."""
LONG = 4
"""Times the median length from which an example counts as much longer than the others."""
COPIED = 6
"""Words in a row that also stand in a support text are a copy: memorised, not described, and perhaps private."""


@dataclass(frozen=True)
class Writer:
    """An instruction generator and how it is prompted."""

    model: LanguageModel
    style: Style = field(default_factory=Style)
    budget: int | None = None
    """Most tokens of the instruction, counted by the generator's tokenizer."""
    start: str | None = None
    """An instruction that is to be improved; `None`: it starts from nothing."""

    @cached_property
    def template(self) -> Template:
        """The request, with slots."""
        return self.style.template

    def using(self, model: LanguageModel) -> "Writer":
        """The same with another model, for instance a metered one."""
        return replace(self, model=model)

    def room(self, labels: Sequence[str]) -> int:
        """`max_tokens` of a draft: above the budget, so that a draft that is slightly too long is seen and retried."""
        longest = min(max(self.style.longest, LINE * len(labels)), self.model.card.context_length // 4)
        return longest if self.budget is None else min(longest, self.budget + self.budget // 2 + 16)

    def sampling(
        self, labels: Sequence[str], seed: int, temperature: float = 0.0, contrast: Contrast | None = None
    ) -> Sampling:
        """How an instruction for these labels is decoded."""
        return Sampling(self.room(labels), temperature, seed=seed, bar_loops=True, contrast=contrast)

    def contrast(self, support: Support, examples: Sequence[Example]) -> Contrast | None:
        """The same request with the labels of the examples exchanged, so that each line tells its label from others.

        `None` where the model or the style knows no contrast, the labels have too few examples, or the context has no
        room.
        """
        card = self.model.card
        wrong = mislabelled(support.labels, examples)
        if not (card.contrasts and self.style.contrast and wrong):
            return None
        requests = [self._request(support, shown) for shown in (examples, wrong)]
        taken = sum(self.model.count_tokens(requests)) + 2 * (self.room(support.labels) + TEMPLATE_MARGIN)
        chat: Message = {"role": "user", "content": requests[1]}
        return Contrast((chat,), self.style.contrast) if taken <= card.context_length else None

    def ask(self, support: Support, examples: Sequence[Example]) -> Message:
        """The request for an instruction after `examples`."""
        return {"role": "user", "content": self._request(support, examples)}

    def _request(self, support: Support, examples: Sequence[Example]) -> str:
        request = induction_prompt(self.template, support.labels, examples, self.budget)
        return request if self.start is None else improvement_prompt(request, self.start)

    def ask_shorter(self) -> Message:
        """The request after a draft that was too long."""
        return {
            "role": "user",
            "content": f"That is too long. Write it again in at most {max((self.budget or 0) // 2, 1)} words.",
        }

    def fit(self, support: Support) -> tuple[tuple[Example, ...], tuple[str, ...]]:
        """The examples that fit the context beside the answer, and a note where some do not.

        Raises `ConfigError` when not one fits.
        """
        card = self.model.card
        empty = self._request(support, ())
        frame, *lengths = self.model.count_tokens(
            [empty, *(example_lines([example]) + "\n\n" for example in support.examples)]
        )
        # A draft over the budget stands in the request for a shorter one.
        drafts = self.room(support.labels) * (1 if self.budget is None else 2)
        longest = min(card.context_length - drafts, self.style.longest_prompt or card.context_length)
        kept, notes = fitted(support.examples, lengths, longest - TEMPLATE_MARGIN - frame, "the generator's context")
        if not kept:
            raise ConfigError(
                f"Not one of {len(lengths)} examples fits the prompt of {card.reference} (context "
                f"{card.context_length} tokens). Give shorter texts, or another generator."
            )
        return kept, notes

    def text(self, answer: Completion | Failure) -> str:
        """The text without the model's thoughts and, if the style says so, without what a sentence lists twice.

        It may be empty. Raises `EndpointError` if the call failed.
        """
        if isinstance(answer, Failure):
            message = f"The generator {self.model.card.reference} gave no instruction: {answer.kind}: {answer.message}"
            raise EndpointError(message, answer.kind)
        text = storable(without_thought(answer.text) or "")
        return listed_once(text) if self.style.listed_once else text

    def some(self, text: str) -> str:
        """The text, or `EndpointError`: an empty instruction would be measured as if it were the method's."""
        if not text:
            raise EndpointError(
                f"The generator {self.model.card.reference} wrote no instruction: its answer is empty, or all of it is "
                "thinking. Switch thinking off on the server, or try another generator or seed."
            )
        return text

    def endless(self, answer: Completion | Failure, labels: Sequence[str]) -> tuple[str, ...]:
        """A note where a draft was cut because it had come to no end."""
        cut = isinstance(answer, Completion) and answer.truncated
        return (f"cut at {self.room(labels)} tokens, where the generator had come to no end",) if cut else ()

    def fits(self, text: str) -> bool:
        """The text is within the budget."""
        return self.budget is None or self.model.count_tokens([text.rstrip()])[0] <= self.budget

    def trim(self, text: str) -> tuple[str, tuple[str, ...]]:
        """The text within the budget, and a note where it was cut: at a line end, or between words to waste less."""
        if self.budget is None or self.fits(text):
            return text, ()
        kept = self._longest(text.splitlines(keepends=True))
        if not self.budget // 2 <= self.model.count_tokens([kept])[0] <= self.budget:
            kept = self._longest(re.split(r"(?<=\s)", text))
        return kept.rstrip(), (f"trimmed to the budget of {self.budget} tokens",)

    def made(
        self, text: str, support: Support, method: str, *, n: int, seed: int, cost: Cost, notes: Sequence[str]
    ) -> Instruction:
        """The artefact of a text that was written after n examples."""
        return Instruction(
            text=text,
            labels=support.labels,
            method=method,
            frame=self.style.frame,
            answer=self.style.answer,
            generator=self.model.card.reference,
            cost=cost,
            provenance=Provenance(
                n=n,
                seed=seed,
                support_key=support.key,
                meta_template=self.template.key,
                style=None if self.style == Style() else self.style.key,
                notes=(*notes, *copy_warning(text, support.examples), *same_lines(text, support.labels)),
            ),
        )

    def _longest(self, pieces: Sequence[str]) -> str:
        """The longest beginning that fits the budget; at least one piece."""
        counts = range(2, len(pieces) + 1)
        more = bisect_left(counts, True, key=lambda count: not self.fits("".join(pieces[:count])))
        return "".join(pieces[: more + 1])


def mislabelled(labels: Sequence[str], examples: Sequence[Example], most: int = CONTRASTED) -> list[Example]:
    """Up to `most` examples of each label under the next label that has some; none where there are too few."""
    by_label = {label: [example for example in examples if example.label == label] for label in labels}
    shown = [label for label in labels if by_label[label]]
    if len(shown) < 2 or len(examples) < SHARED * len(shown):
        return []
    following = dict(zip(shown, [*shown[1:], *shown[:1]], strict=True))
    return [replace(e, label=following[label]) for label in shown for e in by_label[label][:most]]


def fitting(lengths: Sequence[int], room: int) -> list[int]:
    """Positions of the examples that fit, in order.

    Those that are much longer than the others, or than the room, go first, so that one of them costs no other; then the
    last ones.
    """
    kept = list(range(len(lengths)))
    total = sum(lengths)
    long = min(LONG * median_low(lengths), room) if lengths else 0
    for position in sorted(kept, key=lambda position: lengths[position], reverse=True):
        if total <= room or lengths[position] <= long:
            break
        kept.remove(position)
        total -= lengths[position]
    while kept and total > room:
        total -= lengths[kept.pop()]
    return kept


def fitted(
    examples: Sequence[Example], lengths: Sequence[int], room: int, where: str
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """The examples that fit, and a note if some are left out; `where` names the room."""
    kept = fitting(lengths, room)
    cut = max(kept, default=-1) + 1 - len(kept)
    longer = f"; {cut} much longer than the others left out" if cut else ""
    notes = (f"{len(kept)} of {len(lengths)} examples fit {where}{longer}",) if len(kept) < len(lengths) else ()
    return tuple(examples[position] for position in kept), notes


def copied_runs(instruction: str, texts: Iterable[str]) -> list[str]:
    """Word runs of the instruction that stand verbatim in one of the texts: the longest ones, in order.

    Runs are compared on normalised words, so case, punctuation and spacing do not hide one.
    """
    known = {gram for text in texts for gram in _grams(_words(text))}
    words = _words(instruction)
    hits = [gram in known for gram in _grams(words)]
    runs: list[str] = []
    start: int | None = None
    for position, hit in enumerate([*hits, False]):
        if hit and start is None:
            start = position
        if not hit and start is not None:
            runs.append(" ".join(words[start : position + COPIED - 1]))
            start = None
    return runs


def copy_warning(instruction: str, examples: Iterable[Example]) -> tuple[str, ...]:
    """A note for the artefact where the instruction repeats training text, else nothing."""
    copied = copied_runs(instruction, (example.text for example in examples))
    return (f"repeats training text: {'; '.join(repr(run) for run in copied[:3])}",) if copied else ()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", normalise_text(text))


def _grams(words: list[str]) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + COPIED]) for i in range(len(words) - COPIED + 1)]
