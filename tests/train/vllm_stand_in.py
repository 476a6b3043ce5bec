"""A stand-in for the package vllm, as TRL uses it in the trainer's process (`vllm_mode = "colocate"`).

It starts with random weights, accepts synced weights only under the names and shapes that vLLM knows, and generates
only once all have arrived. So its texts and log-probabilities are right only if every weight is synced. It logs its
calls by process.
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
    """Keep the options as given."""
    return SimpleNamespace(**options)


class LLM:
    """A tiny Llama that generates token by token."""

    def __init__(self, model: str, seed: int, **options: Any) -> None:
        self._model = LlamaForCausalLM(LlamaConfig.from_pretrained(model)).eval()
        self._ends = self._model.config.eos_token_id
        self._parameters = dict(self._model.named_parameters())
        self._missing = set(self._parameters)
        self._stream = torch.Generator().manual_seed(seed)
        assert options["logprobs_mode"] == "processed_logprobs"
        runner = SimpleNamespace(model=SimpleNamespace(load_weights=self._load))
        self.llm_engine: Any = SimpleNamespace(
            model_executor=SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner)),
            model_config=SimpleNamespace(max_model_len=options["max_model_len"]),
        )

    def _load(self, weights: list[tuple[str, torch.Tensor]]) -> None:
        for name, value in weights:
            assert self._parameters[name].shape == value.shape, name
            self._parameters[name].data.copy_(value)
            self._missing.discard(name)

    def reset_prefix_cache(self) -> None:
        """Called at the end of each sync."""

    @torch.no_grad()
    def generate(
        self, prompts: list[dict[str, list[int]]], sampling_params: SimpleNamespace, use_tqdm: bool
    ) -> list[SimpleNamespace]:
        """One completion per prompt."""
        assert not self._missing, f"never synced: {sorted(self._missing)}"
        assert not use_tqdm
        call = {"greedy": not sampling_params.temperature, "rows": len(prompts), "longest": sampling_params.max_tokens}
        with Path(os.environ["VLLM_CALLS"], os.environ["RANK"]).open("a") as log:
            log.write(json.dumps(call) + "\n")
        return [self._answer(prompt["prompt_token_ids"], sampling_params) for prompt in prompts]

    def _answer(self, prompt: list[int], sampling: SimpleNamespace) -> SimpleNamespace:
        tokens, logprobs = list(prompt), []
        for _ in range(sampling.max_tokens):
            logits = self._model(torch.tensor([tokens])).logits[0, -1].float()
            logs = (logits / (sampling.temperature or 1.0)).log_softmax(-1)
            token = torch.multinomial(logs.exp(), 1, generator=self._stream) if sampling.temperature else logs.argmax()
            tokens.append(int(token))
            logprobs.append({tokens[-1]: SimpleNamespace(logprob=float(logs[tokens[-1]]), rank=1)})
            if tokens[-1] == self._ends:
                break
        output = SimpleNamespace(token_ids=tokens[len(prompt) :], logprobs=logprobs)
        return SimpleNamespace(prompt_token_ids=prompt, outputs=[output])


def _module(name: str, **names: Any) -> None:
    module = ModuleType(f"{__name__}.{name}")
    vars(module).update(names)
    sys.modules[module.__name__] = module


# TRL imports these names, but uses them only with a server.
_module("sampling_params", StructuredOutputsParams=SimpleNamespace)
_module("utils")
_module("utils.network_utils", get_ip=None)
_module("distributed")
_module("distributed.weight_transfer")
_module("distributed.weight_transfer.nccl_common", trainer_init=None)
_module("distributed.weight_transfer.packed_tensor", packed_nccl_broadcast_producer=None)
