"""The first stage: what there is, pinned: a hub dataset by its commit hash, a local one by the hash of its files."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from promptmii.data.corpus.journal import Entry
from promptmii.data.corpus.settings import ListSettings
from promptmii.data.load import SUFFIXES
from promptmii.data.sources import is_data_file, read_index, task_name
from promptmii.errors import DataError
from promptmii.schema import Frozen
from promptmii.task import content_key


class Candidate(Frozen):
    """One configuration of one dataset."""

    name: str
    repository: str
    config: str | None = None
    revision: str
    path: str | None = None
    """File or folder of a local dataset."""
    licence: str | None = None
    languages: tuple[str, ...] = ()
    domain: str | None = None

    @property
    def key(self) -> str:
        """Content hash of what is pinned: the name, not where the corpus or the data lie."""
        return content_key(self.model_dump(exclude={"path"}))

    def entry(self, reason: str | None) -> Entry:
        """A line of the first stage."""
        return Entry(
            key=self.key, name=self.name, kept=reason is None, reason=reason or "", detail=self.model_dump(mode="json")
        )


def check_sources(settings: ListSettings) -> None:
    """Raise `DataError` where there is nothing to list."""
    if not settings.local and not settings.hub:
        raise DataError(
            "Nothing to list: give --local FOLDER, --hub, or both (in a configuration: local and hub of the table [list])."
        )


def list_local(settings: ListSettings) -> Iterator[Entry]:
    """A line for each configuration in the local folders. Raises `DataError` for a folder that is none."""
    taken: Counter[str] = Counter()
    for folder in settings.local:
        for candidate in _in_folder(Path(folder)):
            taken[candidate.name] += 1
            if taken[candidate.name] > 1:
                candidate = candidate.model_copy(update={"name": f"{candidate.name}#{taken[candidate.name]}"})
            yield candidate.entry(refused(candidate, (), settings))


def refused(candidate: Candidate, tags: Sequence[str], settings: ListSettings) -> str | None:
    """Why the settings leave a dataset out."""
    if settings.licences and not _is_one(candidate.licence, settings.licences):
        return f"licence {candidate.licence or 'unstated'} is not among {', '.join(settings.licences)}"
    if settings.languages and not set(candidate.languages) & set(settings.languages):
        return f"language {', '.join(candidate.languages) or 'unstated'} is not among {', '.join(settings.languages)}"
    sizes = [tag.partition(":")[2] for tag in tags if tag.startswith("size_categories:")]
    if settings.sizes and not candidate.path and not set(sizes) & set(settings.sizes):
        return f"size {', '.join(sizes) or 'unstated'} is not among {', '.join(settings.sizes)}"
    return None


def _is_one(licence: str | None, wanted: Sequence[str]) -> bool:
    return licence is not None and _plain(licence) in {_plain(name) for name in wanted}


def _plain(licence: str) -> str:
    return licence.casefold().replace(" ", "-").replace("_", "-")


def _in_folder(folder: Path) -> Iterator[Candidate]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder. --local takes a folder of task files and dataset folders.")
    index = read_index(folder)
    found = False
    for path in sorted(folder.iterdir()):
        made: list[Candidate] = []
        if path.is_dir() and not path.name.startswith("."):
            made = list(_dataset_folder(path))
        elif is_data_file(path):
            made = [_plain_file(path, index.get(task_name(path), {}))]
        found = found or bool(made)
        yield from made
    if not found:
        raise DataError(
            f"The folder {folder} holds no data; expected files ending in {', '.join(SUFFIXES)} (also .gz), or folders of them."
        )


def _plain_file(path: Path, known: dict[str, str]) -> Candidate:
    return Candidate(
        name=task_name(path),
        repository=known.get("source_repo") or task_name(path),
        revision=_fingerprint([path]),
        path=str(path),
        licence=known.get("licence") or None,
        languages=tuple((known.get("language") or "").split()),
        domain=known.get("domain") or None,
    )


def _dataset_folder(path: Path) -> Iterator[Candidate]:
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    data = [file for file in files if is_data_file(file)]
    if not data:
        return
    card = _card(path / "README.md")
    for config in configurations(card):
        yield Candidate(
            name=path.name if config is None else f"{path.name}:{config}",
            repository=path.name,
            config=config,
            revision=_fingerprint(files),
            path=str(path),
            **described(card),
        )


def configurations(card: Any) -> list[str | None]:
    """The names of a card's configurations; `None` stands for a dataset that names none."""
    configs = card.get("configs") if isinstance(card, dict) else None
    names = [config.get("config_name") for config in configs or () if isinstance(config, dict)]
    return [str(name) for name in dict.fromkeys(names) if name] or [None]


def described(card: Any) -> dict[str, Any]:
    """Licence and languages as a card gives them: one value or a list."""
    values = card if isinstance(card, dict) else {}
    licences, languages = _listed(values.get("license")), _listed(values.get("language"))
    return {"licence": ", ".join(licences) or None, "languages": tuple(languages)}


def _listed(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item is not None]


def _card(path: Path) -> dict[str, Any]:
    """The metadata block of a card; nothing where there is none or it is broken, which the next stage will tell of."""
    import yaml

    try:
        text = path.read_text("utf-8")
        block = text.split("---", 2)[1] if text.startswith("---") else ""
        values = yaml.safe_load(block)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError):
        return {}
    return values if isinstance(values, dict) else {}


def _fingerprint(files: Sequence[Path]) -> str:
    seen = hashlib.sha256()
    for path in files:
        seen.update(f"{path.name}\0".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            seen.update(hashlib.file_digest(file, "sha256").digest())
    return seen.hexdigest()[:40]
