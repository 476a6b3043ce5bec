"""A toy world to train in: tasks with one keyword per label, a tiny random generator and an obedient follower."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from promptmii import ScriptedModel
from promptmii.follower import Follower
from promptmii.inducers import Writer
from promptmii.models.base import Chat, Failure, FailureKind, LanguageModel
from promptmii.train.settings import TrainSettings
from promptmii.train.visits import style_of

WORLD = {
    "films": {"good": "lovely", "bad": "waste"},
    "plays": {"warm": "moving", "cold": "stiff"},
    "songs": {"loud": "drums", "calm": "harp"},
}
FILLER = ("red", "blue", "green", "one", "two", "three", "late", "soon")
KEYWORDS = {word: label for words in WORLD.values() for label, word in words.items()}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


def write_tasks(folder: Path, rows: int = 120) -> Path:
    """Write a file per task, with rows of filler words around a keyword."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in WORLD.items():
        stream = random.Random(name)
        examples = [
            {"text": " ".join([*stream.choices(FILLER, k=3), word, str(number)]), "label": label}
            for number in range(rows // 2)
            for label, word in words.items()
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in examples), encoding="utf-8")
    return folder


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a JSONL file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_model(folder: Path, seed: int = 0) -> Path:
    """Save a tiny Llama with random weights, and a tokenizer trained on the world's words."""
    word_level = Tokenizer(models.WordLevel(unk_token="<unk>"))
    word_level.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<unk>", "<|im_start|>", "<|im_end|>"]
    words = [*FILLER, *KEYWORDS, *KEYWORDS.values()]
    word_level.train_from_iterator([" ".join(words)], trainers.WordLevelTrainer(special_tokens=special))
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=word_level, eos_token="<|im_end|>", unk_token="<unk>")
    tokenizer.chat_template = CHATML
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=None,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def obedient(**options: Any) -> Follower:
    """A follower that recognises keywords only if the instruction names them, and guesses otherwise."""

    def score(chat: Chat, option: str) -> float:
        instruction, _, text = chat[-1]["content"].partition("Classify the input")
        words = set(instruction.split()) & set(text.split("Input:")[-1].split())
        recognised = [word for word in KEYWORDS if word in words]
        if recognised:
            return float(KEYWORDS[recognised[0]] == option)
        return hashlib.sha256((text + option).encode()).digest()[0] / 1024

    return Follower(ScriptedModel(score=score, name="obedient", **options))


def failing(kind: FailureKind, after: int = 0) -> Follower:
    """A follower that fails after this number of calls."""
    inner = obedient().model
    calls = [0]

    def score(chat: Chat, option: str) -> float | Failure:
        calls[0] += 1
        if calls[0] > after:
            return Failure(kind, "gone")
        return inner._score(chat, option)  # type: ignore[attr-defined]

    return Follower(ScriptedModel(score=score, name="failing"))


def settings(world: Path, **changes: Any) -> TrainSettings:
    """Settings for a run of a few seconds, in a folder with the results of `write_tasks` and `write_model`."""
    defaults: dict[str, Any] = {
        "model": f"hf:{world / 'tiny'}",
        "tasks": (str(world / "tasks"),),
        "schedule": {4: 1.0, 8: 0.5},
        "query": 12,
        "prompts": 2,
        "passes": 4,
        "longest_prompt": 400,
        "reward": {"mode": "choose"},
        "validation": {"tasks": ("songs",), "every": 2, "n": (4,), "rows": 24},
    }
    trl = {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 8,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "max_steps": 4,
        "save_steps": 2,
        "activation_checkpointing": False,
    }
    return TrainSettings.of(**{**defaults, **changes, "trl": trl | changes.get("trl", {})})


def writer_of(settings: TrainSettings, model: LanguageModel | None = None) -> Writer:
    """A writer that prompts the model as a run with these settings prompts its generator."""
    return Writer(model or ScriptedModel(), style_of(settings), settings.budget)
