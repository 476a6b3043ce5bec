"""Any transformers causal language model on this machine, made fast for what promptmii does with it.

`choose` computes the common beginning of a batch once and everything else in packed rows (`models/packing.py`).
`generate` decodes with its own loop over the same rows: equal chats share one prefill, finished rows leave the batch.
"""

import hashlib
import json
import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from promptmii.errors import ConfigError, MissingDependencyError, UnknownModelError
from promptmii.models.base import (
    Chat,
    Choice,
    Completion,
    Failure,
    FailureKind,
    ModelCard,
    Sampling,
    Usage,
    check_options,
    clocked,
)
from promptmii.models.references import Weights
from promptmii.models.threads import in_caller

try:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from promptmii.models.decoding import Draw
    from promptmii.models.engines import engine_for
    from promptmii.models.rendering import ChatFormat
except ImportError as error:
    raise MissingDependencyError("Local models (smol, hf:)", "local") from error

SAMPLES = 1024
"""Values of each tensor that enter the revision: enough that no fine-tune goes unseen, few enough to take no time."""


class LocalModel:
    """A causal language model in this process. Calls from several threads take turns."""

    def __init__(self, reference: str, model: Any, tokenizer: Any, revision: str) -> None:
        """`model` and `tokenizer` as transformers loads them; the model's attention is set to what serves it best."""
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._format = ChatFormat(tokenizer, model.generation_config.eos_token_id)
        self._engine = engine_for(model)
        context = int(model.config.max_position_embeddings)
        self._card = ModelCard(reference, revision, context, gives_scores=True)

    @classmethod
    def load(cls, reference: str, weights: Weights) -> "LocalModel":
        """Load onto the device that is named, or the best of this machine. Raises `UnknownModelError`."""
        return in_caller(lambda: cls._load(reference, weights))

    @classmethod
    def _load(cls, reference: str, weights: Weights) -> "LocalModel":
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        device = torch.device(weights.device or best)
        model, tokenizer = read_weights(reference, weights, device)
        try:
            model.to(device)
        except (RuntimeError, AssertionError) as error:  # torch's words for a device that is not there, or is full
            reason = str(error).strip().splitlines()[0]
            raise UnknownModelError(
                f"{reference} cannot be put on {device}: {reason}. Name another device after @."
            ) from error
        return cls(reference, model, tokenizer, revision(model, tokenizer))

    @property
    def card(self) -> ModelCard:
        """See `LanguageModel`."""
        return self._card

    @property
    def model(self) -> Any:
        """The transformers model, for training."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self._tokenizer

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `LanguageModel`."""
        with self._lock:
            return [len(ids) for ids in self._format.encode(texts)]

    def prompts(self, chats: Sequence[Chat]) -> list[list[int]]:
        """The token ids that the model is given for each chat."""
        with self._lock:
            return self._format.prompts(chats)

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """See `LanguageModel`; always with scores."""
        check_options(options)
        return in_caller(lambda: self._choose(chats, options))

    def _choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        with self._lock, torch.inference_mode():
            started = perf_counter()
            prompts = self._format.prompts(chats)
            answers = self._format.options(options)
            distinct, owners = self._distinct(prompts, max(map(len, answers)) + 1)
            scored = self._engine.score(distinct, answers, self._format.ends[0]) if distinct else []
            spent = perf_counter() - started
        results: list[Choice | Failure] = []
        asked: set[int] = set()
        for prompt, owner in zip(prompts, owners, strict=True):
            if owner is None:
                results.append(self._too_long(prompt))
                continue
            scores, shared = scored[owner]
            cached = len(prompt) if owner in asked else shared
            asked.add(owner)
            usage = Usage(calls=1, prompt_tokens=len(prompt), cached_tokens=cached)
            results.append(Choice(max(range(len(scores)), key=scores.__getitem__), scores, usage))
        return clocked(results, spent)

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """See `LanguageModel`."""
        if sampling.max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1; got {sampling.max_tokens}.")
        return in_caller(lambda: self._generate(chats, sampling))

    def _generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        with self._lock, torch.inference_mode():
            started = perf_counter()
            prompts = self._format.prompts(chats)
            distinct, owners = self._distinct(prompts, sampling.max_tokens)
            rows = [owner for owner in owners if owner is not None]
            if sampling.temperature <= 0:
                rows = list(range(len(distinct)))  # equal chats have equal answers
            draw = Draw([distinct[owner] for owner in rows], sampling, self._format.ends)
            written = self._engine.write(distinct, rows, draw, sampling.max_tokens) if rows else []
            spent = perf_counter() - started
        greedy = sampling.temperature <= 0
        answers = iter([written[owner] for owner in owners if owner is not None] if greedy else written)
        results = [
            self._too_long(prompt) if owner is None else self._completion(prompt, next(answers))
            for prompt, owner in zip(prompts, owners, strict=True)
        ]
        return clocked(results, spent)

    def close(self) -> None:
        """Nothing to give back: the memory goes with the object."""

    def _distinct(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[list[tuple[int, ...]], list[int | None]]:
        """The different prompts that fit with `room` for an answer, and for each prompt which of them it is."""
        places: dict[tuple[int, ...], int] = {}
        fits = [len(prompt) + room <= self._card.context_length for prompt in prompts]
        owners = [
            places.setdefault(tuple(p), len(places)) if fit else None for p, fit in zip(prompts, fits, strict=True)
        ]
        return list(places), owners

    def _too_long(self, prompt: Sequence[int]) -> Failure:
        limit = self._card.context_length
        return Failure(
            FailureKind.CONTEXT, f"{len(prompt)} prompt tokens and the answer do not fit the context of {limit}."
        )

    def _completion(self, prompt: Sequence[int], answer: Sequence[int]) -> Completion:
        ended = bool(answer) and answer[-1] in self._format.ends
        usage = Usage(calls=1, prompt_tokens=len(prompt), completion_tokens=len(answer))
        return Completion(self._format.decode(answer), truncated=not ended, usage=usage)


def read_weights(
    reference: str, weights: Weights, device: torch.device, dtype: torch.dtype | None = None
) -> tuple[Any, Any]:
    """The transformers model, adapters merged, and its tokenizer; not on its `device` yet. Raises `UnknownModelError`, which names the
    `reference`.

    Without a `dtype` it is the one that suits device and weights: bfloat16 on accelerators; on processors float32, but bfloat16 where the
    weights are stored in 16 bits and the processor multiplies those natively (on AVX2 they run at a quarter of float32's speed).
    """
    try:
        with quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(weights.source)
            chosen = dtype or _dtype(AutoConfig.from_pretrained(weights.source).dtype, device)
            model: Any = AutoModelForCausalLM.from_pretrained(weights.source, dtype=chosen)
            for adapter in weights.adapters:
                from peft import PeftModel

                tuned: Any = PeftModel.from_pretrained(model, adapter)
                model = tuned.merge_and_unload()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UnknownModelError(
            f"{reference} cannot be loaded: {reason} Expected a hub id or a folder with config.json."
        ) from error
    return model, tokenizer


def _dtype(stored: object, device: torch.device) -> torch.dtype:
    if device.type in ("cuda", "mps"):
        return torch.bfloat16
    able = torch.cpu.get_capabilities()
    native = able.get("avx512_bf16") or able.get("amx_bf16")
    return torch.bfloat16 if native and stored in (torch.bfloat16, torch.float16) else torch.float32


def revision(model: Any, tokenizer: Any) -> str:
    """A hash of configuration, tokenizer, chat template and samples of every tensor.

    Taken from memory, so that a folder, a hub revision and a merged adapter are pinned alike.
    """
    config: dict[str, Any] = model.config.to_dict()
    for incidental in ("dtype", "_name_or_path", "_attn_implementation", "transformers_version"):
        config.pop(incidental, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    digest.update(str(tokenizer.chat_template).encode())
    for name, tensor in model.named_parameters():
        flat = tensor.detach().reshape(-1)
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(flat[:: max(1, flat.numel() // SAMPLES)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def quiet() -> Generator[None]:
    """No progress bars of transformers, for the command line draws its own, and no warnings of peft's use of old names in it."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
