"""Base classes of everything that is read from or written to a file: frozen, validated, unknown fields refused."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from promptmii.errors import ConfigError, PromptMIIError, nearest


def storable(text: str) -> str:
    """The text without lone surrogates, which models and servers may send and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


class Frozen(BaseModel):
    """Base of records and artefacts."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Settings(Frozen):
    """Base of settings. Built from keywords or from a TOML file; what is wrong is said in one sentence."""

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Validated settings. Raises `ConfigError` that names the nearest known field or the value that was refused."""
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            reason = first.get("ctx", {}).get("error")
            if isinstance(reason, PromptMIIError):  # a validator of ours says it best
                raise reason from error
            name = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise ConfigError(f"Unknown setting {name!r}. {nearest(name, cls.model_fields)}") from error
            if first["type"] == "value_error" and isinstance(first["input"], Mapping):  # some contradict each other
                place = f" of {name}" if name else ""
                raise ConfigError(f"The settings{place} are refused: {reason}.") from error
            raise ConfigError(f"The setting {name} = {first['input']!r} is refused: {first['msg']}.") from error

    @classmethod
    def read(cls, path: Path | None, **changes: Any) -> Self:
        """Settings from a TOML file, with `changes` over it. Raises `ConfigError` that names the file."""
        if path is None:
            return cls.of(**merged({}, changes))
        try:
            given = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"The configuration {path} cannot be read: {error}. Expected a TOML file.") from error
        try:
            return cls.of(**merged(given, changes))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def merged(given: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `given`, tables within tables too; `None` changes nothing."""
    result = dict(given)
    for name, value in changes.items():
        if isinstance(value, Mapping):
            inner = result.get(name) or {}
            if not isinstance(inner, Mapping):
                raise ConfigError(f"{name} = {inner!r}; expected a table: write [{name}], then its settings below.")
            result[name] = merged(inner, value)
        elif value is not None:
            result[name] = value
    return result
