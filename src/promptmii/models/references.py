"""What a reference to a model on this machine stands for: a model, the engine that runs it, and the adapters on top."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from promptmii.errors import UnknownModelError
from promptmii.models.embedded import EMBEDDED

DEFAULT = "qwen"
"""The model that follows where none is named."""
WRITER = "qwen-writer"
"""The model that writes where none is named."""
WRITERS = {WRITER: DEFAULT}
"""Trained writers that ship: by name, the embedded model that each is an adapter of."""
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
    """A model for transformers: adapters are merged into the base in their order."""

    base: str
    """Reference of the base alone, such as `hf:<id or folder>`."""
    source: str
    """What transformers loads: an id or a folder."""
    adapters: tuple[str, ...] = ()
    device: str | None = None
    """Where it computes (`cuda:1`); `None`: on the best device there is."""

    @property
    def below(self) -> "Weights":
        """Without the last adapter, which is to be trained on."""
        return replace(self, adapters=self.adapters[:-1])

    @property
    def reference(self) -> str:
        """Base and adapters in one."""
        return "+".join((self.base, *self.adapters))

    @property
    def named(self) -> str:
        """How an adapter names this as its base: in peft's form if it is a plain model, so that peft can load it."""
        return self.reference if self.adapters else self.base.removeprefix("hf:")


def shipped(writer: str) -> Path:
    """The adapter of a writer that ships."""
    return Path(__file__).with_name("shipped") / writer


def reader_of(reference: str) -> str:
    """The model that follows where only the one that writes is named: what lies under its adapters, as in the paper.

    Training to write does not teach to label.
    """
    if reference.startswith("openai:"):
        return reference
    name, device = _on_device(reference.partition("+")[0])
    kind, mark, place = name.rpartition(":")
    inside = _model_of_adapter(place) if kind == "hf" else None
    reader = reader_of(f"hf:{inside.removeprefix('hf:')}") if inside else f"{kind}{mark}{WRITERS.get(place, place)}"
    return f"{reader}@{device}" if device else reader


def is_local(reference: str) -> bool:
    """Whether a reference has the form of a model on this machine, whether or not there is one."""
    name, _ = _on_device(reference.partition("+")[0])
    kind, _, place = name.partition(":")
    return name in EMBEDDED or name in WRITERS or (kind in ("gguf", "hf") and bool(place))


def gguf_of(reference: str) -> GgufFile | None:
    """The file that llama.cpp runs for a reference; `None` where it names none."""
    first, *adapters = reference.split("+")
    kind, _, place = first.partition(":")
    if first in WRITERS:
        return GgufFile(WRITERS[first], (str(shipped(first)), *adapters))
    if first in EMBEDDED:
        return GgufFile(first, tuple(adapters))
    return GgufFile(place, tuple(adapters)) if kind == "gguf" and place else None


def weights_of(reference: str) -> Weights | None:
    """The weights that transformers loads for a reference; `None` where there are none. Raises `UnknownModelError`.

    An embedded model is dequantised. A folder that only holds an adapter brings the model that the adapter names.
    """
    first, *adapters = reference.split("+")
    name, device = _on_device(first)
    found = _first(name)
    return replace(found, adapters=(*found.adapters, *adapters), device=device or found.device) if found else None


def _on_device(reference: str) -> tuple[str, str | None]:
    """A reference without adapters in two: the model, and the device behind its `@`."""
    model, device = _DEVICE.fullmatch(reference).groups()  # pyright: ignore[reportOptionalMemberAccess] always matches
    return model, device


def _first(name: str) -> Weights | None:
    kind, _, place = name.rpartition(":")
    if kind in ("", "hf") and (place in WRITERS or place in EMBEDDED):
        from promptmii.models.hf.convert import converted

        base = WRITERS.get(place, place)
        adapters = (str(shipped(place)),) if place in WRITERS else ()
        return Weights(f"hf:{base}", str(converted(base)), adapters)
    kind, _, place = name.partition(":")
    if kind != "hf" or not place:
        return None
    inside = _model_of_adapter(place)
    return weights_of(f"{inside}+{place}") or weights_of(f"hf:{inside}+{place}") if inside else Weights(name, place)


def _model_of_adapter(folder: str) -> str | None:
    """What an adapter folder says it belongs to; `None` for anything else."""
    path = Path(folder) / "adapter_config.json"
    if not path.is_file() or (Path(folder) / "config.json").exists():
        return None
    try:
        return str(json.loads(path.read_text("utf-8"))["base_model_name_or_path"])
    except (OSError, ValueError, KeyError) as error:
        raise UnknownModelError(f"{path} does not name the model that the adapter belongs to: {error}.") from error
