"""`promptmii corpus`: build a corpus of tasks, check its splits for leaks, describe it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from promptmii.cli.bars import listening
from promptmii.cli.blocks import blocks
from promptmii.cli.group import CHECK_FAILED, Group, app
from promptmii.cli.options import BaseUrl, Json, ListRecipes, Recipe, comma_separated
from promptmii.cli.terminal import dump, out, say, table, warn
from promptmii.errors import ConfigError
from promptmii.messages import counted

if TYPE_CHECKING:
    from promptmii.corpus.build import Built
    from promptmii.corpus.overlap import LeakageReport

corpus_app = typer.Typer(cls=Group, no_args_is_help=True, help="Turn many datasets into one corpus of clean tasks.")
app.add_typer(corpus_app, name="corpus")

Folder = Annotated[Path, typer.Argument(help="Corpus folder.")]


@dataclass(frozen=True)
class _BuildOptions:
    """Options that override the recipe."""

    local: Annotated[list[Path] | None, typer.Option(help="Folder of data files and datasets; repeatable.")] = None
    hub: Annotated[
        bool | None, typer.Option("--hub/--no-hub", help="Take datasets from the hub (HF_TOKEN, HF_ENDPOINT).")
    ] = None
    language: Annotated[str | None, typer.Option(help="Keep datasets in these languages, comma-separated.")] = None
    licence: Annotated[str | None, typer.Option(help="Keep datasets under these licences, comma-separated.")] = None
    most: Annotated[int | None, typer.Option(help="Maximum number of hub repositories to list.")] = None
    exclude: Annotated[list[str] | None, typer.Option(help="Evaluation set to leave out, by name; repeatable.")] = None
    exclude_content: Annotated[
        list[str] | None,
        typer.Option(help="Evaluation set (file, folder, corpus, suite) whose texts are left out; repeatable."),
    ] = None
    model: Annotated[
        str | None, typer.Option(help="Model that chooses the columns if schema and values do not decide.")
    ] = None
    base_url: BaseUrl = None
    workers: Annotated[int | None, typer.Option(help="Number of processes that fetch.")] = None
    ray: Annotated[bool, typer.Option("--ray", help="Fetch on a Ray cluster (table [ray]).")] = False

    @property
    def settings(self) -> dict[str, Any]:
        """The options as in the TOML file; None if not set."""
        return {
            "list": {
                "local": tuple(map(str, self.local)) if self.local else None,
                "hub": self.hub,
                "most": self.most,
                "languages": comma_separated(self.language),
                "licences": comma_separated(self.licence),
            },
            "columns": {"model": self.model, "endpoint": {"base_url": self.base_url}},
            "split": {"exclude": self.exclude or None, "exclude_content": self.exclude_content or None},
            "workers": self.workers,
            "ray": {} if self.ray else None,
        }


@corpus_app.command("build")
@blocks
def build(
    options: _BuildOptions,
    recipe: Annotated[str | None, Recipe] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Corpus folder; an unfinished build in it is resumed.")
    ] = Path("corpus"),
    stage: Annotated[
        Literal["list", "fetch", "columns", "clean", "split"], typer.Option(help="Last stage to run.")
    ] = "split",
    retry: Annotated[
        bool, typer.Option("--retry", help="Retry datasets that were gated, gone, too slow or too large.")
    ] = False,
    push: Annotated[str | None, typer.Option(help="Upload the corpus to owner/name on the hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: make it public.")] = False,
    json: Json = False,
    _list: ListRecipes = False,
) -> None:
    """Build a corpus: list, fetch, clean and split datasets. After an interruption, run it again to resume."""
    from promptmii.configs import config_path
    from promptmii.corpus.build import build_corpus
    from promptmii.corpus.card import push_corpus
    from promptmii.corpus.settings import CorpusSettings

    if push and stage != "split":
        raise ConfigError(f"--push uploads a finished corpus, but --stage {stage} stops before that. Leave out one.")
    settings = CorpusSettings.read(config_path("corpus", recipe) if recipe else None, **options.settings)
    with listening(quiet=json) as progress:
        built = build_corpus(settings, output, until=stage, retry=retry, progress=progress)
    _show_built(built, as_json=json)
    if push:
        with listening(quiet=json) as progress:
            progress.step(f"Uploading to {push}")
            address = push_corpus(output, push, private=not public)
        say(f"Uploaded to {address}.")


@corpus_app.command("check")
def check(
    corpus: Folder,
    similarity: Annotated[
        float, typer.Option(min=0.1, max=1.0, help="Two texts at least this similar count as the same.")
    ] = 0.7,
    json: Json = False,
) -> None:
    """Count what the splits of a corpus share. Exits with code 1 if they share anything."""
    from promptmii.corpus.overlap import check_corpus

    with listening(quiet=json) as progress:
        progress.step("Comparing the splits")
        report = check_corpus(corpus, similarity)
    _show_leakage(report, as_json=json)
    if not report.clean:
        raise typer.Exit(CHECK_FAILED)


@corpus_app.command("card")
def card(corpus: Folder, json: Json = False) -> None:
    """Describe a corpus in its README.md, with counts, licences, leakage and figures."""
    from promptmii.corpus.card import write_card

    with listening(quiet=json) as progress:
        progress.step("Describing the corpus")
        path = write_card(corpus)
    if json:
        dump({"file": path})
    else:
        say(f"Saved to {path}.")


def _show_built(built: "Built", *, as_json: bool) -> None:
    """Print the numbers of datasets that each stage kept and dropped, the most common reasons, and the leaks."""
    reasons = {
        stage: {entry.name: entry.reason for entry in entries if not entry.kept}
        for stage, entries in built.stages.items()
    }
    n_kept = {stage: len(entries) - len(reasons[stage]) for stage, entries in built.stages.items()}
    if as_json:
        stages = {stage: {"kept": n_kept[stage], "dropped": dropped} for stage, dropped in reasons.items()}
        report = _as_json(built.leakage) if built.leakage else None
        dump({"folder": str(built.folder), "stages": stages, "leakage": report})
        return
    grid = table(f"Corpus {built.folder}", "stage", "kept", "dropped")
    grid.add_column("most common reasons")
    for stage, dropped in reasons.items():
        common = "\n".join(f"{n} x {reason[:100]}" for reason, n in Counter(dropped.values()).most_common(3))
        grid.add_row(stage, str(n_kept[stage]), str(len(dropped)), common)
    out.write_table(grid)
    out.write_line(f"Every dataset and its verdict: {built.folder}/{{{','.join(built.stages)}}}.csv")
    if any(entry.temporary for entries in built.stages.values() for entry in entries):
        out.write_line("Some were gated, gone, too slow or too large; retry them with --retry.")
    if built.leakage:
        _show_leakage(built.leakage, as_json=False)
        use = "evaluate --tasks" if built.leakage.tasks["heldout"] else "train smol-cpu --tasks"
        out.write_line(f"See {built.folder / 'README.md'}. Use it with: promptmii {use} {built.folder}")
    else:
        out.write_line(f"Stopped after the stage {list(built.stages)[-1]}; run it again without --stage to continue.")


def _show_leakage(report: "LeakageReport", *, as_json: bool) -> None:
    if as_json:
        dump(_as_json(report))
        return
    tasks = ", ".join(f"{report.tasks[split]} {split} ({report.texts[split]} texts)" for split in report.tasks)
    out.write_line(f"Tasks: {tasks}.")
    grid = table("In common", "splits", "repositories", "groups", "texts", "near-duplicate texts")
    for pair in report.exact:
        columns = (report.repositories, report.groups, report.exact, report.near)
        grid.add_row(pair, *(str(column[pair]) for column in columns))
    out.write_table(grid)
    for leak in report.leaks[:20]:
        both = f"{leak.first} ({leak.splits[0]}), {leak.second} ({leak.splits[1]})"
        warn(f"{counted(leak.texts, 'text')}: {both}", word="Leak:")
    for name in report.repeated_names:
        warn(f"two tasks are named {name}", word="Leak:")
    verdict = "No text of one split is in another." if report.clean else "The splits overlap."
    out.write_line(verdict, "" if report.clean else "red")


def _as_json(report: "LeakageReport") -> Mapping[str, Any]:
    return {"clean": report.clean, **asdict(report)}
