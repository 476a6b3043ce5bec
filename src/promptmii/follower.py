"""The follower: a frozen model that reads an instruction and labels texts. One frame, one parser, two modes.

`choose` compares the likelihoods of the labels (exact, gives probabilities, can be calibrated); `generate` lets the
model write and reads the label from its text, as in the paper. Every result records the mode.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, Protocol

import numpy as np

from promptmii import calibrate
from promptmii.errors import EndpointError, UnsupportedError
from promptmii.instruction import CalibrationKind, Cost, Instruction, Mode, ShortlistKind
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
)
from promptmii.models.threads import parallel
from promptmii.parse import LabelParser, Match, answer_tokens, without_thought
from promptmii.prompts import defuse, quote
from promptmii.shortlist import candidates, shortlisted
from promptmii.task import Support

FRAME_MARGIN = 64
"""Tokens kept free for the chat template around the prompt."""
BATCH_NOTE = (
    "the calibration batch needs many texts at once, so it is not kept: used alone, the instruction is uncalibrated"
)
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
class Follower:
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
        if self.calibration in ("none", "batch"):
            return stamped.noted(BATCH_NOTE) if self.calibration == "batch" else stamped
        if self.calibration == "contextual":
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
        logp, usage = self._log_probabilities(parts)
        fitted = (
            calibrate.fit_supervised(logp, gold)
            if self.calibration == "supervised"
            else calibrate.centre(self.calibration, logp, gold)
        )
        return stamped.model_copy(
            update={
                "calibration": fitted.model_copy(update={"belongs_to": stamped.text_key}),
                "calibration_cost": Cost.of(usage, self.model.card.price),
            }
        )

    def _log_probabilities(self, parts: Sequence[Part]) -> tuple[calibrate.Floats, Usage]:
        """Of all texts, each under its instruction, and what they cost."""
        predictions = [prediction for found in self._choose(parts) for prediction in found]
        for failure in (p.failure for p in predictions if p.failure):
            message = f"{self.model.card.reference} failed on a text during calibration: {failure.message}"
            raise EndpointError(message, failure.kind)
        return _logp(predictions, parts[0][0].labels), sum((p.usage for p in predictions), Usage())

    def predict(self, instruction: Instruction, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in order. The instruction's own calibration is applied, if it has one."""
        return self.predict_each([(instruction, texts)])[0]

    def predict_each(self, parts: Sequence[Part]) -> list[list[Prediction]]:
        """`predict` for several instructions. In `choose` those with the same labels are one call of the model."""
        if self.mode == "generate":
            return [self._generate(part, texts) if texts else [] for part, texts in parts]
        found = self._choose(parts)
        if self.calibration != "batch":
            return found
        pairs = zip(parts, found, strict=True)
        return [_recalibrate_as_batch(predictions, part.labels) for (part, _), predictions in pairs]

    def _choose(self, parts: Sequence[Part]) -> list[list[Prediction]]:
        framed = [self._frames(part, texts, part.labels) for part, texts in parts]
        listed = [candidates(part, texts) for part, texts in parts]
        asked = [
            (chat, tuple(defuse(part.labels[k]) for k in some))
            for (part, _), (chats, _, _), lists in zip(parts, framed, listed, strict=True)
            for chat, some in zip(chats, lists or [range(len(part.labels))] * len(chats), strict=True)
        ]
        answers = iter(self._ask(asked))
        return [
            self._predictions(part, unfit or list(islice(answers, len(chats))), cut, lists)
            for (part, _), (chats, cut, unfit), lists in zip(parts, framed, listed, strict=True)
        ]

    def _ask(self, asked: Sequence[tuple[Chat, tuple[str, ...]]]) -> list[Choice | Failure]:
        """A choice for each chat among its own options. Chats with the same ones are asked together."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for position, (_, options) in enumerate(asked):
            groups.setdefault(options, []).append(position)
        parts = list(groups)
        threads = min(self.model.card.concurrency, len(parts))

        def ask(options: tuple[str, ...]) -> list[Choice | Failure]:
            return self.model.choose([asked[i][0] for i in groups[options]], options)

        found: dict[int, Choice | Failure] = {}
        for number, answers in parallel(ask, parts, threads) if threads > 1 else enumerate(map(ask, parts)):
            found |= zip(groups[parts[number]], answers, strict=True)
        return [found[position] for position in range(len(asked))]

    def _predictions(
        self,
        instruction: Instruction,
        answers: Sequence[Choice | Failure],
        cut: Sequence[bool],
        listed: Sequence[tuple[int, ...]] | None,
    ) -> list[Prediction]:
        labels = instruction.labels
        if not listed:
            return _choices_to_predictions(answers, cut, self.own(instruction))
        whole = [_spread(answer, some, len(labels)) for answer, some in zip(answers, listed, strict=True)]
        found = _choices_to_predictions(whole, cut, self.own(instruction))
        names = [tuple(labels[k] for k in some) for some in listed]
        return [replace(prediction, shortlist=some) for prediction, some in zip(found, names, strict=True)]

    def own(self, instruction: Instruction) -> Instruction:
        """The instruction without a calibration that was fitted to another model or another text."""
        if instruction.calibration is None or (
            instruction.calibrates and instruction.follower in (None, self.model.card.reference)
        ):
            return instruction
        return instruction.model_copy(update={"calibration": None})

    def _generate(self, instruction: Instruction, texts: Sequence[str]) -> list[Prediction]:
        labels = [defuse(label) for label in instruction.labels]
        max_tokens = instruction.answer or answer_tokens(self.model.count_tokens(labels))
        chats, cut, answers = self._frames(instruction, texts, instruction.labels)
        if answers is None:
            answers = self.model.generate(chats, Sampling(max_tokens=max_tokens))
        parser = LabelParser(instruction.labels)
        limited = instruction.answer is not None
        return [_read(parser, answer, was_cut, limited) for answer, was_cut in zip(answers, cut, strict=True)]

    def _frames(
        self, instruction: Instruction, texts: Sequence[str], labels: Sequence[str]
    ) -> tuple[list[Chat], list[bool], list[Failure] | None]:
        """The chats, which texts were cut, and failures for all where not even an empty text fits the context."""
        room = self.model.card.context_length - FRAME_MARGIN - max(map(_token_bound, labels))
        chats: list[Chat] = [instruction.messages(text) for text in texts]
        if any(_token_bound(message["content"]) > room for chat in chats for message in chat):
            return self._cut_frames(instruction, texts, labels)
        return chats, [False] * len(texts), None

    def _cut_frames(
        self, instruction: Instruction, texts: Sequence[str], labels: Sequence[str]
    ) -> tuple[list[Chat], list[bool], list[Failure] | None]:
        """As `_frames`, with tokens counted rather than bounded."""
        frame, *label_counts = self.model.count_tokens([instruction.longest_prompt, *map(defuse, labels)])
        context = self.model.card.context_length
        room = context - FRAME_MARGIN - frame - max(label_counts)
        if room < FRAME_MARGIN:
            message = f"The instruction takes {frame} tokens and leaves no room for a text in the context of {context}."
            return [], [False] * len(texts), [Failure(FailureKind.CONTEXT, message)] * len(texts)
        fitted = self.fit_texts(texts, room)
        chats: list[Chat] = [instruction.messages(text) for text in fitted]
        return chats, [new is not old for new, old in zip(fitted, texts, strict=True)], None

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
        if not answer.truncated or (label and match is not Match.MENTIONED):
            return Prediction(label, match=match, truncated=was_cut, answer=answer.text, usage=answer.usage)
        if limited:
            return Prediction(None, match=match, truncated=was_cut, answer=answer.text, usage=answer.usage)
        reason = (
            "ran out of tokens before it had named a label: use a model that answers with the label, or --mode choose"
        )
    failure = Failure(FailureKind.BAD_ANSWER, f"The model {reason} (it wrote {answer.text[:60]!r}).", answer.usage)
    return Prediction(None, failure=failure, truncated=was_cut, answer=answer.text, usage=answer.usage)


def _spread(choice: Choice | Failure, some: Sequence[int], n: int) -> Choice | Failure:
    """A choice among `some` of n options as one among all; the others are impossible."""
    if isinstance(choice, Failure):
        return choice
    index = some[choice.index]
    if choice.scores is None:
        return replace(choice, index=index)
    scores = dict(zip(some, choice.scores, strict=True))
    return replace(choice, index=index, scores=tuple(scores.get(k, -math.inf) for k in range(n)))


def _logp(predictions: Sequence[Prediction], labels: Sequence[str]) -> calibrate.Floats:
    """Minus infinity for labels that were not compared."""
    logp = np.log(np.maximum(np.array([p.probabilities or () for p in predictions]), 1e-30))
    for row, prediction in zip(logp, predictions, strict=True):
        if prediction.shortlist is not None:
            row[[label not in prediction.shortlist for label in labels]] = -np.inf
    return logp


def _token_bound(text: str) -> int:
    """More tokens than bytes no tokenizer makes, so short texts need not be counted."""
    return len(text.encode("utf-8", "replace"))


def _choices_to_predictions(
    answers: Sequence[Choice | Failure], cut: Sequence[bool], instruction: Instruction
) -> list[Prediction]:
    labels = instruction.labels
    scored = [answer.scores for answer in answers if isinstance(answer, Choice) and answer.scores is not None]
    plain = calibrate.normalise(np.array(scored).reshape(-1, len(labels)))
    logp = calibrate.apply(instruction.calibration, plain)
    read = zip(np.exp(logp).tolist(), logp.argmax(axis=1).tolist(), plain.argmax(axis=1).tolist(), strict=True)
    predictions: list[Prediction] = []
    for answer, was_cut in zip(answers, cut, strict=True):
        if isinstance(answer, Failure):
            predictions.append(Prediction(None, failure=answer, truncated=was_cut, usage=answer.usage))
        elif answer.scores is None:
            predictions.append(Prediction(labels[answer.index], truncated=was_cut, usage=answer.usage))
        else:
            probabilities, best, before = next(read)
            predictions.append(
                Prediction(
                    labels[best],
                    tuple(probabilities),
                    truncated=was_cut,
                    usage=answer.usage,
                    uncalibrated=labels[before],
                )
            )
    return predictions


def _probabilities(logp: calibrate.Floats) -> tuple[float, ...]:
    return tuple(np.exp(logp).tolist())


def _recalibrate_as_batch(predictions: list[Prediction], labels: Sequence[str]) -> list[Prediction]:
    answered = [p for p in predictions if p.probabilities is not None]
    if not answered:
        return predictions
    logp = _logp(answered, labels)
    rows = iter(calibrate.apply(calibrate.centre("batch", logp), logp))
    return [p if p.probabilities is None else _recalibrated(p, next(rows), labels) for p in predictions]


def _recalibrated(prediction: Prediction, logp: calibrate.Floats, labels: Sequence[str]) -> Prediction:
    return replace(prediction, label=labels[int(logp.argmax())], probabilities=_probabilities(logp))
