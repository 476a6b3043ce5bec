"""Base classes of everything read from or written to a file: frozen, validated, without unknown fields."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from promptmii.errors import ConfigError, PromptMIIError
from promptmii.messages import nearest


def storable(text: str) -> str:
    """Replace lone surrogates, which models and servers may return but UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def first_problem(error: ValidationError, whole: str = "") -> str:
    """The first problem of a value, after its place; `whole` is the place of one that concerns the whole value."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or whole
    return (f"{where}: " if where else "") + first["msg"].removeprefix("Value error, ").rstrip(".")


class Frozen(BaseModel):
    """Base class of records and artefacts."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Settings(Frozen):
    """Base class of settings, built from keywords or a TOML file. Reports the first error in one sentence."""

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Validate settings. Raises `ConfigError` that names the invalid value, or the field nearest to an unknown one.

        A `PromptMIIError` from a validator is raised unchanged.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            reason = first.get("ctx", {}).get("error")
            if isinstance(reason, PromptMIIError):
                raise reason from error
            name = ".".join(map(str, first["loc"]))
            if first["type"] == "extra_forbidden":
                *table, unknown = first["loc"]
                known = _settings_in(cls, table)
                raise ConfigError(f"Unknown setting {name!r}. {nearest(str(unknown), known)}") from error
            if first["type"] == "value_error" and isinstance(first["input"], Mapping):  # contradictory settings
                place = f" of {name}" if name else ""
                raise ConfigError(f"The settings{place} are refused: {reason}.") from error
            if first["type"] == "missing":
                raise ConfigError(f"The setting {name} is missing, and has no default.") from error
            raise ConfigError(f"The setting {name} = {first['input']!r} is refused: {first['msg']}.") from error

    @classmethod
    def read(cls, path: Path | None, **changes: Any) -> Self:
        """Read a TOML file and apply `changes`. Raises `ConfigError` that names the file."""
        if path is None:
            return cls.of(**merged({}, changes))
        try:
            content = tomllib.loads(path.read_text("utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"The configuration {path} cannot be read: {error}. Expected a TOML file.") from error
        try:
            return cls.of(**merged(content, changes))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def _settings_in(model: type[BaseModel], path: Sequence[int | str]) -> Iterable[str]:
    """Names of the settings in the nested table at `path`, or of the closest table around it that has one type."""
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        types = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        tables = [kind for kind in types if issubclass(kind, BaseModel)]
        if len(tables) != 1:
            break
        model = tables[0]
    return model.model_fields


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `base` with `changes` merged in, table by table. `None` changes nothing. Raises `ConfigError`."""
    result = dict(base)
    for name, value in changes.items():
        if isinstance(value, Mapping):
            inner = result.get(name) or {}
            if not isinstance(inner, Mapping):
                raise ConfigError(f"{name} = {inner!r}; expected a table: write [{name}], then its settings below.")
            result[name] = merged(inner, value)
        elif value is not None:
            result[name] = value
    return result
