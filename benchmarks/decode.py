"""How fast instructions are written: promptmii's decoding beside transformers' `generate`, in one run on one model.

    python benchmarks/decode.py [--prompt 1500] [--tokens 64] [--rows 1 8]

Greedy; the prefill is part of the time. With several rows the prompts share nothing but
the template, as the induction prompts of several tasks do.
"""

import argparse
import random
from time import perf_counter
from typing import Any

import torch
from promptmii.models.smol import smol_folder
from transformers import AutoModelForCausalLM

from follower import VOCABULARY
from promptmii.models.base import Chat, Completion, Sampling
from promptmii.models.hf.model import TransformersModel
from promptmii.models.references import Weights


def main() -> None:
    """Run both and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=1500, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to write")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8])
    given = parser.parse_args()
    folder = str(smol_folder(install=True))
    ours = TransformersModel.load("smol", Weights("smol", folder))
    plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=ours.model.dtype).eval()
    tokenizer = ours.tokenizer
    draw = random.Random(0)
    for rows in given.rows:
        words = [" ".join(draw.choices(VOCABULARY.split(), k=given.prompt)) for _ in range(rows)]
        chats: list[Chat] = [[{"role": "user", "content": f"Go on with this list of words: {text}"}] for text in words]
        sampling = Sampling(given.tokens)
        inputs = tokenizer.pad({"input_ids": ours.prompts(chats)}, padding_side="left", return_tensors="pt")
        start = inputs["input_ids"].shape[1]

        def transformers(inputs: Any = inputs) -> Any:
            with torch.inference_mode():
                return plain.generate(
                    **inputs, max_new_tokens=given.tokens, do_sample=False, pad_token_id=tokenizer.eos_token_id
                )

        def promptmii(chats: list[Chat] = chats, sampling: Sampling = sampling) -> Any:
            # A fresh engine, so that none finds its prefix remembered.
            return TransformersModel("smol", ours.model, tokenizer, "benchmark").generate(chats, sampling)

        seconds = {promptmii: float("inf"), transformers: float("inf")}
        for _ in range(given.repeats):  # in turns, because other programs share the machine
            for run in seconds:
                started = perf_counter()
                result = run()
                seconds[run] = min(seconds[run], perf_counter() - started)
        a, b = seconds.values()
        answers = [answer for answer in promptmii() if isinstance(answer, Completion)]
        wrote = sum(answer.usage.completion_tokens for answer in answers)
        texts = [text.strip() for text in tokenizer.batch_decode(result[:, start:], skip_special_tokens=True)]
        equal = sum(answer.text.strip() == text for answer, text in zip(answers, texts, strict=True))
        print(
            f"{rows} row(s) of {start} tokens, {ours.model.dtype}, {torch.get_num_threads()} threads; "
            f"equal texts: {equal} of {rows}"
        )
        print(f"a  promptmii     {wrote / a:7.1f} tokens/s   {a:6.1f} s")
        print(f"b  transformers  {wrote / b:7.1f} tokens/s   {b:6.1f} s   b/a = {b / a:.2f}", flush=True)


if __name__ == "__main__":
    main()
