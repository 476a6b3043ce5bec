"""How fast a follower labels: `choose` beside the usual ways of doing it with transformers, in one run on one model.

    python benchmarks/follower.py [--data texts.txt] [--queries 200] [--batch 16] [--repeats 2]

a  `TransformersModel.choose`: exact likelihood of every label, shared beginning once, packed rows
b  transformers `generate` of every full prompt, left-padded batches in order of length
c  the same one by one, on the first prompts only, extrapolated
"""

import argparse
import random
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from promptmii.models.smol import smol_folder

from promptmii.models.base import Chat, Choice
from promptmii.models.hf.model import TransformersModel
from promptmii.models.references import Weights

LABELS = ["sports", "politics", "business", "science", "travel", "health"]
VOCABULARY = (
    "the a of and to in for with on as at by from that this which were was had has market team players goal "
    "season vote party minister law court company shares profit sales growth study cells energy theory space "
    "telescope flight hotel beach museum train doctor patients vaccine diet sleep heart reported announced won "
    "lost found opened closed before after during against between new old large small early late quickly slowly "
    "again never often although because however meanwhile"
)


def texts(count: int, tokens: Callable[[str], int], source: Path | None) -> list[str]:
    """`count` texts of 20 to 60 tokens: the lines of a file cut to length, or words drawn at random."""
    draw = random.Random(0)
    lines = source.read_text("utf-8").splitlines() if source else []
    found: list[str] = []
    for i in range(count):
        words = lines[i % len(lines)].split() if lines else draw.choices(VOCABULARY.split(), k=80)
        while len(words) > 1 and tokens(" ".join(words)) > 20 + i * 41 // count:
            words.pop()
        found.append(" ".join(words))
    draw.shuffle(found)
    return found


def best(repeats: int, run: Callable[[], Any]) -> tuple[float, Any]:
    """The shortest of several runs, because other programs share the machine."""
    seconds, result = float("inf"), None
    for _ in range(repeats):
        started = perf_counter()
        result = run()
        seconds = min(seconds, perf_counter() - started)
    return seconds, result


def matmul_rate(dtype: torch.dtype) -> float:
    """Floating-point operations per second of one large matrix product in the engine's number format."""
    left, right = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    seconds, _ = best(8, lambda: left @ right)
    return 2 * 2048**3 / seconds


def costs(model: TransformersModel) -> tuple[int, int, float]:
    """Weights of the linear layers, values of a query vector over all layers, and operations of one token's logits."""
    config = model.model.config
    linear = sum(
        p.numel()
        for name, p in model.model.named_parameters()
        if p.dim() == 2 and "embed" not in name and "lm_head" not in name
    )
    width = config.num_attention_heads * config.head_dim * config.num_hidden_layers
    return linear, width, 2.0 * config.hidden_size * config.vocab_size


def needed_flops(model: TransformersModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> float:
    """The least work of `a`: shared prefix, rest of each prompt, label tree and needed logits, once each."""
    linear, width, logits = costs(model)
    shared = next(i for i in range(min(map(len, prompts))) if len({prompt[i] for prompt in prompts}) > 1)
    nodes = len({tuple(answer[:i]) for answer in answers for i in range(1, len(answer) + 1)})
    total = 2.0 * linear * shared + 4.0 * width * shared * shared / 2
    for prompt in prompts:
        rest = len(prompt) - shared
        total += 2.0 * linear * (rest + nodes) + 4.0 * width * (
            shared * (rest + nodes) + rest * rest / 2 + nodes * (rest + 1)
        )
        total += logits * (1 + nodes)
    return total


def full_flops(model: TransformersModel, prompts: Sequence[Sequence[int]]) -> float:
    """The least work of `b` and `c`: every prompt in full and its last logits, without what is generated after it."""
    linear, width, logits = costs(model)
    return sum(2.0 * linear * len(prompt) + 2.0 * width * len(prompt) ** 2 + logits for prompt in prompts)


def usual(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], batch: int) -> None:
    """Batched generation of ten tokens, the way most programs do it."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for first in range(0, len(order), batch):
        rows = [list(prompts[i]) for i in order[first : first + batch]]
        inputs = tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            model.generate(**inputs, max_new_tokens=10, do_sample=False, pad_token_id=tokenizer.eos_token_id)


def reference(model: Any, prompt: Sequence[int], answers: Sequence[Sequence[int]], end: int) -> int:
    """The label of a full forward pass per label, unbatched."""
    scores: list[float] = []
    for answer in answers:
        tail = torch.tensor([*answer, end])
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *answer]]), logits_to_keep=len(tail)).logits[0].float()
        scores.append(float(logits.log_softmax(-1).gather(1, tail[:, None]).sum()))
    return max(range(len(scores)), key=scores.__getitem__)


def main() -> None:
    """Run all three and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a text file with one query a line; without it, random words")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16, help="rows per batch of the usual way")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only-choose", action="store_true")
    given = parser.parse_args()
    from transformers import AutoModelForCausalLM

    ours = TransformersModel.load("smol", Weights("smol", str(smol_folder(install=True))))
    tokenizer, dtype = ours.tokenizer, ours.model.dtype
    plain: Any = AutoModelForCausalLM.from_pretrained(
        str(smol_folder()), dtype=dtype, attn_implementation="sdpa"
    ).eval()
    instruction = f"Label each text as one of: {', '.join(LABELS)}. Answer with the label alone. "
    draw = random.Random(1)
    while ours.count_tokens([instruction])[0] < 300:
        instruction += draw.choice(VOCABULARY.split()) + " "
    queries = texts(given.queries, lambda text: ours.count_tokens([text])[0], given.data)
    chats: list[Chat] = [
        [{"role": "system", "content": instruction}, {"role": "user", "content": query}] for query in queries
    ]
    prompts = ours.prompts(chats)
    answers = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in LABELS]
    lengths = sorted(ours.count_tokens(queries))
    print(
        f"{len(chats)} queries of {lengths[0]} to {lengths[-1]} tokens, "
        f"instruction of {ours.count_tokens([instruction])[0]}, {dtype}"
    )
    print(f"{torch.get_num_threads()} threads")

    # A fresh engine for each run, so that none finds its prefix remembered.
    def choose() -> Any:
        return TransformersModel("smol", ours.model, tokenizer, "benchmark").choose(chats, LABELS)

    rates = [matmul_rate(dtype)]
    a, chosen = best(given.repeats, choose)
    rates.append(matmul_rate(dtype))
    flops = needed_flops(ours, prompts, answers)
    share = flops / a / max(rates)
    print(f"a  choose            {len(chats) / a:7.2f} queries/s   {a:6.1f} s")
    print(f"   {flops / 1e9:.0f} Gflop needed at {flops / a / 1e9:.1f} Gflop/s")
    print(f"   {share:.0%} of the {max(rates) / 1e9:.1f} Gflop/s of a {dtype} matmul in this run")
    print(f"   peak memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if given.only_choose:
        return
    b, _ = best(given.repeats, lambda: usual(plain, tokenizer, prompts, given.batch))
    print(f"b  generate, batched {len(chats) / b:7.2f} queries/s   {b:6.1f} s   a/b = {b / a:.1f}")
    full = full_flops(ours, prompts)
    print(
        f"   {full / 1e9:.0f} Gflop needed at {full / b / 1e9:.1f} Gflop/s: "
        f"{full / flops:.1f} times the arithmetic of a,"
    )
    print(f"   so a at the whole matmul rate would make a/b = {b * max(rates) / flops:.1f}")
    few = prompts[:10]
    c, _ = best(given.repeats, lambda: usual(plain, tokenizer, few, 1))
    c *= len(prompts) / len(few)
    print(
        f"c  generate, single  {len(chats) / c:7.2f} queries/s   {c:6.1f} s   a/c = {c / a:.1f}   "
        f"({len(few)} prompts, extrapolated)"
    )
    sample = range(0, len(prompts), max(1, len(prompts) // 40))
    agreed = [
        isinstance(chosen[i], Choice)
        and chosen[i].index == reference(plain, prompts[i], answers, tokenizer.eos_token_id)
        for i in sample
    ]
    print(f"   labels equal to unbatched likelihood: {sum(agreed)} of {len(agreed)}")
    print(f"   peak memory of the whole run {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
