"""Stands in for the package vllm as TRL uses it in one process with the trainer (`vllm_mode = "colocate"`).

It begins with weights of its own, takes those that are sent under the names and shapes that vLLM knows, refuses any
other, and writes only once all have come. So what it writes, and how likely it says that was, are right only if all is
synced. Each call is noted down by process.
"""

import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

RequestOutput = SimpleNamespace


def SamplingParams(**options: Any) -> SimpleNamespace:  # noqa: N802
    """As it was given."""
    return SimpleNamespace(**options)


class LLM:
    """A tiny Llama, written out token by token."""

    def __init__(self, model: str, seed: int, **options: Any) -> None:
        self._model = LlamaForCausalLM(LlamaConfig.from_pretrained(model)).eval()
        self._ends = self._model.config.eos_token_id
        self._known = dict(self._model.named_parameters())
        self._missing = set(self._known)
        self._stream = torch.Generator().manual_seed(seed)
        assert options["logprobs_mode"] == "processed_logprobs"
        runner = SimpleNamespace(model=SimpleNamespace(load_weights=self._load))
        self.llm_engine: Any = SimpleNamespace(
            model_executor=SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner)),
            model_config=SimpleNamespace(max_model_len=options["max_model_len"]),
        )

    def _load(self, weights: list[tuple[str, torch.Tensor]]) -> None:
        for name, value in weights:
            assert self._known[name].shape == value.shape, name
            self._known[name].data.copy_(value)
            self._missing.discard(name)

    def reset_prefix_cache(self) -> None:
        """Each sync ends with it."""

    @torch.no_grad()
    def generate(
        self, prompts: list[dict[str, list[int]]], sampling_params: SimpleNamespace, use_tqdm: bool
    ) -> list[SimpleNamespace]:
        """One completion a prompt."""
        assert not self._missing, f"never synced: {sorted(self._missing)}"
        assert not use_tqdm
        noted = {"greedy": not sampling_params.temperature, "rows": len(prompts), "longest": sampling_params.max_tokens}
        with Path(os.environ["VLLM_CALLS"], os.environ["RANK"]).open("a") as calls:
            calls.write(json.dumps(noted) + "\n")
        return [self._answer(prompt["prompt_token_ids"], sampling_params) for prompt in prompts]

    def _answer(self, prompt: list[int], sampling: SimpleNamespace) -> SimpleNamespace:
        tokens, logprobs = list(prompt), []
        for _ in range(sampling.max_tokens):
            logits = self._model(torch.tensor([tokens])).logits[0, -1].float()
            logs = (logits / (sampling.temperature or 1.0)).log_softmax(-1)
            picked = torch.multinomial(logs.exp(), 1, generator=self._stream) if sampling.temperature else logs.argmax()
            tokens.append(int(picked))
            logprobs.append({tokens[-1]: SimpleNamespace(logprob=float(logs[tokens[-1]]), rank=1)})
            if tokens[-1] == self._ends:
                break
        output = SimpleNamespace(token_ids=tokens[len(prompt) :], logprobs=logprobs)
        return SimpleNamespace(prompt_token_ids=prompt, outputs=[output])


def _module(name: str, **names: Any) -> None:
    module = ModuleType(f"{__name__}.{name}")
    vars(module).update(names)
    sys.modules[module.__name__] = module


# What TRL imports, used only with a server.
_module("sampling_params", StructuredOutputsParams=SimpleNamespace)
_module("utils")
_module("utils.network_utils", get_ip=None)
_module("distributed")
_module("distributed.weight_transfer")
_module("distributed.weight_transfer.nccl_common", trainer_init=None)
_module("distributed.weight_transfer.packed_tensor", packed_nccl_broadcast_producer=None)
