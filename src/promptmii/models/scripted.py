"""A public test double: a `LanguageModel` whose answers you write. It loads nothing, and nothing is random.

    model = ScriptedModel(reply=["be kind"], score=lambda chat, option: float(option in chat[-1]["content"]))

It is the only fake in promptmii; all code that uses the model runs for real.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from promptmii.errors import UnsupportedError
from promptmii.models.base import (
    Chat,
    Choice,
    Completion,
    Failure,
    LanguageModel,
    ModelCard,
    Sampling,
    Usage,
    check_options,
)


class ScriptedModel(LanguageModel):
    """Answers from functions, or from a list that starts over with every batch."""

    def __init__(
        self,
        reply: Callable[[Chat, int], str | Failure] | Sequence[str | Failure] = ("",),
        score: Callable[[Chat, str], float | Failure] | None = None,
        *,
        name: str = "scripted",
        context_length: int = 8192,
        gives_scores: bool = True,
    ) -> None:
        """`reply(chat, i)` writes the answer to the i-th chat of a batch; a sequence is repeated as needed.

        `score(chat, option)` returns the log-likelihood of an option, or a `Failure` for the chat. Without it, `choose`
        is unsupported.
        """
        self._reply = reply
        self._score = score
        self.calls: list[Chat] = []
        """All chats sent so far, in order, for assertions."""
        self._card = ModelCard(name, "scripted", context_length, gives_scores=gives_scores and score is not None)

    @property
    def card(self) -> ModelCard:
        return self._card

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count words as tokens."""
        return [len(text.split()) for text in texts]

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """Answers are cut after `max_tokens` words."""
        return [self._write(chat, i, sampling) for i, chat in enumerate(chats)]

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        if self._score is None:
            raise UnsupportedError("This ScriptedModel has no score function; give one to use `choose`.")
        check_options(options)
        return [self._decide(self._score, chat, options) for chat in chats]

    def close(self) -> None:
        """There is nothing to release."""

    def _write(self, chat: Chat, i: int, sampling: Sampling) -> Completion | Failure:
        self.calls.append(chat)
        answer = self._reply(chat, i) if callable(self._reply) else self._reply[i % len(self._reply)]
        if isinstance(answer, Failure):
            return answer
        words = answer.split(" ")
        written = words[: sampling.max_tokens]
        return Completion(" ".join(written), len(written) < len(words), self._usage(chat, len(written)))

    def _decide(
        self, score: Callable[[Chat, str], float | Failure], chat: Chat, options: Sequence[str]
    ) -> Choice | Failure:
        self.calls.append(chat)
        scores: list[float] = []
        for option in options:
            value = score(chat, option)
            if isinstance(value, Failure):
                return value
            scores.append(value)
        choice = Choice.likeliest(scores, self._usage(chat, 0))
        return choice if self._card.gives_scores else replace(choice, scores=None)

    def _usage(self, chat: Chat, written: int) -> Usage:
        return Usage(
            calls=1,
            prompt_tokens=sum(self.count_tokens([message["content"] for message in chat])),
            completion_tokens=written,
        )
