"""The instruction generator: its prompt, the length of its drafts, and the checks on what it writes."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median_low

from promptmii.data.sample import missing_labels
from promptmii.errors import ConfigError, EndpointError
from promptmii.inducers.drafts import copy_notes, drop_repeated_items, line_notes, unwrapped
from promptmii.instruction import Cost, Instruction, Provenance
from promptmii.models.base import (
    TEMPLATE_MARGIN,
    Completion,
    Contrast,
    Failure,
    FailureKind,
    LanguageModel,
    Message,
    Sampling,
)
from promptmii.parse import without_thought
from promptmii.prompts import Template, example_lines, improvement_prompt, induction_prompt
from promptmii.schema import storable
from promptmii.styles import Style
from promptmii.task import Example, Support
from promptmii.words import UNSPACED

CONTRAST_EXAMPLES = 4
"""Maximum examples per label in a contrast."""
MIN_PER_LABEL = 2
"""Mean examples per label that a contrast requires; with fewer, it would amplify details of single texts."""
TOKENS_PER_LABEL = 32
"""With many labels, a draft may exceed the style's limit, up to this many tokens per label."""
OUTLIER_FACTOR = 4
"""An example this many times longer than the median is an outlier."""


@dataclass(frozen=True)
class Writer:
    """An instruction generator and how it is prompted."""

    model: LanguageModel
    style: Style = field(default_factory=Style)
    budget: int | None = None
    """Maximum length of the instruction, in the generator's tokens."""
    start: str | None = None
    """An instruction to improve; `None` to write a new one."""

    @cached_property
    def template(self) -> Template:
        """The style's prompt for the generator."""
        return self.style.template

    def max_tokens(self, labels: Sequence[str]) -> int:
        """The token limit for a draft: above the budget, so that a draft slightly over it is noticed and retried."""
        limit = min(max(self.style.longest, TOKENS_PER_LABEL * len(labels)), self.model.card.context_length // 4)
        return limit if self.budget is None else min(limit, self.budget + self.budget // 2 + 16)

    def sampling(
        self, labels: Sequence[str], seed: int, temperature: float = 0.0, contrast: Contrast | None = None
    ) -> Sampling:
        """Decoding settings for an instruction with these labels."""
        return Sampling(self.max_tokens(labels), temperature, seed=seed, bar_loops=True, contrast=contrast)

    def contrast(self, support: Support, examples: Sequence[Example]) -> Contrast | None:
        """The same request with mislabelled examples. Decoding against it brings out what distinguishes the labels.

        `None` if the model or the style does not use contrast, the labels have too few examples, or the context is too
        short for both requests.
        """
        card = self.model.card
        mislabelled = exchange_labels(support.labels, examples)
        if not (card.contrasts and self.style.contrast and mislabelled):
            return None
        prompts = [self._prompt(support, examples), self._prompt(support, mislabelled)]
        tokens = sum(self.model.count_tokens(prompts)) + 2 * (self.max_tokens(support.labels) + TEMPLATE_MARGIN)
        if tokens > card.context_length:
            return None
        message: Message = {"role": "user", "content": prompts[1]}
        return Contrast((message,), self.style.contrast)

    def request(self, support: Support, examples: Sequence[Example]) -> Message:
        """The message that asks for an instruction based on `examples`."""
        return {"role": "user", "content": self._prompt(support, examples)}

    def _prompt(self, support: Support, examples: Sequence[Example]) -> str:
        prompt = induction_prompt(self.template, support.labels, examples, self.budget)
        return prompt if self.start is None else improvement_prompt(prompt, self.start)

    def shorter_request(self) -> Message:
        """The message that asks again after a draft over the budget."""
        words = max((self.budget or 0) // 2, 1)
        return {"role": "user", "content": f"That is too long. Write it again in at most {words} words."}

    def fit(self, support: Support) -> tuple[tuple[Example, ...], tuple[str, ...]]:
        """The examples that fit the context together with the draft, and a note if some are left out.

        Raises `ConfigError` if there are no examples, or none fits.
        """
        if not support.examples:
            raise ConfigError("There are no examples to write an instruction from. Give at least one labelled text.")
        card = self.model.card
        empty_prompt = self._prompt(support, ())
        blocks = [example_lines([example]) + "\n\n" for example in support.examples]
        prompt_tokens, *lengths = self.model.count_tokens([empty_prompt, *blocks])
        # With a budget, the request for a shorter draft contains the first one.
        drafts = self.max_tokens(support.labels) * (1 if self.budget is None else 2)
        longest_prompt = min(card.context_length - drafts, self.style.longest_prompt or card.context_length)
        limit = longest_prompt - TEMPLATE_MARGIN - prompt_tokens
        examples, notes = fit_examples(support.examples, lengths, limit, "the generator's context")
        if not examples:
            raise self.none_fits(len(lengths))
        return examples, notes

    def none_fits(self, count: int) -> ConfigError:
        """The error if none of `count` examples fits the generator's context."""
        card = self.model.card
        return ConfigError(
            f"Not one of {count} examples fits the prompt of {card.reference} (context {card.context_length} tokens). "
            "Give shorter texts, or another generator."
        )

    def text(self, answer: Completion | Failure) -> str:
        """The instruction in an answer, without repeated list items if the style drops them. May be empty.

        Raises `EndpointError` if the call failed.
        """
        if isinstance(answer, Failure):
            message = f"The generator {self.model.card.reference} gave no instruction: {answer.kind}: {answer.message}"
            if answer.kind is FailureKind.CONTEXT:
                cure = "Use fewer examples, or give --context-length, so that only the examples that fit are sent."
                message = f"{message.rstrip('.')}. {cure}"
            raise EndpointError(message, answer.kind)
        text = unwrapped(storable(without_thought(answer.text) or ""))
        return drop_repeated_items(text) if self.style.listed_once else text

    def require_text(self, text: str) -> str:
        """The text unless it is empty. Raises `EndpointError`, since an empty instruction would still get a score."""
        if not text:
            raise EndpointError(
                f"The generator {self.model.card.reference} wrote no instruction: its answer is empty, or all of it is "
                "thinking. Switch thinking off on the server, or try another generator or seed."
            )
        return text

    def truncation_note(self, answer: Completion | Failure, sampling: Sampling) -> tuple[str, ...]:
        """A note if the draft was cut off at its token limit."""
        truncated = isinstance(answer, Completion) and answer.truncated
        return (f"cut at {sampling.max_tokens} tokens; the generator had not finished",) if truncated else ()

    def within_budget(self, text: str) -> bool:
        """True if the text is within the budget, or there is no budget."""
        return self.budget is None or self.model.count_tokens([text.rstrip()])[0] <= self.budget

    def trim(self, text: str) -> tuple[str, tuple[str, ...]]:
        """The text cut to the budget, and a note if it was cut.

        Cuts at the end of a line, or between words if whole lines do not fit or would use less than half of it, or
        within the first word if not even that fits.
        """
        if self.budget is None or self.within_budget(text):
            return text, ()
        prefix = self._longest_prefix(text.splitlines(keepends=True))
        if not self.budget // 2 <= self.model.count_tokens([prefix])[0] <= self.budget:
            prefix = self._longest_prefix(re.split(rf"(?<=[\s{UNSPACED}])", text))
        if not self.within_budget(prefix):
            prefix = self._longest_prefix(text)
        return prefix.rstrip(), (f"trimmed to the budget of {self.budget} tokens",)

    def _longest_prefix(self, pieces: Sequence[str]) -> str:
        """As many of the first pieces as the budget allows, but at least one."""
        counts = range(2, len(pieces) + 1)
        additional = bisect_left(counts, True, key=lambda count: not self.within_budget("".join(pieces[:count])))
        return "".join(pieces[: 1 + additional])

    def instruction(
        self, text: str, support: Support, method: str, *, n: int, seed: int, cost: Cost, notes: Sequence[str]
    ) -> Instruction:
        """The instruction with this text, which was written from `n` examples."""
        return Instruction(
            text=text,
            labels=support.labels,
            method=method,
            frame=self.style.frame,
            longest_answer=self.style.answer,
            generator=self.model.card.reference,
            cost=cost,
            provenance=Provenance(
                n=n,
                seed=seed,
                support_key=support.key,
                meta_template=self.template.key,
                style=None if self.style == Style() else self.style.key,
                notes=(*notes, *copy_notes(text, support.examples), *line_notes(text, support.labels)),
            ),
        ).fitted_on(support)


def exchange_labels(labels: Sequence[str], examples: Sequence[Example]) -> list[Example]:
    """Up to `CONTRAST_EXAMPLES` of each label, mislabelled with the next label that has examples.

    Empty if fewer than two labels have examples, or if they have fewer than `MIN_PER_LABEL` on average.
    """
    by_label = {label: [example for example in examples if example.label == label] for label in labels}
    used = [label for label in labels if by_label[label]]
    if len(used) < 2 or len(examples) < MIN_PER_LABEL * len(used):
        return []
    next_label = dict(zip(used, [*used[1:], used[0]], strict=True))
    shown = (example for label in used for example in by_label[label][:CONTRAST_EXAMPLES])
    return [replace(example, label=next_label[example.label]) for example in shown]


def fitting_positions(lengths: Sequence[int], limit: int) -> list[int]:
    """Positions, in order, of the examples that together stay within `limit` tokens.

    Drops outliers first, starting with the longest, so that one of them does not displace many others; then drops
    examples from the end.
    """
    positions = list(range(len(lengths)))
    total = sum(lengths)
    outlier = min(OUTLIER_FACTOR * median_low(lengths), limit) if lengths else 0
    for position in sorted(positions, key=lambda position: lengths[position], reverse=True):
        if total <= limit or lengths[position] <= outlier:
            break
        positions.remove(position)
        total -= lengths[position]
    while positions and total > limit:
        total -= lengths[positions.pop()]
    return positions


def fit_examples(
    examples: Sequence[Example], lengths: Sequence[int], limit: int, place: str
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """The examples that fit, and notes if some are left out, which name `place`, such as "the context", and labels
    without an example.
    """
    positions = fitting_positions(lengths, limit)
    fitting = tuple(examples[position] for position in positions)
    if len(fitting) == len(lengths):
        return fitting, ()
    note = f"{len(fitting)} of {len(lengths)} examples fit {place}"
    outliers = max(positions, default=-1) + 1 - len(positions)  # dropped from among the others, not from the end
    if outliers:
        note += f"; {outliers} much longer than the others left out"
    labels = list(dict.fromkeys(example.label for example in examples))
    return fitting, (note, *missing_labels("example that fits", labels, fitting))
