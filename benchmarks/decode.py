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
from follower import VOCABULARY
from transformers import AutoModelForCausalLM

from promptmii.models.base import Chat, Completion, Sampling
from promptmii.models.local import LocalModel
from promptmii.models.smol import smol_folder


def main() -> None:
    """Run both and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=1500, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to write")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8])
    given = parser.parse_args()
    folder = str(smol_folder(install=True))
    ours = LocalModel.load("smol", folder)
    plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=ours.model.dtype).eval()
    tokenizer = ours.tokenizer
    draw = random.Random(0)
    for rows in given.rows:
        chats: list[Chat] = [
            [{"role": "user", "content": f"Go on with this list of words: {' '.join(draw.choices(VOCABULARY.split(), k=given.prompt))}"}]
            for _ in range(rows)
        ]
        started = perf_counter()
        answers = [answer for answer in ours.generate(chats, Sampling(given.tokens)) if isinstance(answer, Completion)]
        a, wrote = perf_counter() - started, sum(answer.usage.completion_tokens for answer in answers)
        inputs = tokenizer.pad({"input_ids": ours.prompts(chats)}, padding_side="left", return_tensors="pt")
        started = perf_counter()
        with torch.inference_mode():
            out = plain.generate(**inputs, max_new_tokens=given.tokens, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        b, usual = perf_counter() - started, int((out[:, inputs["input_ids"].shape[1] :] != tokenizer.eos_token_id).sum())
        texts = [text.strip() for text in tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)]
        equal = sum(answer.text.strip() == text for answer, text in zip(answers, texts, strict=True))
        print(f"{rows} row(s) of {inputs['input_ids'].shape[1]} tokens, {ours.model.dtype}, {torch.get_num_threads()} threads")
        print(f"a  promptmii     {wrote / a:7.1f} tokens/s   {a:6.1f} s")
        print(
            f"b  transformers  {usual / b:7.1f} tokens/s   {b:6.1f} s   a/b = {wrote / a / (usual / b):.2f}   equal texts: {equal} of {rows}"
        )


if __name__ == "__main__":
    main()
