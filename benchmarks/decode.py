"""How fast instructions are written: promptmii's engines, llama.cpp's own server and transformers' `generate`.

    python benchmarks/decode.py [--model qwen] [--prompt 600] [--tokens 64] [--rows 1] [--only a,b]

a   our llama.cpp engine             b   llama.cpp's own server, one chat completion per row
a2  our transformers engine          c   transformers' `generate`, one batch

Greedy decoding; the time includes reading the prompt. Compare only numbers from the same run.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from importlib import import_module
from time import perf_counter
from typing import Any

from follower import VOCABULARY
from promptmii import load_model
from promptmii.models.base import Chat, Completion, Sampling
from promptmii.models.embedded import embedded_file

Write = Callable[[Sequence[Chat]], int]
"""Writes an answer to each chat, and returns the number of tokens."""


def ours(reference: str, tokens: int) -> Write:
    """An engine of this package."""
    model = load_model(reference)

    def write(chats: Sequence[Chat]) -> int:
        answers = model.generate(chats, Sampling(tokens))
        return sum(answer.usage.completion_tokens or 0 for answer in answers if isinstance(answer, Completion))

    return write


def server(name: str, tokens: int) -> Write:
    """llama.cpp's own server."""
    xllamacpp: Any = import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(embedded_file(name))
    params.n_ctx, params.n_parallel, params.verbosity, params.fit_params = 4096, 1, 0, False
    running = xllamacpp.Server(params)

    def write(chats: Sequence[Chat]) -> int:
        asked = [{"messages": list(chat), "max_tokens": tokens, "temperature": 0} for chat in chats]
        return sum(running.handle_chat_completions(one)["usage"]["completion_tokens"] for one in asked)

    return write


def transformers(name: str, tokens: int) -> Write:
    """transformers' `generate`."""
    import torch

    model: Any = load_model(f"hf:{name}")

    def write(chats: Sequence[Chat]) -> int:
        inputs = model.tokenizer.pad({"input_ids": model.prompts(chats)}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            made = model.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        return int(made[:, inputs["input_ids"].shape[1] :].numel())

    return write


def main() -> None:
    """Run them one after another, and print their rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen", help="an embedded model")
    parser.add_argument("--prompt", type=int, default=600, help="words of the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to write")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--only", default="a,b,a2,c")
    given = parser.parse_args()
    draw = random.Random(0)
    words = [" ".join(draw.choices(VOCABULARY.split(), k=given.prompt)) for _ in range(given.rows)]
    chats: list[Chat] = [[{"role": "user", "content": f"Write a story with these words: {text}"}] for text in words]
    ways: dict[str, Callable[[], Write]] = {
        "a": lambda: ours(given.model, given.tokens),
        "b": lambda: server(given.model, given.tokens),
        "a2": lambda: ours(f"hf:{given.model}", given.tokens),
        "c": lambda: transformers(given.model, given.tokens),
    }
    for way in given.only.split(","):
        write = ways[way]()
        started = perf_counter()
        wrote = write(chats)
        seconds = perf_counter() - started
        print(f"{way:<3} {wrote / seconds:6.1f} tokens/s   {wrote} tokens in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
