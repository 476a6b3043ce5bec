"""The folder of a training run, whatever the stage.

config.toml      the file that was given, verbatim
config.json      every setting as it was resolved
run.json         versions, hashes of data and templates, skipped tasks
metrics.jsonl    a line per logged step, which `promptmii report` draws
samples.jsonl    what was written and how it was rewarded, to read
checkpoint-N/    to go on from
best/            the best weights so far, and README.md, their model card
"""

import json
import platform
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from promptmii.curves import append_curves, is_training_run
from promptmii.errors import ArtefactError, ConfigError, OutputError
from promptmii.files import append_line, locked, write_text
from promptmii.schema import Settings

SAMPLES = "samples.jsonl"
PACKAGES = ("promptmii", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "vllm", "deepspeed")


class RunFolder:
    """A run folder that this process may write to. Use `open_run`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def describe(self, facts: Mapping[str, Any], same: Sequence[str] = ()) -> None:
        """Write what the run was made with, beside the versions of the packages.

        Raises `ConfigError` where one of the facts `same` is not what it was when the run began.
        """
        path = self.path / "run.json"
        before = json.loads(path.read_text("utf-8")) if _begun(self.path) and path.exists() else {}
        for name in same:
            if before.get(name, facts[name]) != facts[name]:
                raise ConfigError(
                    f"The {name} of {self.path} changed since the run began. Put them back, or give another folder."
                )
        described = {"python": platform.python_version(), "packages": versions(), **facts}
        write_text(path, json.dumps(described, ensure_ascii=False, indent=2) + "\n", force=True)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line of the curves. What is no finite number is left out."""
        append_curves(self.path, step, values)

    def samples(self, rows: list[dict[str, Any]]) -> None:
        """Append what was written, a line each."""
        for row in rows:
            append_line(self.path / SAMPLES, (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace"))


@contextmanager
def open_run(
    folder: Path, settings: Settings, given: Path | None, *, resume: bool = False, free: tuple[str, ...] = ()
) -> Generator[RunFolder]:
    """Lock a run folder and write down what was asked for; `given` is the configuration file.

    With `resume` the settings must be those of the start, except those in `free` (`table.name` for one in a table).
    A run that ended before it measured anything may be started anew. Raises `OutputError` if another run is there or
    another process writes, `ConfigError` for changed settings.
    """
    with locked(folder):
        known = folder / "config.json"
        if known.exists() and _begun(folder):
            if not resume:
                raise OutputError(
                    f"{folder} holds a run already. Continue it with --resume, or give another folder with -o."
                )
            _check_same(known, settings, free)
        else:
            if given:
                write_text(folder / "config.toml", given.read_text("utf-8"), force=True)
            write_text(known, settings.model_dump_json(indent=2) + "\n", force=True)
        yield RunFolder(folder)


def _begun(folder: Path) -> bool:
    """Whether a run left something to go on from."""
    return is_training_run(folder) or any(folder.glob("checkpoint-*"))


def _check_same(known: Path, settings: Settings, free: tuple[str, ...]) -> None:
    try:
        before: dict[str, Any] = json.loads(known.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{known} cannot be read: {error}. Give another folder.") from error
    now = json.loads(settings.model_dump_json())
    for table, _, name in (dotted.partition(".") for dotted in free if "." in dotted):
        for side in (before, now):
            side.get(table, {}).pop(name, None)
    changed = [name for name in now if name not in free and before.get(name) != now[name]]
    if changed:
        raise ConfigError(
            f"This run was started with other values of: {', '.join(changed)}. Resume with the same values, or give "
            "another folder."
        )


def versions() -> dict[str, str]:
    """Of the packages that a run depends on, where they are installed."""
    installed: dict[str, str] = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed
