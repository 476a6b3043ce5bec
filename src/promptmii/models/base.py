"""The seam to every engine: one protocol, and the values that cross it.

A model answers a batch of chats in two ways. `generate` writes text. `choose` compares K given answers
by their likelihood, `log P(option + end of turn | chat)`, which makes the K-way choice exact even where
one option is the beginning of another. Whatever goes wrong with one chat comes back in its place as a
`Failure`; an exception means that no chat of the batch could have worked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol, TypeAlias, TypedDict, TypeVar, runtime_checkable

from promptmii.errors import ConfigError


class Message(TypedDict):
    """One turn of a chat, as OpenAI-compatible servers and chat templates take it."""

    role: Literal["system", "user", "assistant"]
    content: str


Chat: TypeAlias = Sequence[Message]


class Contrast(NamedTuple):
    """A chat whose answer the text is to be unlike.

    So what the text owes to the difference between the two chats stands out: contrastive decoding (Li et al. 2023,
    arXiv:2210.15097), here against a context that misleads (Shi et al. 2024, arXiv:2305.14739).
    """

    chat: tuple[Message, ...]
    strength: float
    """A token's log-probability counts `1 + strength` times, that after `chat` is taken off `strength` times."""


class Sampling(NamedTuple):
    """How to decode. Every engine is sent every field, so that no server default decides."""

    max_tokens: int
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    bar_loops: bool = False
    """Leave a loop instead of writing on to the limit (`models.local`); a server has its own means."""
    contrast: Contrast | None = None
    """Heeded where the model's card says so."""


def most_tokens(text: str) -> int:
    """No tokenizer makes more tokens than a text has bytes."""
    return len(text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class Usage:
    """What was consumed. Adds up with `+`; a sum with an unknown part is unknown."""

    calls: int = 0
    prompt_tokens: int | None = 0
    """Tokens of the prompts as a server would bill them, cached ones included; `None`: the server did not say."""
    completion_tokens: int | None = 0
    cached_tokens: int = 0
    """The part of `prompt_tokens` that was read from a prompt cache rather than computed."""
    seconds: float = field(default=0.0, compare=False)
    """Of the engine, a batch's time divided among its answers; for a cached answer, what it took when it was made."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls + other.calls,
            known_sum(self.prompt_tokens, other.prompt_tokens),
            known_sum(self.completion_tokens, other.completion_tokens),
            self.cached_tokens + other.cached_tokens,
            self.seconds + other.seconds,
        )


def known_sum(first: int | None, second: int | None) -> int | None:
    """The sum of two counts; `None` if either is unknown."""
    return None if first is None or second is None else first + second


class Price(NamedTuple):
    """Money per million tokens, and what a provider's prompt cache takes off it."""

    prompt: float
    completion: float
    cached: float | None = None
    """Of prompt tokens read from the cache; `None`: a tenth of `prompt`, as most providers have it."""
    minimum: int = 1024
    """The shortest beginning of a prompt, in tokens, that the provider caches."""
    batch: float = 1.0
    """Factor on every price, for calls through a provider's batch interface."""

    def of(self, usage: Usage) -> float | None:
        """What a usage costs, `None` if it is unknown. Cached tokens count in full if they have no price."""
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            return None
        reduced = usage.cached_tokens if self.cached is not None else 0
        prompts = (usage.prompt_tokens - reduced) * self.prompt + reduced * (self.cached or 0.0)
        return (prompts + usage.completion_tokens * self.completion) * self.batch / 1e6

    def of_prompt(self, tokens: float, shared: int = 0) -> float:
        """Money per million prompts of `tokens`, the first `shared` of them cached if the provider caches so few."""
        kept = min(shared, tokens) if shared >= self.minimum else 0.0
        cached = self.prompt / 10 if self.cached is None else self.cached
        return ((tokens - kept) * self.prompt + kept * cached) * self.batch


class FailureKind(StrEnum):
    """Why a call gave no answer, after all retries."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    RATE_LIMIT = "rate_limit"
    SERVER = "server"
    """5xx, or an error body under HTTP 200."""
    AUTH = "auth"
    CONTEXT = "context"
    """The prompt does not fit the model's context."""
    REQUEST = "request"
    """Another 4xx: the server refuses this request."""
    BAD_ANSWER = "bad_answer"
    """Half a JSON, no choices, an answer outside a constraint that was promised."""
    UNANSWERED = "unanswered"
    """Asked, but the run ended, or the batch expired, before the answer came."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that gave no answer. Never a score, never an empty string."""

    kind: FailureKind
    message: str
    usage: Usage = Usage()
    """What it cost all the same."""


@dataclass(frozen=True, slots=True)
class Completion:
    """Text that a model wrote."""

    text: str
    truncated: bool
    """It ran into `max_tokens`."""
    usage: Usage


@dataclass(frozen=True, slots=True)
class Choice:
    """A model's decision between K options."""

    index: int
    """The chosen option."""
    scores: tuple[float, ...] | None
    """`log P(option + end | chat)`, one per option, in nats; `None` where the engine gives no likelihoods."""
    usage: Usage

    @classmethod
    def likeliest(cls, scores: Sequence[float], usage: Usage) -> "Choice":
        """The option with the highest score, the first of several."""
        return cls(max(range(len(scores)), key=scores.__getitem__), tuple(scores), usage)


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model without asking it anything."""

    reference: str
    """As the user names it: `smol`, `hf:Qwen/Qwen2.5-7B-Instruct`, `openai:gpt-4.1-mini`."""
    revision: str
    """What pins its behaviour: a hash of weights and chat template, or the endpoint and the name it serves."""
    context_length: int
    """In tokens, prompt and answer together."""
    gives_scores: bool
    """`choose` returns likelihoods (needed for calibration and probabilities)."""
    exact_tokens: bool = True
    """`count_tokens` uses the model's own tokenizer rather than an estimate."""
    contrasts: bool = False
    """`generate` heeds `Sampling.contrast`."""
    concurrency: int = 1
    """Answers that are made at the same time, whichever thread asks; 1 for a local model, whose calls take turns."""
    price: Price | None = None
    """`None` where nobody said (unknown is not zero)."""
    context_assumed: bool = False
    """Neither the model nor the user said what `context_length` is."""


Answer = TypeVar("Answer", Completion, Choice)


def clocked(answers: Sequence[Answer | Failure], seconds: float) -> list[Answer | Failure]:
    """The answers of a batch, each with its share of the time that the batch took."""
    share = seconds / max(len(answers), 1)
    return [replace(answer, usage=replace(answer.usage, seconds=share)) for answer in answers]


def check_options(options: Sequence[str]) -> None:
    """Raise `ConfigError` unless these are two or more different, non-empty options."""
    if len(options) < 2 or len(set(options)) < len(options) or not all(options):
        raise ConfigError(f"choose needs two or more different, non-empty options; got {list(options)}.")


@runtime_checkable
class LanguageModel(Protocol):
    """An engine: `ScriptedModel`, `LocalModel`, `HttpModel`, and the wrappers `Cached`, `Batched`, `Metered`, `Priced`.

    Contract, checked for every implementation by `tests/contracts/test_models.py`:
    one result per chat, in order; equal input gives equal output (for `temperature=0` or an equal seed); inputs are not
    changed; a chat that fails gives a `Failure` in its place and leaves its neighbours alone; an empty batch gives an
    empty list; `choose` needs two or more different, non-empty options.
    """

    @property
    def card(self) -> ModelCard:
        """Fixed for the life of the object."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by itself, without special tokens."""
        ...

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """Write an answer to each chat. Equal chats under `temperature > 0` get different samples."""
        ...

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """Decide between the options for each chat. Send chats that begin alike together: that is computed once.

        Raises `ConfigError` where the options are no choice, `UnsupportedError` where the engine can neither compare
        likelihoods nor enforce a choice.
        """
        ...

    def close(self) -> None:
        """Give back connections and files. Twice does no harm."""
        ...
