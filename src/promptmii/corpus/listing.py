"""Lists local datasets, pinned to the hash of their files."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from promptmii.corpus.journal import Entry
from promptmii.corpus.settings import ListSettings
from promptmii.data.decoding import path_name
from promptmii.data.readers import SUFFIXES
from promptmii.data.sources import is_data_file, is_hidden, read_index, task_name
from promptmii.errors import DataError, required_by
from promptmii.schema import Frozen
from promptmii.task import content_key


class Candidate(Frozen):
    """One configuration of one dataset."""

    name: str
    repository: str
    config: str | None = None
    revision: str
    """Commit on the hub, or hash of the local files."""
    path: str | None = None
    """File or folder of a local dataset."""
    licence: str | None = None
    languages: tuple[str, ...] = ()
    domain: str | None = None

    @property
    def key(self) -> str:
        """Content hash of everything but the path."""
        return content_key(self.model_dump(exclude={"path"}))

    @property
    def is_file(self) -> bool:
        """True for a single local file, which can be read without `datasets`."""
        return self.path is not None and self.config is None and Path(self.path).is_file()

    def entry(self, reason: str | None, *, temporary: bool = False) -> Entry:
        """The journal entry of the first stage. A `reason` means that the dataset is dropped."""
        reason, detail = reason or "", self.model_dump(mode="json")
        return Entry(key=self.key, name=self.name, kept=not reason, reason=reason, temporary=temporary, detail=detail)


def list_local(settings: ListSettings) -> Iterator[Entry]:
    """An entry for each configuration in the local folders. Raises `DataError`."""
    for folder in settings.local:
        for candidate in _in_folder(Path(folder)):
            yield candidate.entry(rejection(candidate, (), settings))


def distinct(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries, each only once. If an earlier one has the same name, a number is added to it."""
    keys: set[str] = set()
    uses: Counter[str] = Counter()
    for entry in entries:
        if entry.key in keys:
            continue
        keys.add(entry.key)
        uses[entry.name] += 1
        if uses[entry.name] > 1:
            candidate = Candidate.model_validate(entry.detail | {"name": f"{entry.name}#{uses[entry.name]}"})
            entry = candidate.entry(entry.reason)
        yield entry


def rejection(candidate: Candidate, tags: Sequence[str], settings: ListSettings) -> str | None:
    """The reason why a filter drops a dataset, or None if it passes all filters."""
    allowed = {*map(_normalised, settings.licences)}
    licence = candidate.licence or ""
    if allowed and _normalised(licence) not in allowed and not {*map(_normalised, licence.split(", "))} <= allowed:
        return f"licence {candidate.licence or 'unstated'} is not among {', '.join(settings.licences)}"
    if settings.languages and not {*map(str.casefold, candidate.languages)} & {*map(str.casefold, settings.languages)}:
        return f"language {', '.join(candidate.languages) or 'unstated'} is not among {', '.join(settings.languages)}"
    sizes = [tag.partition(":")[2] for tag in tags if tag.startswith("size_categories:")]
    if settings.sizes and not candidate.path and not set(sizes) & set(settings.sizes):
        return f"size {', '.join(sizes) or 'unstated'} is not among {', '.join(settings.sizes)}"
    return None


def _normalised(licence: str) -> str:
    return licence.casefold().replace(" ", "-").replace("_", "-")


def _in_folder(folder: Path) -> list[Candidate]:
    if not folder.is_dir():
        raise DataError(f"--local {folder} is not a folder; expected a folder of data files and dataset folders.")
    index = read_index(folder)
    candidates: list[Candidate] = []
    for path in sorted(folder.iterdir()):
        if path_name(path) != str(path):
            raise DataError(f"The name of {path_name(path)} is not valid Unicode. Rename it.")
        if path.is_dir() and not is_hidden(path.name):
            candidates += _dataset_folder(path)
        elif is_data_file(path):
            candidates.append(_data_file(path, index.get(task_name(path), {})))
    if not candidates:
        raise DataError(f"{folder} holds no data; expected {', '.join(SUFFIXES)} files (also .gz), or folders of them.")
    return candidates


def _data_file(path: Path, row: dict[str, str]) -> Candidate:
    return Candidate(
        name=task_name(path),
        repository=row.get("source_repo") or task_name(path),
        revision=_hash([path]),
        path=str(path),
        licence=row.get("licence") or None,
        languages=tuple((row.get("language") or "").replace(",", " ").split()),
        domain=row.get("domain") or None,
    )


def _dataset_folder(path: Path) -> Iterator[Candidate]:
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    files = [file for file in files if not any(map(is_hidden, file.relative_to(path).parts))]
    if not any(map(is_data_file, files)):
        return
    card = _read_card(path / "README.md")
    revision = _hash(files)
    for config in configurations(card):
        name = path.name if config is None else f"{path.name}:{config}"
        metadata = licence_and_languages(card)
        yield Candidate(name=name, repository=path.name, config=config, revision=revision, path=str(path), **metadata)


def _read_card(path: Path) -> Any:
    """The metadata of a card, or {} if it is missing or broken. The next stage reports a broken card."""
    with required_by("Folders of datasets", "corpus"):
        import yaml
    try:
        text = path.read_text("utf-8")
        return yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError, RecursionError):
        return {}


def configurations(card: Any) -> list[str | None]:
    """The configurations in a card, or `[None]` if it has none."""
    configs = card.get("configs") if isinstance(card, dict) else None
    entries = configs if isinstance(configs, list) else []
    names = [str(config["config_name"]) for config in entries if isinstance(config, dict) and config.get("config_name")]
    return [*dict.fromkeys(names)] or [None]


def licence_and_languages(card: Any) -> dict[str, Any]:
    """The licence and languages in a card. Each may be one value or a list."""
    values = card if isinstance(card, dict) else {}
    licences, languages = _strings(values.get("license")), _strings(values.get("language"))
    return {"licence": ", ".join(licences) or None, "languages": tuple(languages)}


def _strings(value: Any) -> list[str]:
    values = [item for item in (value if isinstance(value, list) else [value]) if item is not None]
    return ["no" if value is False else str(value) for value in values]  # YAML reads `no`, Norwegian, as false


def _hash(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0".encode("utf-8", "surrogateescape"))
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()[:40]
