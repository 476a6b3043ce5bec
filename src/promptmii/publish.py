"""Upload trained weights to the hub, with a model card and evaluation results.

The card names the base model and the licence, and has a table of all scores. `.eval_results/*.yaml` has the scores on
hub datasets, in the format that the hub reads.
"""

import glob
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

from promptmii.data.nameless import is_nameless
from promptmii.errors import ArtefactError, EndpointError, required_by
from promptmii.files import private_folder, write_text
from promptmii.markup import markdown_table
from promptmii.messages import counted, first_line, listed
from promptmii.models.embedded import EMBEDDED
from promptmii.models.references import WRITERS, ServerReference, base_of_adapter, split_adapters, split_device
from promptmii.records import Record, Run
from promptmii.styles import split_style

RESULTS = ".eval_results"
WEIGHTS = ("README.md", "*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", f"{RESULTS}/*.yaml")
"""Files to upload: card, configuration, tokenizer, weights and results, but nothing in other folders below."""
NOT_WEIGHTS = {"trainer_state.json"}
"""A checkpoint's log, with paths of this machine."""
_HUB = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?(?:@([0-9a-f]{40}))?")
_SECTION = re.compile(r"\n## Evaluation\n.*?(?=\n## |\Z)", re.DOTALL)


class Setting(NamedTuple):
    """How the instructions were written and followed."""

    method: str
    """The method, and the style of its writer if that has one."""
    n: int
    follower: str
    """The follower, without addresses and folders of the machine that measured."""
    mode: str


@dataclass(frozen=True)
class Result:
    """The scores on one task."""

    setting: Setting
    task: str
    dataset: tuple[str, str, str | None] | None
    """Repository, configuration and commit, or `None` if the task is not on the hub."""
    macro_f1: float
    """Mean over the seeds."""
    seeds: int
    rows: int
    date: str


def push_weights(
    folder: Path, repository: str, *, private: bool = True, licence: str | None = None, evaluation: Path | None = None
) -> str:
    """Upload trained weights (`RUN/best`, `RUN/checkpoint-N`) and return the reference that loads them from the hub.

    `licence` defaults to the base model's; `evaluation` is a run folder of `promptmii evaluate`. Writes the card and
    the results into the folder first. Raises `EndpointError`; `ArtefactError` if the folder has no weights or the
    run did not measure them; `UnknownModelError` if its adapter names no base model; and `MissingDependencyError`.
    """
    _require_hub()
    if not list(folder.glob("*.safetensors")):
        raise ArtefactError(
            f"{folder} holds no weights; expected a folder with .safetensors files, such as runs/mine/best."
        )
    results = measured(folder, evaluation) if evaluation else []
    base = base_of_adapter(folder)  # `None` for full weights
    if base and base.split("+")[0] not in EMBEDDED and not base.startswith("hf:"):
        base = f"hf:{base}"
    _describe(folder, repository, _hub_model(base), licence, results)
    for setting in {result.setting for result in results}:
        _write_results(folder, setting, [result for result in results if result.setting == setting])
    # The hub's patterns would also match in subfolders, such as older checkpoints.
    files = [path for pattern in WEIGHTS for path in folder.glob(pattern) if path.name not in NOT_WEIGHTS]
    names = [glob.escape(path.relative_to(folder).as_posix()) for path in files]
    upload(folder, repository, kind="model", patterns=names, private=private, message="Weights")
    return f"{base}+{repository}" if base else f"hf:{repository}"


def measured(folder: Path, evaluation: Path) -> list[Result]:
    """The scores of a folder's weights in a run, averaged over seeds. Raises `ArtefactError` if there are none."""
    groups: dict[tuple[Setting, str], list[Record]] = defaultdict(list)
    writers: set[str] = set()
    for record in Run.read(evaluation).records.values():
        cell = record.cell
        if record.status == "done" and cell.generator:
            writers.add(cell.generator)
            if _refers_to(cell.generator, folder):
                _, style = split_style(cell.generator)
                method = f"{cell.method}#{style}" if style else cell.method
                groups[Setting(method, cell.n, _public(cell.follower), cell.mode), cell.task].append(record)
    if not groups:
        raise ArtefactError(
            f"{evaluation} measured nothing that {folder} wrote. Its generators: {listed(sorted(writers)) or 'none'}."
        )
    return [_result(setting, task, records) for (setting, task), records in sorted(groups.items())]


def _result(setting: Setting, task: str, records: Sequence[Record]) -> Result:
    scores = [r.instruction.measured for r in records if r.instruction and r.instruction.measured]
    source = next((r.instruction.provenance.source for r in records if r.instruction), "")
    name = source.removeprefix("hub:") if source.startswith("hub:") else task
    match = None if is_nameless(task) else _HUB.fullmatch(name)  # with hidden names, it is not the dataset's task
    dataset = (match[1], match[2] or "default", match[3]) if match else None
    value, date = fmean(score.macro_f1 for score in scores), max(r.finished for r in records)
    return Result(setting, task, dataset, value, len(scores), scores[0].n, date)


def _refers_to(generator: str, folder: Path) -> bool:
    """True if a reference includes the weights in the folder."""
    first, *adapters = split_adapters(split_style(generator)[0])
    parts = (split_device(first)[0].removeprefix("hf:"), *adapters)
    return any(part and Path(part).resolve() == folder.resolve() for part in parts)


def _public(reference: str) -> str:
    """A model reference without a server's address, and with only the names of absolute paths."""
    if server := ServerReference.parse(reference):
        return f"openai:{server.model}"
    return "+".join(map(_without_folder, split_adapters(reference)))


def _without_folder(part: str) -> str:
    path = part.removeprefix("hf:").removeprefix("gguf:")
    return part.removesuffix(path) + Path(path).name if Path(path).is_absolute() else part


class _Origin(NamedTuple):
    """The repository and licence of a base model on the hub."""

    repository: str | None
    licence: str | None


def _hub_model(base: str | None) -> _Origin:
    """The origin of a base model, as far as promptmii or the hub knows it."""
    name = (base or "").removeprefix("hf:").split("+")[0]
    embedded = EMBEDDED.get(WRITERS.get(name, name))
    if embedded:
        return _Origin(embedded.repository, embedded.licence.lower())
    if not base or Path(name).exists():
        return _Origin(None, None)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    try:
        data = HfApi().model_info(name).card_data
    except HFValidationError:  # a folder on another machine
        return _Origin(None, None)
    except _hub_errors():  # the card then omits the licence
        return _Origin(name, None)
    return _Origin(name, data.license if data and isinstance(data.license, str) else None)


def _describe(folder: Path, repository: str, base: _Origin, licence: str | None, results: Sequence[Result]) -> None:
    """Add the licence, the base model and a table of results to the card. The rest of its text stays."""
    from huggingface_hub import ModelCard

    path = folder / "README.md"
    if not path.exists():
        path.write_text(f"# {repository.rpartition('/')[2]}\n", encoding="utf-8")
    card = ModelCard.load(path)
    data: Any = card.data
    data.license = licence or data.license or base.licence
    data.base_model = base.repository or data.base_model
    data.pipeline_tag = "text-generation"
    data.tags = list(dict.fromkeys([*(data.tags or []), "promptmii", "text-classification"]))
    if results:  # else an earlier table stays, as the files of results do
        card.text = _SECTION.sub("", card.text).rstrip("\n") + "\n" + _table(results)
    card.save(path)


def _table(results: Sequence[Result]) -> str:
    header = ("task", "method", "n", "follower", "mode", "macro-F1", "seeds", "rows")
    rows = [(r.task, *r.setting, f"{r.macro_f1:.3f}", r.seeds, r.rows) for r in results]
    intro = "Macro-F1 of the follower under instructions of these weights:"
    return f"\n## Evaluation\n\n{intro}\n\n{markdown_table(header, rows)}\n"


def _write_results(folder: Path, setting: Setting, results: Sequence[Result]) -> None:
    """Write one setting's results on hub datasets, in the hub's format."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    notes = f"macro-F1; {setting.method}, {setting.n} examples, follower {setting.follower}, mode {setting.mode}"
    entries = [
        EvalResultEntry(
            dataset_id=result.dataset[0],
            task_id=result.dataset[1],
            dataset_revision=result.dataset[2],
            value=round(result.macro_f1, 4),
            date=result.date,
            notes=f"{notes}; {counted(result.seeds, 'seed')}, {counted(result.rows, 'row')}",
        )
        for result in results
        if result.dataset
    ]
    if entries:
        name = re.sub(r"[^\w.-]+", "_", f"promptmii-{setting.method}-n{setting.n}-{setting.follower}-{setting.mode}")
        private_folder(folder / RESULTS)
        text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
        write_text(folder / RESULTS / f"{name}.yaml", text, force=True)


def _require_hub() -> None:
    """Raise `MissingDependencyError` if the hub's package is missing."""
    with required_by("Uploading", "hub"):
        import_module("huggingface_hub")


def _hub_errors() -> tuple[type[Exception], ...]:
    """The errors of the hub's client, which lets those of its HTTP library (httpx, httpx2, ...) through."""
    from huggingface_hub.errors import HfHubHTTPError

    library: Any = HfHubHTTPError.__bases__[0]
    return (library, OSError, ValueError)  # ValueError: an invalid name, or another server answered


def upload(
    folder: Path,
    repository: str,
    *,
    kind: Literal["model", "dataset"],
    patterns: Sequence[str],
    private: bool,
    message: str,
) -> str:
    """Upload only the files that match `patterns` to `owner/name`, creating it if needed; return its address.

    Raises `EndpointError`, `MissingDependencyError`.
    """
    _require_hub()
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(
            folder_path=folder,
            repo_id=repository,
            repo_type=kind,
            allow_patterns=list(patterns),
            commit_message=message,
        )
    except _hub_errors() as error:
        problem = f"{folder} cannot be uploaded to {repository}: {first_line(error)}."
        raise EndpointError(f"{problem} Expected owner/name, a token in HF_TOKEN, and a network.") from error
    return str(address)
