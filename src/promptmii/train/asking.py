"""How the generator is asked in training, validation and planning: exactly as when instructions are made with it."""

import threading
from pathlib import Path
from typing import Any

from promptmii.errors import MissingDependencyError, UnknownModelError
from promptmii.inducers.writing import Writer
from promptmii.models.base import ModelCard
from promptmii.prompts import META_SLOTS, meta_prompt, read_template
from promptmii.train.config import TrainSettings

try:
    from transformers import AutoConfig, AutoTokenizer

    from promptmii.models.local import LocalModel, quiet
    from promptmii.models.rendering import ChatFormat
except ImportError as error:
    raise MissingDependencyError("Training", "train") from error


class Tokens(LocalModel):
    """A tokenizer alone, to lay out and count prompts where no weights are needed."""

    def __init__(self, reference: str, tokenizer: Any, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._format = ChatFormat(tokenizer, None)
        self._card = ModelCard(reference, "tokenizer", context_length, gives_scores=False)


def tokens_of(reference: str, source: str) -> Tokens:
    """The tokenizer and context of a local model. Raises `UnknownModelError`."""
    try:
        with quiet():
            config: Any = AutoConfig.from_pretrained(source, local_files_only=True)
            tokenizer: Any = AutoTokenizer.from_pretrained(source, local_files_only=True)
            return Tokens(reference, tokenizer, int(config.max_position_embeddings))
    except (OSError, ValueError) as error:
        raise UnknownModelError(f"{reference} is not on this machine: {str(error).strip().splitlines()[0]}") from error


def writer_for(settings: TrainSettings, model: Any) -> Writer:
    """How the generator is asked, in training and in validation alike."""
    template = read_template(Path(settings.template), META_SLOTS) if settings.template else meta_prompt()
    longest = int(settings.trl.get("max_completion_length", 1024))
    return Writer(model, template, settings.budget, longest=longest, longest_prompt=settings.longest_prompt)
