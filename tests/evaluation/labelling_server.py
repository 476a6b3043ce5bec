"""A test server that labels by the words of the input and writes instructions."""

import re
from typing import Any

from tests.models.faulty_server import FaultyServer

WORDS = {
    "delivery": ("parcel", "delivery", "courier"),
    "refund": ("refund", "money", "charged"),
    "login": ("password", "login", "account"),
}


class LabellingServer(FaultyServer):
    """Answers with the label whose words the input contains, or one time in seven with another."""

    def _completion(self, step: str, body: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        prompt = body["messages"][-1]["content"]
        match = re.search(r"Input: (.*)\Z", prompt)
        text = (
            self._label(match[1])
            if match and "Answer with exactly one" in prompt
            else f"Tickets of a shop, version {body['seed']}."
        )
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())}
        return {
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": usage,
        }

    def _label(self, text: str) -> str:
        if len(text) % 7 == 0:
            return "refund"
        return next((label for label, words in WORDS.items() if any(word in text for word in words)), "no idea")
