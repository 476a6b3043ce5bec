"""A toy writer and follower: it matches the words of the text with those of the instruction."""

import re
import time
from collections.abc import Sequence

from promptmii import ScriptedModel
from promptmii.config import Endpoint
from promptmii.models.base import Chat, Choice, Completion, Failure, Sampling

RULES = """Tickets of a shop. Say what the customer wants.
- account: login, password, email, profile, name, phone.
- billing: a charge, an amount, an invoice, a card, VAT, paid twice.
- defect: broken, crack, noise, stopped, loose, slow.
- delivery: a parcel, courier, shipping, tracking, address, arrive, late.
- product question: does it, can I, is there, which size.
- refund: money back, return, send back, refund, cancel the order."""


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{3,}", text.lower()))


def score(chat: Chat, option: str) -> float:
    """High if the lines of the prompt that name the option share words with the text."""
    lines = [line for line in chat[-1]["content"].splitlines() if line.strip()]
    text = words(lines[-1])
    known = set[str]().union(*(words(line) for line in lines[:-1] if line.startswith(f"- {option}:")))
    return 1.6 * len(text & (known - words(option))) + 2.0 * len(text & words(option)) + len(option) % 3 * 0.3


class Toy(ScriptedModel):
    """A model with a delay that the test sets."""

    def __init__(self, name: str, delay: float, reply: str = RULES) -> None:
        super().__init__(reply=[reply], score=score, name=name, context_length=100_000)
        self.delay = delay

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """See `LanguageModel`."""
        time.sleep(self.delay * 10)
        return super().generate(chats, sampling)

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """See `LanguageModel`."""
        time.sleep(self.delay * len(chats))
        return super().choose(chats, options)


class Models:
    """Opens a toy for every reference, and counts them."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.loaded: list[str] = []

    def __call__(self, endpoint: Endpoint, reference: str) -> Toy:  # noqa: ARG002
        self.loaded.append(reference)
        return Toy(reference, self.delay)
