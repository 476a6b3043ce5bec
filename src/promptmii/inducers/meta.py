"""Prompt-MII: one model, one forward pass, one instruction.

The untrained and the RL-trained generator are the same class with other weights, so that a comparison isolates the training.
Best-of-k draws k instructions and keeps the one that does best on an inner split of the support, never on the query.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from promptmii.errors import ConfigError, EndpointError
from promptmii.follower import Follower
from promptmii.inducers.copying import copied_runs
from promptmii.instruction import Cost, Instruction, Provenance
from promptmii.models.base import Completion, Failure, LanguageModel, Message, Sampling
from promptmii.models.wrap import Metered
from promptmii.prompts import Template, example_lines, follower_frame, induction_prompt, meta_prompt
from promptmii.scoring import score
from promptmii.task import Example, Support

MAX_TOKENS = 1024
"""The paper's longest instruction."""
TEMPLATE_MARGIN = 64


@dataclass(frozen=True)
class Writer:
    """An instruction generator and how it is asked."""

    model: LanguageModel
    template: Template = field(default_factory=meta_prompt)
    budget: int | None = None
    """Most tokens of the instruction, counted by the generator's tokenizer."""

    @property
    def room(self) -> int:
        """`max_tokens` of a draft. Under a budget it is left some slack, so that a slightly longer draft is seen and retried."""
        longest = min(MAX_TOKENS, self.model.card.context_length // 4)
        return longest if self.budget is None else min(longest, self.budget + self.budget // 2 + 16)


@dataclass(frozen=True)
class MetaInducer:
    """Prompt-MII with `name="mii"`, Prompt-MII-Zero with an untrained model and `name="zero"`."""

    writer: Writer
    frame: Template = field(default_factory=follower_frame)
    name: str = "mii"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """One greedy generation; a second one only where a token budget was exceeded.

        Raises `EndpointError` when the generator gives no answer or an empty one, `ConfigError` when not one example fits.
        """
        meter = Metered(self.writer.model)
        fitted, notes = fit_support(self.writer, support)
        chat = [_ask(self.writer, support, fitted)]
        text = _written(self.writer, meter.generate([chat], Sampling(self.writer.room, seed=seed))[0])
        if not _fits(self.writer, text):
            again: list[Message] = [*chat, {"role": "assistant", "content": text}, _shorter(self.writer)]
            retry = meter.generate([again], Sampling(self.writer.room, seed=seed))[0]
            text = _written(self.writer, retry)
        text, trimmed = trim(self.writer, text)
        return finish(self, support, (text, (*notes, *trimmed)), seed=seed, n=len(fitted), cost=_cost(meter))


@dataclass(frozen=True)
class BestOf:
    """`k` sampled instructions, chosen by the follower's macro-F1 on a part of the support that the generator did not see.

    The generator reads two thirds of the support, the follower is scored on the rest: 1 + k generations and k times a third
    of n follower calls, all metered. Ties go to the shorter text.
    """

    writer: Writer
    follower: Follower
    k: int
    frame: Template = field(default_factory=follower_frame)
    temperature: float = 1.0
    name: str = "best-of-k"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The best of k drafts. Raises as `MetaInducer`, and `ScoreRefusedError` when the follower fails."""
        shown, held = inner_split(support)
        writer, judge = Metered(self.writer.model), Metered(self.follower.model)
        fitted, notes = fit_support(self.writer, shown)
        sampling = Sampling(self.writer.room, temperature=self.temperature, seed=seed)
        answers = writer.generate([[_ask(self.writer, shown, fitted)]] * self.k, sampling)
        drafts = sorted({_written(self.writer, answer) for answer in answers}, key=lambda text: (len(text), text))
        results = [finish(self, support, trim(self.writer, text), seed=seed, n=len(fitted), cost=Cost()) for text in drafts]
        follower = Follower(judge, self.follower.mode, self.follower.calibration)
        scores = [score(follower, follower.prepare(result, shown)[0], held.examples).measurement().macro_f1 for result in results]
        best = results[max(range(len(scores)), key=scores.__getitem__)]
        note = f"best of {self.k} drafts ({len(drafts)} different) by macro-F1 on {len(held.examples)} held-back support examples"
        provenance = best.provenance.model_copy(update={"notes": (*notes, note, *best.provenance.notes)})
        return best.model_copy(update={"cost": _cost(writer) + _cost(judge), "provenance": provenance})


def inner_split(support: Support) -> tuple[Support, Support]:
    """Every third example of each label is held back. Raises `ConfigError` when that leaves nothing to choose by."""
    seen: dict[str, int] = {}
    shown: list[Example] = []
    held: list[Example] = []
    for example in support.examples:
        seen[example.label] = seen.get(example.label, 0) + 1
        (held if seen[example.label] % 3 == 2 else shown).append(example)
    if not held:
        raise ConfigError(
            f"Choosing between drafts needs two or more examples of some label; the {len(support.examples)} examples have none twice."
        )
    return Support(support.labels, tuple(shown)), Support(support.labels, tuple(held))


def fit_support(writer: Writer, support: Support) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """The first examples that fit the generator's context beside its answer, and a note where some do not."""
    model = writer.model
    room = model.card.context_length - writer.room - TEMPLATE_MARGIN
    empty = induction_prompt(writer.template, support.labels, (), writer.budget)
    frame, *counts = model.count_tokens([empty, *(example_lines([example]) + "\n\n" for example in support.examples)])
    room -= frame
    fitted = len(counts)
    while fitted and sum(counts[:fitted]) > room:
        fitted -= 1
    if not fitted:
        owner = f"{model.card.reference} (context {model.card.context_length} tokens)"
        raise ConfigError(f"Not one of {len(counts)} examples fits the prompt of {owner}. Give shorter texts, or another generator.")
    if fitted == len(counts):
        return support.examples, ()
    return support.examples[:fitted], (f"{fitted} of {len(counts)} examples fit the generator's context",)


def _cost(meter: Metered) -> Cost:
    return Cost.of(meter.usage, meter.seconds)


def _ask(writer: Writer, support: Support, fitted: Sequence[Example]) -> Message:
    return {"role": "user", "content": induction_prompt(writer.template, support.labels, fitted, writer.budget)}


def _shorter(writer: Writer) -> Message:
    return {"role": "user", "content": f"That is too long. Write it again in at most {max((writer.budget or 0) // 2, 1)} words."}


def _written(writer: Writer, answer: Completion | Failure) -> str:
    """The text, or an error: an empty instruction would be measured as if it were the method's."""
    if isinstance(answer, Failure):
        raise EndpointError(f"The generator {writer.model.card.reference} gave no instruction: {answer.kind}: {answer.message}")
    text = answer.text.strip()
    if not text:
        raise EndpointError(f"The generator {writer.model.card.reference} answered with an empty text. Try another generator or seed.")
    return text


def trim(writer: Writer, text: str) -> tuple[str, tuple[str, ...]]:
    """The text within the budget and a note that says what was cut: at a line end, or between words where that would waste half."""
    if writer.budget is None or _fits(writer, text):
        return text, ()
    kept = _longest(writer, text.splitlines(keepends=True))
    if not writer.budget // 2 <= writer.model.count_tokens([kept])[0] <= writer.budget:
        kept = _longest(writer, re.split(r"(?<=\s)", text))
    return kept.rstrip(), (f"trimmed to the budget of {writer.budget} tokens",)


def _longest(writer: Writer, pieces: Sequence[str]) -> str:
    """The longest beginning that fits the budget (bisection; at least one piece)."""
    low, high = 1, len(pieces)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(writer, "".join(pieces[:middle])) else (low, middle - 1)
    return "".join(pieces[:low])


def _fits(writer: Writer, text: str) -> bool:
    return writer.budget is None or writer.model.count_tokens([text.rstrip()])[0] <= writer.budget


def finish(
    inducer: MetaInducer | BestOf, support: Support, draft: tuple[str, tuple[str, ...]], *, seed: int, n: int, cost: Cost
) -> Instruction:
    """The artefact of a draft, with its notes and a warning where it repeats training text."""
    text, notes = draft
    copied = copied_runs(text, (example.text for example in support.examples))
    warning = (f"repeats training text: {'; '.join(repr(run) for run in copied[:3])}",) if copied else ()
    return Instruction(
        text=text,
        labels=support.labels,
        method=inducer.name,
        frame=inducer.frame.text,
        generator=inducer.writer.model.card.reference,
        cost=cost,
        provenance=Provenance(n=n, seed=seed, support_key=support.key, meta_template=inducer.writer.template.key, notes=(*notes, *warning)),
    )
