"""The interface to every engine: one protocol and its data types.

A model answers a batch of chats in two ways. `generate` writes text. `choose` compares K options by their likelihood,
`log P(option + end of turn | chat)`, so the choice is exact even if one option is a prefix of another. If one chat
fails, its place holds a `Failure`; an exception means that no chat of the batch could have worked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol, TypeAlias, TypedDict, TypeVar, runtime_checkable

from promptmii.errors import ConfigError

TEMPLATE_MARGIN = 64
"""The most tokens that a chat template is expected to add to a message."""


class Message(TypedDict):
    """One turn of a chat, in the OpenAI format."""

    role: Literal["system", "user", "assistant"]
    content: str


Chat: TypeAlias = Sequence[Message]


class Contrast(NamedTuple):
    """A chat to decode against, which amplifies the effect of whatever differs between the two chats.

    This is contrastive decoding (Li et al. 2023, arXiv:2210.15097) against a misleading context (Shi et al. 2024,
    arXiv:2305.14739).
    """

    chat: tuple[Message, ...]
    strength: float
    """A token scores `(1 + strength)` times its log-probability minus `strength` times that after `chat`."""


class Sampling(NamedTuple):
    """Decoding settings. Engines always receive every field, so no server default applies."""

    max_tokens: int
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    bar_loops: bool = False
    """Do not continue loops (`models.local`). Servers ignore this."""
    contrast: Contrast | None = None
    """Used only if `ModelCard.contrasts`."""


def most_tokens(text: str) -> int:
    """An upper bound on a text's tokens: no tokenizer makes more tokens than there are bytes."""
    return len(text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources used. Supports `+`; a sum with an unknown term is unknown."""

    calls: int = 0
    prompt_tokens: int | None = 0
    """Billable prompt tokens, including cached ones; `None` if the server did not report them."""
    completion_tokens: int | None = 0
    cached_tokens: int = 0
    """The part of `prompt_tokens` read from a prompt cache."""
    seconds: float = field(default=0.0, compare=False)
    """Engine time; a batch's time is divided equally among its answers. Cached answers keep their original time."""

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
    """Price per million tokens, with the discount of a provider's prompt cache."""

    prompt: float
    completion: float
    cached: float | None = None
    """Price of cached prompt tokens. If `None`, estimates assume a tenth of `prompt`, the usual discount."""
    minimum: int = 1024
    """The shortest prefix, in tokens, that the provider caches."""
    batch: float = 1.0
    """Factor on every price, for calls through a provider's batch interface."""

    def of(self, usage: Usage) -> float | None:
        """The cost of a usage, or `None` if unknown. Without a price of their own, cached tokens cost full price."""
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            return None
        discounted = usage.cached_tokens if self.cached is not None else 0
        prompts = (usage.prompt_tokens - discounted) * self.prompt + discounted * (self.cached or 0.0)
        return (prompts + usage.completion_tokens * self.completion) * self.batch / 1e6

    def of_prompt(self, tokens: float, shared: int = 0) -> float:
        """The cost of a million prompts of `tokens` tokens, of which the first `shared` are cached if long enough."""
        prefix = min(shared, tokens) if shared >= self.minimum else 0.0
        cached_price = self.prompt / 10 if self.cached is None else self.cached
        return ((tokens - prefix) * self.prompt + prefix * cached_price) * self.batch


class FailureKind(StrEnum):
    """Why a call failed after all retries."""

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
    """Incomplete JSON, no choices, or an answer that violates the constraint."""
    UNANSWERED = "unanswered"
    """The run ended or the batch expired before the answer came."""


OUTAGES = frozenset({FailureKind.TIMEOUT, FailureKind.CONNECTION, FailureKind.RATE_LIMIT, FailureKind.SERVER})
"""Failures of the server rather than of one request. They may pass after a while."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call without an answer. It never becomes a score or an empty string."""

    kind: FailureKind
    message: str
    usage: Usage = Usage()
    """Resources used despite the failure."""


@dataclass(frozen=True, slots=True)
class Completion:
    """Text that a model wrote."""

    text: str
    truncated: bool
    """Cut off at `max_tokens`."""
    usage: Usage


@dataclass(frozen=True, slots=True)
class Choice:
    """A model's decision between K options."""

    index: int
    """The chosen option."""
    scores: tuple[float, ...] | None
    """`log P(option + end | chat)`, one per option, in nats; `None` if the engine gives no likelihoods."""
    usage: Usage

    @classmethod
    def likeliest(cls, scores: Sequence[float], usage: Usage) -> "Choice":
        """Choose the option with the highest score, the first if tied."""
        return cls(max(range(len(scores)), key=scores.__getitem__), tuple(scores), usage)


@dataclass(frozen=True)
class ModelCard:
    """Static facts about a model."""

    reference: str
    """The user's name for it: `smol`, `hf:Qwen/Qwen2.5-7B-Instruct`, `openai:gpt-4.1-mini`."""
    revision: str
    """Identifies its behaviour: a hash of weights and chat template, or the endpoint and model name."""
    context_length: int
    """Most tokens in prompt and answer together."""
    gives_scores: bool
    """`choose` returns likelihoods (needed for calibration and probabilities)."""
    exact_tokens: bool = True
    """`count_tokens` uses the model's own tokenizer rather than an estimate."""
    contrasts: bool = False
    """`generate` supports `Sampling.contrast`."""
    batches: bool = True
    """It computes the chats of a call together, and calls take turns. A server answers each chat by itself."""
    concurrency: int = 1
    """How many threads may call it at once."""
    price: Price | None = None
    """`None` if unknown, which is not zero."""
    context_assumed: bool = False
    """`context_length` is a guess: neither the model nor the user stated it."""


Answer = TypeVar("Answer", Completion, Choice)


def clocked(answers: Sequence[Answer | Failure], seconds: float) -> list[Answer | Failure]:
    """Divide a batch's time equally among its answers."""
    share = seconds / max(len(answers), 1)
    return [replace(answer, usage=replace(answer.usage, seconds=share)) for answer in answers]


def check_options(options: Sequence[str]) -> None:
    """Raise `ConfigError` unless these are two or more different, non-empty options."""
    if len(options) < 2 or len(set(options)) < len(options) or not all(options):
        raise ConfigError(f"choose needs two or more different, non-empty options; got {list(options)}.")


@runtime_checkable
class LanguageModel(Protocol):
    """An engine: `ScriptedModel`, `LocalModel`, `HttpModel`, and the wrappers `Cached`, `Batched`, `Metered`, `Priced`.

    The contract, which `tests/contracts/test_models.py` checks for every implementation:
    one result per chat, in order; equal input gives equal output (for `temperature=0` or an equal seed); inputs are not
    changed; a chat that fails gives a `Failure` in its place and does not affect other chats; an empty batch gives an
    empty list; `choose` needs two or more different, non-empty options.
    """

    @property
    def card(self) -> ModelCard:
        """Constant for the life of the object."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without special tokens."""
        ...

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """Write an answer to each chat. Equal chats under `temperature > 0` get different samples."""
        ...

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """Choose an option for each chat. A common prefix of the chats in a batch is computed only once.

        Raises `ConfigError` for invalid options, `UnsupportedError` if the engine can neither compare likelihoods nor
        enforce a choice. An empty batch finds that out before there is a text.
        """
        ...

    def close(self) -> None:
        """Release connections and files. May be called twice."""
        ...


Models = Callable[[str], LanguageModel]
"""Opens the model with the given reference. The caller closes it."""
