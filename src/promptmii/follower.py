"""The follower: a frozen model that reads an instruction and labels texts. One frame, one parser, two modes.

`choose` compares the likelihoods of the labels: it is exact, gives probabilities, and can be calibrated. `generate`
lets the model write and reads the label from its text, as in the paper. Every result records the mode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, repeat
from typing import Literal, NamedTuple, Protocol

import numpy as np

from promptmii import calibrate
from promptmii.calibration_kinds import READS, CalibrationKind, Reads
from promptmii.errors import EndpointError, UnsupportedError
from promptmii.instruction import BATCH_NOTE, Calibration, Cost, Instruction, Mode, ShortlistKind
from promptmii.models.base import (
    TEMPLATE_MARGIN,
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
from promptmii.shortlist import MANY, candidates, shortlisted
from promptmii.task import Support

MIN_TEXT_TOKENS = 64
"""With less room for a text, the follower fails instead of reading scraps."""
QUOTED_NOTE = "not calibrated: the instruction quotes every text that could calibrate it"
CUT = " […] "


Part = tuple[Instruction, Sequence[str]]
"""An instruction, and texts to label with it."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The outcome for one text: a label, no label if the answer names none, or a failure if there was no answer."""

    label: str | None
    probabilities: tuple[float, ...] | None = None
    """One per label of the instruction, in order; only `choose` with likelihoods."""
    match: Match | None = None
    """How the answer was matched to the label; only `generate`."""
    failure: Failure | None = None
    truncated: bool = False
    """The text was cut in the middle to fit the context."""
    answer: str | None = None
    """The model's text; only `generate`."""
    uncalibrated: str | None = None
    """The label without the calibration; only `choose` with likelihoods."""
    shortlist: tuple[str, ...] | None = None
    """The labels that were compared; `None` means all of them."""
    usage: Usage = Usage()


def resolve_calibration(kind: CalibrationKind | Literal["auto"], mode: Mode, card: ModelCard) -> CalibrationKind:
    """Turn `auto` into `support` if likelihoods are available, else `none` (measured in docs/models.md)."""
    if kind != "auto":
        return kind
    return "support" if mode == "choose" and card.gives_scores else "none"


class Predictor(Protocol):
    """Labels texts: a `Follower`, or a method that needs no prompt, such as a trained classifier."""

    def prepare(self, instruction: Instruction, support: Support) -> Instruction:
        """Adapt the instruction to this predictor. Query rows are never seen."""
        ...

    def predict(self, instruction: Instruction, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in order."""
        ...


@dataclass(frozen=True)
class Follower(Predictor):
    """A model with its answer mode, kind of calibration and kind of shortlist."""

    model: LanguageModel
    mode: Mode = "choose"
    calibration: CalibrationKind = "none"
    shortlist: ShortlistKind = "none"
    """What `prepare` adds to instructions with many labels; `predict` uses the instruction's own shortlist."""

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

    @cached_property
    def gives_probabilities(self) -> bool:
        """The model compares likelihoods, so that predictions have probabilities and can be calibrated."""
        return self.mode == "choose" and self.model.card.gives_scores

    def check(self, labels: Sequence[str]) -> None:
        """Raise `UnsupportedError` if the model has to choose between the labels and cannot. Labels no text."""
        if self.mode == "choose":  # of many labels, a shortlist may compare only a few
            self.model.choose((), tuple(map(defuse, labels if len(labels) <= MANY else labels[:2])))

    def prepare(self, instruction: Instruction, support: Support) -> Instruction:
        """The instruction with a shortlist and a calibration, both fitted on the support for this follower.

        No text is scored under a prompt that shows it (`calibrate.held_out`). Query rows are never seen. Raises
        `EndpointError` if the follower fails on a text, and `UnsupportedError` if there are no examples to fit on.
        """
        uncalibrated = (
            instruction.fitted_on(support)
            .without_notes(BATCH_NOTE, QUOTED_NOTE)  # of an earlier calibration
            .model_copy(update={"follower": self.model.card.reference, "mode": self.mode, "calibration": None})
        )
        if self.gives_probabilities:  # without likelihoods, a shortlist saves nothing
            uncalibrated = shortlisted(uncalibrated, support, self.shortlist)
        reads = READS[self.calibration]
        if reads is Reads.NOTHING:
            return uncalibrated
        if reads is Reads.QUERY:
            return uncalibrated.noted(BATCH_NOTE)
        if reads is Reads.CONTENT_FREE:
            unlisted = uncalibrated.model_copy(update={"shortlist": None})
            parts: list[Part] = [(unlisted, calibrate.CONTENT_FREE)]
            gold: list[int] = []
        elif not support.examples:
            raise UnsupportedError(
                f"The calibration {self.calibration!r} is fitted on support examples, and there are none."
            )
        else:
            groups = list(calibrate.held_out(uncalibrated, support.examples))
            parts = [(prompt, tuple(example.text for example in examples)) for prompt, examples in groups]
            gold = [instruction.labels.index(example.label) for _, examples in groups for example in examples]
        if not parts:
            return uncalibrated.noted(QUOTED_NOTE)
        choices = self._choose(parts)
        answers = [answer for part in choices for answer in part.answers]
        for answer in answers:
            if isinstance(answer, Failure):
                message = f"{self.model.card.reference} failed on a text during calibration: {answer.message}"
                raise EndpointError(message, answer.kind)
        logp = np.concatenate([part.logp for part in choices])
        fitted = calibrate.fit(self.calibration, logp, gold)
        usage = sum((answer.usage for answer in answers), Usage())
        return uncalibrated.model_copy(
            update={
                "calibration": fitted.model_copy(update={"belongs_to": uncalibrated.text_key}),
                "calibration_cost": Cost.of(usage, self.model.card.price),
            }
        )

    def predict(self, instruction: Instruction, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in order. Applies the instruction's calibration if this follower can use it."""
        return self.predict_each([(instruction, texts)])[0]

    def predict_each(self, parts: Sequence[Part]) -> list[list[Prediction]]:
        """`predict` for several instructions. In `choose` mode, those with the same labels share a model call."""
        if self.mode == "generate":
            return [self._generate(instruction, texts) if texts else [] for instruction, texts in parts]
        return [part.predictions(self._calibration(part)) for part in self._choose(parts)]

    def _calibration(self, choices: "_Choices") -> Calibration | None:
        if READS[self.calibration] is Reads.QUERY and len(choices.logp):
            return calibrate.fit(self.calibration, choices.logp)
        return self.own_calibration(choices.instruction)

    def _choose(self, parts: Sequence[Part]) -> list["_Choices"]:
        framed = [self._frames(*part) for part in parts]
        compared: list[Sequence[tuple[int, ...]] | None] = []
        requests: list[tuple[Chat, tuple[str, ...]]] = []
        for (instruction, texts), frames in zip(parts, framed, strict=True):
            labels = tuple(map(defuse, instruction.labels))
            shortlists = None if frames.failures else candidates(instruction, texts)
            options = repeat(labels) if shortlists is None else [tuple(labels[k] for k in row) for row in shortlists]
            requests += zip(frames.chats, options, strict=False)
            compared.append(shortlists)
        answers = iter(self._answers(requests))
        return [
            _Choices(instruction, failures or list(islice(answers, len(chats))), cut, shortlists)
            for (instruction, _), (chats, cut, failures), shortlists in zip(parts, framed, compared, strict=True)
        ]

    def _answers(self, requests: Sequence[tuple[Chat, tuple[str, ...]]]) -> list[Choice | Failure]:
        """A choice for each chat between its options. Chats with the same options share a model call."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for position, (_, options) in enumerate(requests):
            groups.setdefault(options, []).append(position)
        option_sets = list(groups)

        def ask(options: tuple[str, ...]) -> list[Choice | Failure]:
            return self.model.choose([requests[i][0] for i in groups[options]], options)

        answers: dict[int, Choice | Failure] = {}
        for number, group_answers in parallel(ask, option_sets, self.model.card.concurrency):
            answers |= zip(groups[option_sets[number]], map(_with_a_likeliest, group_answers), strict=True)
        return [answers[position] for position in range(len(requests))]

    def own_calibration(self, instruction: Instruction) -> Calibration | None:
        """The instruction's calibration, unless it was fitted to another model or another text."""
        own = instruction.is_calibrated and instruction.follower in (None, self.model.card.reference)
        return instruction.calibration if own else None

    def _generate(self, instruction: Instruction, texts: Sequence[str]) -> list[Prediction]:
        labels = [defuse(label) for label in instruction.labels]
        max_tokens = instruction.longest_answer or answer_tokens(self.model.count_tokens(labels))
        chats, cut, failures = self._frames(instruction, texts, max_tokens)
        answers = failures or self.model.generate(chats, Sampling(max_tokens=max_tokens))
        parser = LabelParser(instruction.labels)
        limited = instruction.longest_answer is not None
        return [_read(parser, answer, was_cut, limited) for answer, was_cut in zip(answers, cut, strict=True)]

    def prompt(self, instruction: Instruction, text: str) -> str:
        """The prompt that labels a text. A subclass may show each text other examples."""
        return instruction.prompt(text)

    def longest_prompt(self, instruction: Instruction) -> str:
        """The longest prompt for an empty text."""
        return instruction.prompt("")

    def _chats(self, instruction: Instruction, texts: Sequence[str]) -> list[Chat]:
        return [[{"role": "user", "content": self.prompt(instruction, text)}] for text in texts]

    def _frames(self, instruction: Instruction, texts: Sequence[str], max_tokens: int | None = None) -> "_Frames":
        """The texts in the frame, cut to leave room for an answer of `max_tokens`, by default the longest label."""
        answer_bound = max_tokens or max(map(most_tokens, instruction.labels))
        room = self.model.card.context_length - TEMPLATE_MARGIN - answer_bound
        chats = self._chats(instruction, texts)
        if any(most_tokens(message["content"]) > room for chat in chats for message in chat):
            return self._cut_frames(instruction, texts, max_tokens)
        return _Frames(chats, [False] * len(texts))

    def _cut_frames(self, instruction: Instruction, texts: Sequence[str], max_tokens: int | None) -> "_Frames":
        """`_frames` with exact token counts instead of upper bounds."""
        labels = map(defuse, instruction.labels)
        prompt_tokens, *label_tokens = self.model.count_tokens([self.longest_prompt(instruction), *labels])
        context = self.model.card.context_length
        room = context - TEMPLATE_MARGIN - prompt_tokens - (max_tokens or max(label_tokens))
        if room < MIN_TEXT_TOKENS:
            message = (
                f"The prompt takes {prompt_tokens} tokens and leaves no room for a text in the context of {context}."
            )
            return _Frames([], [False] * len(texts), [Failure(FailureKind.CONTEXT, message)] * len(texts))
        fitted = self.fit_texts(texts, room)
        return _Frames(
            self._chats(instruction, fitted), [new is not old for new, old in zip(fitted, texts, strict=True)]
        )

    def fit_texts(self, texts: Sequence[str], room: int) -> list[str]:
        """The texts, cut in the middle if longer than `room` tokens: their beginning and end tell the most."""
        fitted = list(texts)
        counts = self.model.count_tokens([quote(text) for text in texts])
        too_long = [i for i, count in enumerate(counts) if count > room]
        length = {i: len(texts[i]) for i in too_long}
        while too_long:
            for i in too_long:
                length[i] = min(int(length[i] * room / counts[i] * 0.98), length[i] - 1)
                half = max(length[i], 0) // 2
                fitted[i] = texts[i][:half] + CUT + texts[i][len(texts[i]) - half :]
            new_counts = self.model.count_tokens([quote(fitted[i]) for i in too_long])
            for i, count in zip(too_long, new_counts, strict=True):
                counts[i] = count
            too_long = [i for i in too_long if counts[i] > room and length[i] > 0]
        return fitted


def _with_a_likeliest(answer: Choice | Failure) -> Choice | Failure:
    """The answer, or a failure if its likelihoods name no likeliest label: the first would be made up."""
    if isinstance(answer, Failure) or answer.scores is None or np.isfinite(np.max(answer.scores)):
        return answer
    message = (
        "The model gave likelihoods that are not finite numbers, as weights do that overflow in float16. Use another "
        "precision, or another model."
    )
    return Failure(FailureKind.BAD_ANSWER, message, answer.usage)


def _read(parser: LabelParser, answer: Completion | Failure, was_cut: bool, limited: bool) -> Prediction:
    """Read one answer. If it ran out of tokens, only its complete lines count: "spam" may be half a label.

    If the instruction itself limits answers (`limited`), a longer answer is wrong, as in the paper, not a failure.
    """
    if isinstance(answer, Failure):
        return Prediction(None, failure=answer, truncated=was_cut, usage=answer.usage)
    reply = without_thought(answer.text)
    if not answer.text.strip():
        reason = "wrote nothing: it may be a base model, or lack its chat template; --mode choose needs no text"
    elif not reply:
        reason = "spent its answer on thinking: switch thinking off on the server, or allow it more tokens"
    else:
        text = reply.rpartition("\n")[0] if answer.truncated else answer.text
        label, match = parser(text)
        reliable = not answer.truncated or (label is not None and match is not Match.MENTIONED)
        if reliable or limited:
            label = label if reliable else None
            return Prediction(label, match=match, truncated=was_cut, answer=answer.text, usage=answer.usage)
        reason = (
            "ran out of tokens before it had named a label: use a model that answers with the label, or --mode choose"
        )
    failure = Failure(FailureKind.BAD_ANSWER, f"The model {reason} (it wrote {answer.text[:60]!r}).", answer.usage)
    return Prediction(None, failure=failure, truncated=was_cut, answer=answer.text, usage=answer.usage)


class _Frames(NamedTuple):
    """Texts in the instruction's frame, ready for the model."""

    chats: list[Chat]
    cut: list[bool]
    """True for each text that was cut in the middle."""
    failures: list[Failure] | None = None
    """One per text, instead of chats, if not even an empty text fits the context."""


@dataclass(frozen=True)
class _Choices:
    """The model's choices for the texts of one instruction, before any calibration."""

    instruction: Instruction
    answers: Sequence[Choice | Failure]
    cut: Sequence[bool]
    shortlists: Sequence[tuple[int, ...]] | None
    """The positions of the labels that were compared for each text; `None` means all labels."""

    @cached_property
    def logp(self) -> calibrate.Floats:
        """Log-probabilities (n, K) of the answers with likelihoods; minus infinity where a label was not compared."""
        scored = [(i, a.scores) for i, a in enumerate(self.answers) if isinstance(a, Choice) and a.scores is not None]
        full = np.full((len(scored), len(self.instruction.labels)), -np.inf)
        if not scored:
            return full
        scores = np.array([row for _, row in scored])
        if self.shortlists is None:
            return calibrate.normalise(scores)
        np.put_along_axis(full, np.array([self.shortlists[i] for i, _ in scored]), scores, axis=1)
        return calibrate.normalise(full)

    def predictions(self, calibration: Calibration | None) -> list[Prediction]:
        """One prediction per text, in order."""
        labels = self.instruction.labels
        logp = calibrate.apply(calibration, self.logp)
        rows = zip(np.exp(logp).tolist(), logp.argmax(axis=1).tolist(), self.logp.argmax(axis=1).tolist(), strict=True)
        predictions: list[Prediction] = []
        for answer, was_cut, positions in zip(self.answers, self.cut, self.shortlists or repeat(None), strict=False):
            compared = labels if positions is None else tuple(labels[k] for k in positions)
            label = probabilities = failure = uncalibrated = None
            if isinstance(answer, Failure):
                failure = answer
            elif answer.scores is None:
                label = compared[answer.index]
            else:
                row, best, raw_best = next(rows)
                label, probabilities, uncalibrated = labels[best], tuple(row), labels[raw_best]
            predictions.append(
                Prediction(
                    label,
                    probabilities,
                    failure=failure,
                    truncated=was_cut,
                    uncalibrated=uncalibrated,
                    shortlist=None if positions is None else compared,
                    usage=answer.usage,
                )
            )
        return predictions
