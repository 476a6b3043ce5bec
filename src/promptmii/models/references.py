"""What the reference of a model names: a server and a model on it, or an engine, weights, adapters and a device.

`openai:<model>` is served at the configured address (`--base-url`, OPENAI_BASE_URL, a configuration file),
`openai:<model>@<address>` at its own.
"""

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from promptmii.errors import ConfigError, UnknownModelError
from promptmii.models.embedded import EMBEDDED
from promptmii.models.http.config import checked_address

DEFAULT = "qwen"
"""The default follower."""
WRITER = "qwen-writer"
"""The default writer."""
WRITERS = {WRITER: DEFAULT}
"""The embedded base model of each shipped writer, by name."""
LOCAL_KINDS = {"gguf": "<file, or owner/name/file.gguf on the hub>", "hf": "<id or folder>, with @<device>"}
"""What follows each prefix of a local model."""
KINDS = (*LOCAL_KINDS, "openai")
FORMS = (
    *EMBEDDED,
    *WRITERS,
    *(f"{kind}:{rest}" for kind, rest in LOCAL_KINDS.items()),
    "any of these with +<adapter>",
    "openai:<model>[@<base URL>]",
)
PREFIXES = ", ".join(f"{kind}:..." for kind in KINDS)
"""The prefixes as a help text lists them."""
FIRST_TOKENS = "+top_logprobs"
"""Suffix of a model name that selects the likelihoods of first tokens."""

_NO_SCHEME = re.compile(
    r"@(?://)?(localhost|(?:\d+\.){3}\d+|[\w.-]+:\d+|[\w.-]+(?=/v\d+/?$)|\w+://[^/]+)(?:/|$)", re.IGNORECASE
)
"""An address without http://, which would pass for a part of the model's name."""
_SCHEME = re.compile(r"@(?=https?:)", re.IGNORECASE)
_DEVICE = re.compile(r"(.*?)(?:@(cpu|mps|cuda|cuda:\d+))?", re.DOTALL)
_PATH = re.compile(r"[./\\~]|runs/|[^/]*/[^/]*/|\w:\\")
"""How a path begins, but hardly an id on the hub, which is owner/name: `runs/` is the default place of run folders."""


class ServerReference(NamedTuple):
    """A parsed `openai:` reference."""

    model: str
    """The model's name on the server."""
    address: str | None
    """The server's address, if the reference has one."""

    @classmethod
    def parse(cls, reference: str) -> "ServerReference | None":
        """`None` for a reference of another kind. Raises `ConfigError` for an address that cannot be used."""
        kind, _, rest = reference.partition(":")
        model, *address = _SCHEME.split(rest, maxsplit=1)
        if kind != "openai" or not model:
            return None
        if not address and (found := _NO_SCHEME.search(model)):
            raise ConfigError(f"The address {found[1]!r} lacks http:// or https://; expected @http://host:port/v1.")
        return cls(model, checked_address(address[0]) if address else None)


def without_address(reference: str) -> str:
    """The reference of a model without its server's address."""
    return _SCHEME.split(reference, maxsplit=1)[0]


@dataclass(frozen=True)
class GgufFile:
    """A model for llama.cpp."""

    source: str
    """Name of an embedded model, path of a file, or owner/name/file on the hub."""
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weights:
    """A model for transformers. Adapters are merged into the base in order."""

    base: str
    """Reference of the base model alone, such as `hf:<id or folder>`."""
    source: str
    """Hub id or folder that transformers loads."""
    adapters: tuple[str, ...] = ()
    device: str | None = None
    """Device, such as `cuda:1`; `None` for the best available."""

    @property
    def below(self) -> "Weights":
        """The same weights without the last adapter."""
        return replace(self, adapters=self.adapters[:-1])

    @property
    def reference(self) -> str:
        """The base and its adapters as one reference."""
        return "+".join((self.base, *self.adapters))

    @property
    def stored_name(self) -> str:
        """The name to store in an adapter trained on these weights: in peft's form, if they have no adapters."""
        return self.reference if self.adapters else self.base.removeprefix("hf:")


def shipped(writer: str) -> Path:
    """The adapter folder of a shipped writer."""
    return Path(__file__).with_name("shipped") / writer


def default_follower(reference: str) -> str:
    """The default follower for a writer: its model without adapters, as in the paper.

    Training a model to write instructions does not teach it to label.
    """
    if reference.startswith("openai:"):
        return reference
    name, device = split_device(split_adapters(reference)[0])
    kind, colon, location = name.partition(":") if ":" in name else ("", "", name)
    base_model = base_of_adapter(Path(os.path.expanduser(location))) if kind == "hf" else None
    if base_model:
        follower = default_follower(f"hf:{base_model.removeprefix('hf:')}")
    else:
        follower = f"{kind}{colon}{WRITERS.get(location, location)}"
    return f"{follower}@{device}" if device else follower


def is_local(reference: str) -> bool:
    """Return whether a reference has the form of a local model. The model need not exist."""
    name, _ = split_device(split_adapters(reference)[0])
    kind, _, location = name.partition(":")
    return name in EMBEDDED or name in WRITERS or (kind in LOCAL_KINDS and bool(location))


def gguf_of(reference: str) -> GgufFile | None:
    """The GGUF file that a reference names, or `None` if llama.cpp does not run this kind of model."""
    first, *adapters = split_adapters(reference)
    kind, _, location = first.partition(":")
    if first in WRITERS:
        return GgufFile(WRITERS[first], (str(shipped(first)), *adapters))
    if first in EMBEDDED:
        return GgufFile(first, tuple(adapters))
    return GgufFile(location, tuple(adapters)) if kind == "gguf" and location else None


def weights_of(reference: str) -> Weights | None:
    """The weights that transformers loads for a reference, or `None` if it cannot. Raises `UnknownModelError`.

    Embedded models are dequantised. A folder with only an adapter stands for the base model that it names, adapted.
    """
    first, *adapters = split_adapters(reference)
    name, device = split_device(first)
    weights = _weights_of_name(name)
    if weights is None:
        return None
    return replace(weights, adapters=(*weights.adapters, *adapters), device=device or weights.device)


def split_adapters(reference: str) -> list[str]:
    """Split a reference into a model and its adapters. A path that exists is one part, even if it contains a `+`."""
    first, *others = reference.split("+")
    is_name = ":" not in first  # such as qwen: a folder called qwen+lora does not make it a path
    parts, words = ([first], others) if is_name else ([], [first, *others])
    while words:
        size = next((n for n in range(len(words), 1, -1) if _exists("+".join(words[:n]))), 1)
        parts.append("+".join(words[:size]))
        words = words[size:]
    return parts


def _exists(part: str) -> bool:
    name, _ = split_device(part)
    kind, _, location = name.partition(":")
    return os.path.exists(os.path.expanduser(location if kind in LOCAL_KINDS else name))


def is_missing_folder(location: str) -> bool:
    """Whether a hub id or folder is clearly meant as a folder, but does not exist."""
    return is_path(location) and not os.path.exists(location)


def is_path(location: str) -> bool:
    """Whether a hub id or folder has the form of a path."""
    return bool(_PATH.match(location))


def split_device(reference: str) -> tuple[str, str | None]:
    """Split a reference without adapters into a model and a device."""
    model, device = _DEVICE.fullmatch(reference).groups()  # pyright: ignore[reportOptionalMemberAccess] always matches
    return model, device


def _weights_of_name(name: str) -> Weights | None:
    kind, _, location = name.rpartition(":")
    if kind in ("", "hf") and (location in WRITERS or location in EMBEDDED):
        from promptmii.models.hf.convert import converted

        base = WRITERS.get(location, location)
        adapters = (str(shipped(location)),) if location in WRITERS else ()
        return Weights(f"hf:{base}", str(converted(base)), adapters)
    kind, _, location = name.partition(":")
    if kind != "hf" or not location:
        return None
    location = os.path.expanduser(location)
    base_model = base_of_adapter(Path(location))
    if not base_model:
        return Weights(name, location)
    return weights_of(f"{base_model}+{location}") or weights_of(f"hf:{base_model}+{location}")


def base_of_adapter(folder: Path) -> str | None:
    """The base model that an adapter folder names, or `None` for any other folder. Raises `UnknownModelError`."""
    path = folder / "adapter_config.json"
    if not path.is_file() or (folder / "config.json").exists():
        return None
    try:
        name: object = json.loads(path.read_text("utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnknownModelError(f"{path} does not name the model that the adapter belongs to: {error}.") from error
    if not name or not isinstance(name, str):
        raise UnknownModelError(
            f"{path} does not name the model that the adapter belongs to: its base_model_name_or_path is {name!r}. "
            "Write it there, or name the model and the adapter as MODEL+ADAPTER."
        )
    if Path(name).resolve() == folder.resolve():
        raise UnknownModelError(f"{path} names its own folder as the model that the adapter belongs to.")
    return name
