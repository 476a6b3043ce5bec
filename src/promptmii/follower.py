"""The follower: a frozen model that reads an instruction and labels texts. One frame, one parser, two modes.

`choose` compares the likelihoods of the labels (exact, gives probabilities, can be calibrated); `generate` lets the
model write and reads the label from its text, as in the paper. Every result records the mode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, repeat
from typing import Literal, NamedTuple, Protocol

import numpy as np

from promptmii import calibrate
from promptmii.calibration_kinds import READS, Reads
from promptmii.errors import EndpointError, UnsupportedError
from promptmii.instruction import Calibration, CalibrationKind, Cost, Instruction, Mode, ShortlistKind
from promptmii.models.base import (
    Chat,
    Choice,
    Completion,
    Failure,
    FailureKind,
    LanguageModel,
    ModelCard,
    Sampling,
    Usage,
    most_tokens,
)
from promptmii.models.threads import parallel
from promptmii.parse import LabelParser, Match, answer_tokens, without_thought
from promptmii.prompts import defuse, quote
from promptmii.shortlist import candidates, shortlisted
from promptmii.task import Support

FRAME_MARGIN = 64
"""Tokens kept free for the chat template around the prompt."""
BATCH_NOTE = "the batch calibration depends on the texts labelled together, so the instruction file does not hold it"
QUOTED_NOTE = "not calibrated: the instruction quotes every text that could calibrate it"
CUT = " […] "


Part = tuple[Instruction, Sequence[str]]
"""An instruction, and texts to label with it."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What became of one text: a label, `None` if the answer was no label, or a failure if there was no answer."""

    label: str | None
    probabilities: tuple[float, ...] | None = None
    """One per label of the instruction, in order; `choose` with likelihoods only."""
    match: Match | None = None
    """How the answer was read; `generate` only."""
    failure: Failure | None = None
    truncated: bool = False
    """The text was cut in the middle to fit the context."""
    answer: str | None = None
    """What the model wrote; `generate` only."""
    uncalibrated: str | None = None
    """The label before the calibration; `choose` with likelihoods only."""
    shortlist: tuple[str, ...] | None = None
    """The labels that were compared; `None`: all of them."""
    usage: Usage = Usage()


def resolve_calibration(kind: CalibrationKind | Literal["auto"], mode: Mode, card: ModelCard) -> CalibrationKind:
    """`auto` is `support` wherever likelihoods are to be had (measured in docs/models.md)."""
    if kind != "auto":
        return kind
    return "support" if mode == "choose" and card.gives_scores else "none"


class Predictor(Protocol):
    """What labels texts: a `Follower`, or what a method makes instead of a prompt, such as a trained classifier."""

    def prepare(self, instruction: Instruction, support: Support) -> Instruction:
        """The instruction as it is used with this predictor. Query rows are never seen."""
        ...

    def predict(self, instruction: Instruction, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in order."""
        ...


@dataclass(frozen=True)
class Follower(Predictor):
    """A model, how it answers, how its scores are corrected, and how many labels are made few."""

    model: LanguageModel
    mode: Mode = "choose"
    calibration: CalibrationKind = "none"
    shortlist: ShortlistKind = "none"
    """What `prepare` chooses for an instruction with many labels; one that has its shortlist keeps to it."""

    def __post_init__(self) -> None:
        if self.calibration != "none" and self.mode == "generate":
            raise UnsupportedError(
                f"The calibration {self.calibration!r} needs likelihoods, so --mode choose; the mode is generate."
            )
        if self.calibration != "none" and not self.model.card.gives_scores:
            owner = self.model.card.reference
            raise UnsupportedError(
                f"The calibration {self.calibration!r} needs likelihoods; {owner} gives none. Use --calibration none."
            )

    def prepare(self, instruction: Instruction, support: Support) -> Instruction:
        """The instruction with a shortlist and this follower's calibration, chosen and fitted on the support.

        No text is scored under a prompt that shows it (`calibrate.held_out`). Query rows are never seen. Raises
        `EndpointError` if the follower fails on a text, and `UnsupportedError` if there are no examples to fit on.
        """
        stamped = instruction.fitted_on(support).model_copy(
            update={"follower": self.model.card.reference, "mode": self.mode, "calibration": None}
        )
        if self.mode == "choose" and self.model.card.gives_scores:  # without likelihoods all labels cost as much as few
            stamped = shortlisted(stamped, support, self.shortlist)
        reads = READS[self.calibration]
        if reads in (Reads.NOTHING, Reads.QUERY):
            return stamped.noted(BATCH_NOTE) if reads is Reads.QUERY else stamped
        if reads is Reads.CONTENT_FREE:
            whole = stamped.model_copy(update={"shortlist": None})
            parts: list[Part] = [(whole, calibrate.CONTENT_FREE)]
            gold: list[int] = []
        elif not support.examples:
            raise UnsupportedError(
                f"The calibration {self.calibration!r} is fitted on support examples, and there are none."
            )
        else:
            groups = list(calibrate.held_out(stamped, support.examples))
            parts = [(part, tuple(example.text for example in examples)) for part, examples in groups]
            gold = [support.labels.index(example.label) for _, examples in groups for example in examples]
        if not parts:
            return stamped.noted(QUOTED_NOTE)
        chosen = self._choose(parts)
        answers = [answer for one in chosen for answer in one.answers]
        for answer in answers:
            if isinstance(answer, Failure):
                message = f"{self.model.card.reference} failed on a text during calibration: {answer.message}"
                raise EndpointError(message, answer.kind)
        logp = np.concatenate([one.logp for one in chosen])
        fitted = calibrate.fit(self.calibration, logp, gold)
        usage = sum((answer.usage for answer in answers), Usage())
        return stamped.model_copy(
            update={
                "calibration": fitted.model_copy(update={"belongs_to": stamped.text_key}),
                "calibration_cost": Cost.of(usage, self.model.card.price),
            }
        )

    def predict(self, instruction: Instruction, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in order. The instruction's own calibration is applied, if it has one."""
        return self.predict_each([(instruction, texts)])[0]

    def predict_each(self, parts: Sequence[Part]) -> list[list[Prediction]]:
        """`predict` for several instructions. In `choose` those with the same labels are one call of the model."""
        if self.mode == "generate":
            return [self._generate(part, texts) if texts else [] for part, texts in parts]
        return [one.predictions(self._calibration(one)) for one in self._choose(parts)]

    def _calibration(self, chosen: "_Chosen") -> Calibration | None:
        if READS[self.calibration] is Reads.QUERY and len(chosen.logp):
            return calibrate.fit(self.calibration, chosen.logp)
        return self.own(chosen.instruction).calibration

    def _choose(self, parts: Sequence[Part]) -> list["_Chosen"]:
        framed = [self._frames(part, texts) for part, texts in parts]
        listed = [None if frames.unfit else candidates(*part) for part, frames in zip(parts, framed, strict=True)]
        asked = [
            (chat, tuple(defuse(part.labels[k]) for k in some))
            for (part, _), (chats, _, _), lists in zip(parts, framed, listed, strict=True)
            for chat, some in zip(chats, lists or [range(len(part.labels))] * len(chats), strict=True)
        ]
        answers = iter(self._ask(asked))
        return [
            _Chosen(part, unfit or list(islice(answers, len(chats))), cut, lists)
            for (part, _), (chats, cut, unfit), lists in zip(parts, framed, listed, strict=True)
        ]

    def _ask(self, asked: Sequence[tuple[Chat, tuple[str, ...]]]) -> list[Choice | Failure]:
        """A choice for each chat among its own options. Chats with the same ones are asked together."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for position, (_, options) in enumerate(asked):
            groups.setdefault(options, []).append(position)
        parts = list(groups)

        def ask(options: tuple[str, ...]) -> list[Choice | Failure]:
            return self.model.choose([asked[i][0] for i in groups[options]], options)

        found: dict[int, Choice | Failure] = {}
        for number, answers in parallel(ask, parts, self.model.card.concurrency):
            found |= zip(groups[parts[number]], answers, strict=True)
        return [found[position] for position in range(len(asked))]

    def own(self, instruction: Instruction) -> Instruction:
        """The instruction without a calibration that was fitted to another model or another text."""
        if instruction.calibration is None or (
            instruction.calibrates and instruction.follower in (None, self.model.card.reference)
        ):
            return instruction
        return instruction.model_copy(update={"calibration": None})

    def _generate(self, instruction: Instruction, texts: Sequence[str]) -> list[Prediction]:
        labels = [defuse(label) for label in instruction.labels]
        longest = instruction.answer or answer_tokens(self.model.count_tokens(labels))
        chats, cut, unfit = self._frames(instruction, texts, longest)
        answers = unfit or self.model.generate(chats, Sampling(max_tokens=longest))
        parser = LabelParser(instruction.labels)
        limited = instruction.answer is not None
        return [_read(parser, answer, was_cut, limited) for answer, was_cut in zip(answers, cut, strict=True)]

    def _frames(self, instruction: Instruction, texts: Sequence[str], answer: int | None = None) -> "_Frames":
        """Texts in the frame, cut where they are too long. `answer` is its most tokens; `None`: those of a label."""
        longest = answer or max(map(most_tokens, instruction.labels))
        room = self.model.card.context_length - FRAME_MARGIN - longest
        chats: list[Chat] = [instruction.messages(text) for text in texts]
        if any(most_tokens(message["content"]) > room for chat in chats for message in chat):
            return self._cut_frames(instruction, texts, answer)
        return _Frames(chats, [False] * len(texts))

    def _cut_frames(self, instruction: Instruction, texts: Sequence[str], answer: int | None) -> "_Frames":
        """As `_frames`, with tokens counted rather than bounded."""
        labels = map(defuse, instruction.labels)
        frame, *label_counts = self.model.count_tokens([instruction.longest_prompt, *labels])
        context = self.model.card.context_length
        room = context - FRAME_MARGIN - frame - (answer or max(label_counts))
        if room < FRAME_MARGIN:
            message = f"The instruction takes {frame} tokens and leaves no room for a text in the context of {context}."
            return _Frames([], [False] * len(texts), [Failure(FailureKind.CONTEXT, message)] * len(texts))
        fitted = self.fit_texts(texts, room)
        chats: list[Chat] = [instruction.messages(text) for text in fitted]
        return _Frames(chats, [new is not old for new, old in zip(fitted, texts, strict=True)])

    def fit_texts(self, texts: Sequence[str], room: int) -> list[str]:
        """The texts, cut in the middle if longer than `room` tokens: a text says most at its beginning and end."""
        fitted = list(texts)
        counts = self.model.count_tokens([quote(text) for text in texts])
        over = [i for i, count in enumerate(counts) if count > room]
        keep = {i: len(texts[i]) for i in over}
        while over:
            for i in over:
                keep[i] = min(int(keep[i] * room / counts[i] * 0.98), keep[i] - 1)
                half = max(keep[i], 0) // 2
                fitted[i] = texts[i][:half] + CUT + texts[i][len(texts[i]) - half :]
            for i, count in zip(over, self.model.count_tokens([quote(fitted[i]) for i in over]), strict=True):
                counts[i] = count
            over = [i for i in over if counts[i] > room and keep[i] > 0]
        return fitted


def _read(parser: LabelParser, answer: Completion | Failure, was_cut: bool, limited: bool) -> Prediction:
    """What an answer says. If it ran out of tokens, only its finished lines count: "spam" may be half a label.

    Where the instruction itself limits answers (`limited`), a longer one is wrong, as in the paper, and no failure.
    """
    if isinstance(answer, Failure):
        return Prediction(None, failure=answer, truncated=was_cut, usage=answer.usage)
    said = without_thought(answer.text)
    if not answer.text.strip():
        reason = "wrote nothing: it may be a base model, or lack its chat template; --mode choose needs no text"
    elif not said:
        reason = "spent its answer on thinking: switch thinking off on the server, or allow it more tokens"
    else:
        text = said.rpartition("\n")[0] if answer.truncated else answer.text
        label, match = parser(text)
        told = not answer.truncated or (label is not None and match is not Match.MENTIONED)
        if told or limited:
            label = label if told else None
            return Prediction(label, match=match, truncated=was_cut, answer=answer.text, usage=answer.usage)
        reason = (
            "ran out of tokens before it had named a label: use a model that answers with the label, or --mode choose"
        )
    failure = Failure(FailureKind.BAD_ANSWER, f"The model {reason} (it wrote {answer.text[:60]!r}).", answer.usage)
    return Prediction(None, failure=failure, truncated=was_cut, answer=answer.text, usage=answer.usage)


class _Frames(NamedTuple):
    """Texts as they are asked about."""

    chats: list[Chat]
    cut: list[bool]
    """Per text, whether it was cut in the middle."""
    unfit: list[Failure] | None = None
    """A failure per text, and no chats, where not even an empty text fits the context."""


@dataclass(frozen=True)
class _Chosen:
    """What became of the texts under an instruction, before any calibration."""

    instruction: Instruction
    answers: Sequence[Choice | Failure]
    cut: Sequence[bool]
    listed: Sequence[tuple[int, ...]] | None
    """Per text the positions of the labels that were compared; `None`: all."""

    @cached_property
    def logp(self) -> calibrate.Floats:
        """Log-probabilities (n, K) of the answers with likelihoods; minus infinity where a label was not compared."""
        told = [(i, a.scores) for i, a in enumerate(self.answers) if isinstance(a, Choice) and a.scores is not None]
        whole = np.full((len(told), len(self.instruction.labels)), -np.inf)
        if not told:
            return whole
        scores = np.array([some for _, some in told])
        if self.listed is None:
            return calibrate.normalise(scores)
        np.put_along_axis(whole, np.array([self.listed[i] for i, _ in told]), scores, axis=1)
        return calibrate.normalise(whole)

    def predictions(self, calibration: Calibration | None) -> list[Prediction]:
        """One per text, in order."""
        labels = self.instruction.labels
        logp = calibrate.apply(calibration, self.logp)
        read = zip(np.exp(logp).tolist(), logp.argmax(axis=1).tolist(), self.logp.argmax(axis=1).tolist(), strict=True)
        found: list[Prediction] = []
        for answer, was_cut, some in zip(self.answers, self.cut, self.listed or repeat(None), strict=False):
            names = labels if some is None else tuple(labels[k] for k in some)
            label = chances = failure = plain = None
            if isinstance(answer, Failure):
                failure = answer
            elif answer.scores is None:
                label = names[answer.index]
            else:
                row, best, before = next(read)
                label, chances, plain = labels[best], tuple(row), labels[before]
            found.append(
                Prediction(
                    label,
                    chances,
                    failure=failure,
                    truncated=was_cut,
                    uncalibrated=plain,
                    shortlist=None if some is None else names,
                    usage=answer.usage,
                )
            )
        return found
