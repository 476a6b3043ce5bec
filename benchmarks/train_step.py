"""Time one step of reinforcement learning, by phase, against the straightforward way.

That is plain TRL with a reward function that generates the answer to each query in full. Tasks, prompts, weights and
their precision, adapters, and the numbers of drafts and queries are the same. `--rank 0` trains all weights.

    python benchmarks/train_step.py [--steps 1] [--prompts 1] [--generations 6] [--query 12] [--length 120]
    python benchmarks/train_step.py --prompts 4 --alone
"""

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl.trainer.grpo_trainer import GRPOTrainer

from promptmii import metrics
from promptmii.config import LoraSettings
from promptmii.inducers import Writer
from promptmii.instruction import Instruction
from promptmii.models import load_model
from promptmii.models.hf.convert import converted
from promptmii.models.hf.model import TransformersModel, quiet
from promptmii.parse import LabelParser
from promptmii.train.rl.plan import grpo_plan
from promptmii.train.rl.run import train
from promptmii.train.settings import TrainSettings
from promptmii.train.tasks import read_split
from promptmii.train.visits import Visit, Visits, style_of

PHASES = ("generate", "reward", "update", "step")
PLAIN = "TRL, each query in full"


def given(args: argparse.Namespace, mode: str) -> TrainSettings:
    drafts = args.prompts * args.generations
    trl = {
        "num_generations": args.generations,
        "per_device_train_batch_size": drafts,
        "max_completion_length": args.length,
        "max_steps": args.steps + 1,
        "save_steps": 1000,
        "activation_checkpointing": False,
    }
    return TrainSettings.of(
        model=f"hf:{args.model}",
        lora={"rank": args.rank} if args.rank else None,
        tasks=("suite",),
        schedule={10: 1.0},
        query=args.query,
        prompts=args.prompts,
        longest_prompt=1536,
        reward={"mode": mode, "followers": (f"hf:{args.model}",)},
        validation={"share": 0.0},
        trl=trl,
    )


def ours(settings: TrainSettings, folder: Path) -> dict[str, float]:
    """Seconds by phase, without the first step."""
    train(settings, folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line.get("step", 0) > 1 and "seconds/step" in line]
    return {phase: fmean(line[f"seconds/{phase}"] for line in steps) for phase in PHASES} | {
        "length": fmean(s["length"] for s in steps)
    }


class Plain:
    """The obvious reward function."""

    def __init__(self, visits: Visits, follower: Any, tokenizer: Any) -> None:
        self.visits, self.follower, self.tokenizer = visits, follower, tokenizer
        self.seconds: list[float] = []
        self.__name__ = "plain"

    def __call__(self, completions: list[Any], visit: list[int], **_: Any) -> list[float]:
        started = perf_counter()
        rewards = [self._reward(self.visits.visit(n), c[0]["content"]) for n, c in zip(visit, completions, strict=True)]
        self.seconds.append(perf_counter() - started)
        return rewards

    def _reward(self, visit: Visit, text: str) -> float:
        episode = visit.episode
        instruction = Instruction(text=text.strip(), labels=episode.support.labels, method="mii")
        chats = [instruction.messages(row.text) for row in episode.query]
        batch = self.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, return_tensors="pt", padding=True, return_dict=True
        )
        with torch.inference_mode():
            out = self.follower.generate(**batch, max_new_tokens=10, do_sample=False)
        parser = LabelParser(episode.support.labels)
        answers = self.tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return metrics.macro_f1([row.label for row in episode.query], [parser(answer)[0] for answer in answers])


class Timed(GRPOTrainer):
    """TRL's own trainer, which also times writing and the whole step."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.spent: dict[str, list[float]] = {"generate": [], "step": []}
        self.lengths: list[float] = []

    def _generate_single_turn(self, *args: Any, **options: Any) -> Any:
        started = perf_counter()
        found = super()._generate_single_turn(*args, **options)
        self.spent["generate"].append(perf_counter() - started)
        self.lengths.append(fmean(len(ids) for ids in found[0]))
        return found

    def training_step(self, *args: Any, **options: Any) -> Any:
        started = perf_counter()
        found = super().training_step(*args, **options)
        self.spent["step"].append(perf_counter() - started)
        return found


def straightforward(settings: TrainSettings, name: str, folder: Path) -> dict[str, float]:
    """The same run with plain TRL."""
    frozen = opened(settings.model)
    visits = visits_of(settings, frozen)
    batches = grpo_plan(settings).batches(10)
    source = str(converted(name))
    with quiet():
        tokenizer: Any = AutoTokenizer.from_pretrained(source, padding_side="left")
        dtype = frozen.model.dtype if settings.lora else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    reward = Plain(visits, frozen.model, tokenizer)
    rows = [{"visit": n, "prompt": [dict(m) for m in visits.visit(n).chat]} for n in range(batches.visits)]
    trainer = Timed(
        model=model,
        reward_funcs=[reward],
        args=grpo_plan(settings).config(folder, cpu=True),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapter(settings.lora) if settings.lora else None,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    generate, step, judge = (
        fmean(part[1:]) for part in (trainer.spent["generate"], trainer.spent["step"], reward.seconds)
    )
    return {
        "generate": generate,
        "reward": judge,
        "update": step - generate - judge,
        "step": step,
        "length": fmean(trainer.lengths[1:]),
    }


def adapter(settings: LoraSettings) -> LoraConfig:
    """The same adapter in peft's own layers."""
    return LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear", task_type="CAUSAL_LM")


def opened(reference: str) -> TransformersModel:
    model = load_model(reference)
    assert isinstance(model, TransformersModel)
    return model


def visits_of(settings: TrainSettings, model: TransformersModel) -> Visits:
    writer = Writer(model, style_of(settings), settings.budget)
    return Visits(read_split(settings).train, settings, writer)


def useful(settings: TrainSettings, length: float) -> float:
    """Seconds of the step as plain matrix products: each distinct token once, and three times to learn."""
    model = opened(settings.model)
    drawn = visits_of(settings, model)
    visits = [drawn.visit(number) for number in range(12)]
    prompts = fmean(model.count_tokens([visit.chat[0]["content"] for visit in visits]))
    rows = fmean(model.count_tokens([row.text for visit in visits for row in visit.episode.query])) + 12
    drafts = settings.prompts * settings.trl["num_generations"]
    written = settings.prompts * prompts + drafts * length
    read = drafts * (length + 40 + settings.query * rows)
    parameters = sum(p.numel() for p in model.model.parameters())
    return 2 * parameters * (written + read + 3 * written) / _peak(model.model.dtype)


def _peak(dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product."""
    a, b = torch.randn(1024, 1024, dtype=dtype), torch.randn(1024, 1024, dtype=dtype)
    best = 1e9
    for _ in range(8):
        started = perf_counter()
        torch.matmul(a, b)
        best = min(best, perf_counter() - started)
    return 2 * 1024**3 / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="qwen", help="an embedded model that answers with labels")
    for name, value in {"rank": 8, "steps": 1, "prompts": 1, "generations": 6, "query": 12, "length": 120}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--alone", action="store_true", help="measure only promptmii, with likelihoods")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        found = {"promptmii, choose": ours(given(args, "choose"), Path(scratch) / "choose")}
        if not args.alone:
            found["promptmii, generate"] = ours(given(args, "generate"), Path(scratch) / "generate")
            found[PLAIN] = straightforward(given(args, "generate"), args.model, Path(scratch) / "plain")
    slowest = found[PLAIN if PLAIN in found else "promptmii, choose"]["step"]
    drafts = args.prompts * args.generations
    title = f"A step on {args.model}, in seconds: {args.prompts} prompts x {args.generations} drafts = {drafts}"
    title += f", {args.query} queries each"
    table = Table("way", *PHASES, "tokens/draft", "useful", "times faster", title=title, title_justify="left")
    for name, seconds in found.items():
        share = useful(given(args, "generate"), seconds["length"]) / seconds["step"]
        numbers = [f"{seconds[phase]:.2f}" for phase in PHASES]
        table.add_row(name, *numbers, f"{seconds['length']:.0f}", f"{share:.0%}", f"{slowest / seconds['step']:.1f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
