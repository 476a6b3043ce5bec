"""Resolve references to local models into weights, engine, adapters and device."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from promptmii.errors import UnknownModelError
from promptmii.models.embedded import EMBEDDED

DEFAULT = "qwen"
"""The default follower."""
WRITER = "qwen-writer"
"""The default writer."""
WRITERS = {WRITER: DEFAULT}
"""The embedded base model of each shipped writer, by name."""
FORMS = (
    *EMBEDDED,
    *WRITERS,
    "gguf:<file, or owner/name/file.gguf on the hub>",
    "hf:<id or folder>, with @<device>",
    "any of these with +<adapter>",
    "openai:<model>[@<base URL>]",
)

_DEVICE = re.compile(r"(.*?)(?:@(cpu|mps|cuda|cuda:\d+))?", re.DOTALL)


@dataclass(frozen=True)
class GgufFile:
    """A model for llama.cpp."""

    place: str
    """Name of an embedded model, path of a file, or owner/name/file on the hub."""
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weights:
    """A model for transformers. Adapters are merged into the base in order."""

    base: str
    """Reference of the base alone, such as `hf:<id or folder>`."""
    source: str
    """What transformers loads: an id or a folder."""
    adapters: tuple[str, ...] = ()
    device: str | None = None
    """Device, such as `cuda:1`; `None` for the best available."""

    @property
    def below(self) -> "Weights":
        """The same weights without the last adapter."""
        return replace(self, adapters=self.adapters[:-1])

    @property
    def reference(self) -> str:
        """Base and adapters as one reference."""
        return "+".join((self.base, *self.adapters))

    @property
    def named(self) -> str:
        """How an adapter names this as its base: in peft's form if it is a plain model, so that peft can load it."""
        return self.reference if self.adapters else self.base.removeprefix("hf:")


def shipped(writer: str) -> Path:
    """The adapter folder of a shipped writer."""
    return Path(__file__).with_name("shipped") / writer


def reader_of(reference: str) -> str:
    """The model that follows where only the one that writes is named: what lies under its adapters, as in the paper.

    Training to write does not teach to label.
    """
    if reference.startswith("openai:"):
        return reference
    name, device = _on_device(reference.partition("+")[0])
    kind, mark, place = name.rpartition(":")
    base_model = _model_of_adapter(place) if kind == "hf" else None
    if base_model:
        reader = reader_of(f"hf:{base_model.removeprefix('hf:')}")
    else:
        reader = f"{kind}{mark}{WRITERS.get(place, place)}"
    return f"{reader}@{device}" if device else reader


def is_local(reference: str) -> bool:
    """Return whether a reference has the form of a local model. The model need not exist."""
    name, _ = _on_device(reference.partition("+")[0])
    kind, _, place = name.partition(":")
    return name in EMBEDDED or name in WRITERS or (kind in ("gguf", "hf") and bool(place))


def gguf_of(reference: str) -> GgufFile | None:
    """The GGUF file of a reference, or `None` if llama.cpp does not run it."""
    first, *adapters = reference.split("+")
    kind, _, place = first.partition(":")
    if first in WRITERS:
        return GgufFile(WRITERS[first], (str(shipped(first)), *adapters))
    if first in EMBEDDED:
        return GgufFile(first, tuple(adapters))
    return GgufFile(place, tuple(adapters)) if kind == "gguf" and place else None


def weights_of(reference: str) -> Weights | None:
    """The weights that transformers loads for a reference, or `None` if it cannot. Raises `UnknownModelError`.

    Embedded models are dequantised. A folder with only an adapter loads the base model that the adapter names.
    """
    first, *adapters = reference.split("+")
    name, device = _on_device(first)
    weights = _weights_of_name(name)
    if weights is None:
        return None
    return replace(weights, adapters=(*weights.adapters, *adapters), device=device or weights.device)


def _on_device(reference: str) -> tuple[str, str | None]:
    """Split a reference without adapters into model and device."""
    model, device = _DEVICE.fullmatch(reference).groups()  # pyright: ignore[reportOptionalMemberAccess] always matches
    return model, device


def _weights_of_name(name: str) -> Weights | None:
    kind, _, place = name.rpartition(":")
    if kind in ("", "hf") and (place in WRITERS or place in EMBEDDED):
        from promptmii.models.hf.convert import converted

        base = WRITERS.get(place, place)
        adapters = (str(shipped(place)),) if place in WRITERS else ()
        return Weights(f"hf:{base}", str(converted(base)), adapters)
    kind, _, place = name.partition(":")
    if kind != "hf" or not place:
        return None
    base_model = _model_of_adapter(place)
    if not base_model:
        return Weights(name, place)
    return weights_of(f"{base_model}+{place}") or weights_of(f"hf:{base_model}+{place}")


def _model_of_adapter(folder: str) -> str | None:
    """The base model that an adapter folder names; `None` for any other folder."""
    path = Path(folder) / "adapter_config.json"
    if not path.is_file() or (Path(folder) / "config.json").exists():
        return None
    try:
        return str(json.loads(path.read_text("utf-8"))["base_model_name_or_path"])
    except (OSError, ValueError, KeyError) as error:
        raise UnknownModelError(f"{path} does not name the model that the adapter belongs to: {error}.") from error
