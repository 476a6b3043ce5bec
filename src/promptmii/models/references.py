"""What a reference to a model on this machine stands for: base weights, and the LoRA adapters that lie on them."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from promptmii.errors import UnknownModelError

DEFAULT = "smol"
"""The model that writes and follows where none is named."""
FORMS = (
    "smol",
    "hf:<id or folder>",
    "any of these with @<device> and +<adapter folder>",
    "openai:<model>[@<base URL>]",
)

_DEVICE = re.compile(r"(.*?)(?:@(cpu|mps|cuda|cuda:\d+))?", re.DOTALL)


@dataclass(frozen=True)
class Weights:
    """A local model: adapters are merged into the base in their order."""

    base: str
    """Reference of the base alone: `smol` or `hf:<id or folder>`."""
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
        """How an adapter names this as its model: as peft does where it is a base alone, so that peft can load it too."""
        return self.reference if self.adapters else self.base.removeprefix("hf:")


def weights_of(reference: str) -> Weights | None:
    """The weights behind a reference; `None` where it names no model on this machine. Raises `UnknownModelError`.

    A folder that holds an adapter alone brings the model that the adapter names.
    """
    first, *adapters = reference.split("+")
    name, device = _DEVICE.fullmatch(first).groups()  # pyright: ignore[reportOptionalMemberAccess] it matches anything
    found = _first(name)
    return replace(found, adapters=(*found.adapters, *adapters), device=device or found.device) if found else None


def _first(name: str) -> Weights | None:
    if name == "smol":
        from promptmii.models.smol import smol_folder

        return Weights("smol", str(smol_folder()))
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
