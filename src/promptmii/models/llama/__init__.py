"""GGUF models in this process, run by llama.cpp."""

from collections.abc import Sequence
from pathlib import Path

from promptmii.models.base import LanguageModel, ModelCard
from promptmii.models.chat import ChatFormat, Tokenizer
from promptmii.models.llama.engine import CONTEXT, NativeEngine, threads
from promptmii.models.llama.files import adapter_file, model_file, revision
from promptmii.models.llama.native import BATCH, Native, is_callable
from promptmii.models.local import LocalModel
from promptmii.models.references import GgufFile
from promptmii.models.threads import in_calling_thread


@in_calling_thread
def load_gguf(reference: str, gguf: GgufFile, context: int | None) -> LanguageModel:
    """A model and its adapters, with a context of up to `context` tokens. Raises `UnknownModelError`, `ModelError`."""
    path = model_file(gguf.source)
    if not is_callable():
        from promptmii.models.llama.server import ServedModel

        return ServedModel(reference, path, gguf.adapters, context or CONTEXT)
    native = Native(path)
    try:
        length = min(context or CONTEXT, native.trained_context)
        adapters = [adapter_file(Path(adapter), native.metadata) for adapter in gguf.adapters]
        native.open(length + BATCH, threads(), adapters)
        card = ModelCard(reference, revision([path, *adapters]), length, gives_scores=True, contrasts=True)
        return LocalModel(card, ChatFormat(GgufTokenizer(native)), NativeEngine(native))
    except BaseException:
        native.close()
        raise


class GgufTokenizer(Tokenizer):
    """The tokenizer and chat template in a GGUF file."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self.control = native.control_tokens
        self.ends = native.ends()
        self.template = native.metadata("tokenizer.chat_template")
        bos = native.begin()
        eos = next(iter(self.ends), None)
        self._begin = [] if bos is None else [bos]
        self.names = {"bos_token": self._name(bos), "eos_token": self._name(eos)}

    def encode(self, texts: Sequence[str], *, begin: bool = False) -> list[list[int]]:
        prefix = self._begin if begin else []
        return [prefix + self._native.tokenize(text, special=True) for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        return self._native.text(tokens)

    def _name(self, token: int | None) -> str:
        return next((name for name, control in self.control.items() if control == token), "")
