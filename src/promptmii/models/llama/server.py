"""A GGUF model on llama.cpp's own server in this process, for builds of `xllamacpp` without the C interface (Windows).

The server listens on a free loopback port and requires a key that only this process knows. The model uses the same
client as any llama.cpp server, so it is slower than `NativeEngine`.

`python -m promptmii.models.llama.server MODEL --port PORT` serves a model to other programs.
"""

import argparse
import secrets
import threading
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
from gguf import GGUFReader

from promptmii.errors import UnknownModelError
from promptmii.messages import first_line
from promptmii.models.base import ModelCard
from promptmii.models.http.client import HttpModel
from promptmii.models.http.config import HttpConfig
from promptmii.models.llama.engine import CONTEXT, threads
from promptmii.models.llama.files import Header, adapter_file, model_file, revision
from promptmii.models.references import GgufFile, gguf_of


def model_files(model: str) -> tuple[Path, list[Path]]:
    """The GGUF files of a model and its adapters, from a path or a reference. Raises `UnknownModelError`."""
    gguf = gguf_of(model) or GgufFile(model)
    path = model_file(gguf.source)
    return path, _adapter_files(path, gguf.adapters)


def _adapter_files(path: Path, adapters: Sequence[str]) -> list[Path]:
    if not adapters:
        return []
    header = _header(path)  # takes seconds
    return [adapter_file(Path(adapter), header) for adapter in adapters]


def _header(path: Path) -> Header:
    try:
        reader = GGUFReader(path)
    except (OSError, ValueError, IndexError) as error:
        raise UnknownModelError(f"{path} is not a complete GGUF file: {first_line(error)}.") from error

    def value(key: str) -> str | None:
        field = reader.get_field(key)
        return None if field is None else str(field.contents())

    return value


class ServedModel(HttpModel):
    """A `LanguageModel` that runs its own server until it is closed."""

    def __init__(self, reference: str, path: Path, adapters: Sequence[str], context: int) -> None:
        """A model and its adapters, with a context of up to `context` tokens. Raises `UnknownModelError`."""
        files = _adapter_files(path, adapters)
        key = secrets.token_hex(16)
        self._llama = start(path, files, context, key=key)
        self._revision = revision([path, *files])
        address = f"{self._llama.listening_address}/v1"
        listing = httpx.get(f"{address}/models", headers={"authorization": f"Bearer {key}"}, trust_env=False).json()
        length = min(context, listing["data"][0]["meta"]["n_ctx_train"])
        super().__init__("model", HttpConfig(address, key, concurrency=1, context_length=length), reference)

    @property
    def card(self) -> ModelCard:
        return replace(super().card, revision=self._revision, batches=True)

    def close(self) -> None:
        super().close()
        self._llama = None


def start(
    path: Path,
    adapters: Sequence[Path],
    context: int,
    *,
    key: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    parallel: int = 1,
) -> Any:
    """Start a server, which runs until the returned object is deleted. Each `parallel` request has its own `context`.

    Raises `UnknownModelError`.
    """
    xllamacpp: Any = import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = str(path), {"model"}
    params.hostnames, params.port = [host], port
    if key:
        params.api_keys = [key]
    params.n_ctx, params.n_parallel = context * parallel, parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads()
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.verbosity, params.ui = 0, False
    params.cache_ram_mib, params.fit_params = 0, False  # no 8 GB cache of old prompts, and no other context length
    params.no_extra_bufts, params.warmup = True, False  # as in native.py
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0) for adapter in adapters]
    try:
        return xllamacpp.Server(params)
    except (RuntimeError, ValueError, OSError) as error:
        raise UnknownModelError(f"llama.cpp cannot load {path}: {first_line(error)}.") from error


def main() -> None:
    """Serve a GGUF model (a path, `owner/name/file` on the hub, or a name such as qwen) until this process ends."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--context", type=int, default=CONTEXT, help="Tokens per request.")
    parser.add_argument("--parallel", type=int, default=4, help="Concurrent requests.")
    options = parser.parse_args()
    path, adapters = model_files(options.model)
    _server = start(path, adapters, options.context, host=options.host, port=options.port, parallel=options.parallel)
    threading.Event().wait()


if __name__ == "__main__":
    main()
