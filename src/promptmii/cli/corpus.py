"""Build a corpus of tasks, check that its splits share nothing, describe it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from promptmii.cli import corpus_view
from promptmii.cli.group import app
from promptmii.cli.options import BaseUrl, Json, ListRecipes, Recipe, comma_separated
from promptmii.cli.terminal import listening, say

corpus_app = typer.Typer(no_args_is_help=True, help="Turn many datasets into one corpus of clean tasks.")
app.add_typer(corpus_app, name="corpus")

Folder = Annotated[Path, typer.Argument(help="Corpus folder.")]


@corpus_app.command("build")
def build(
    recipe: Annotated[str | None, Recipe] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Corpus folder. A build that it holds is resumed.")
    ] = Path("corpus"),
    local: Annotated[
        list[Path] | None, typer.Option(help="Folder of data files and dataset folders; repeatable.")
    ] = None,
    hub: Annotated[bool | None, typer.Option("--hub/--no-hub", help="List the hub (HF_ENDPOINT, HF_TOKEN).")] = None,
    language: Annotated[
        str | None, typer.Option(help="Keep datasets that declare one of these languages, comma-separated.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Keep datasets with one of these licences, comma-separated.")
    ] = None,
    most: Annotated[int | None, typer.Option(help="Most hub repositories to list.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Name of an evaluation set to leave out; repeatable.")
    ] = None,
    exclude_content: Annotated[
        list[str] | None,
        typer.Option(help="Evaluation set (file, folder, corpus, suite) whose texts to leave out; repeatable."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model to ask if schema and values do not decide the columns.")
    ] = None,
    base_url: BaseUrl = None,
    workers: Annotated[int | None, typer.Option(help="Processes that fetch.")] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Fetch on a Ray cluster (table [ray] of the configuration).")
    ] = False,
    stage: Annotated[
        Literal["list", "fetch", "columns", "clean", "split"],
        typer.Option(help="Last stage to run."),
    ] = "split",
    retry: Annotated[
        bool, typer.Option("--retry", help="Try datasets again that were gated, gone, too slow or too large.")
    ] = False,
    push: Annotated[str | None, typer.Option(help="Upload the corpus to owner/name on the hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: visible to everybody.")] = False,
    json: Json = False,
    _list: ListRecipes = False,
) -> None:
    """List, fetch, clean and split datasets. After an interruption the same command resumes."""
    from promptmii.configs import config_path
    from promptmii.corpus.build import build_corpus
    from promptmii.corpus.card import push_corpus
    from promptmii.corpus.settings import CorpusSettings

    settings = CorpusSettings.read(
        config_path("corpus", recipe) if recipe else None,
        list={
            "local": tuple(map(str, local)) if local else None,
            "hub": hub,
            "languages": comma_separated(language),
            "licences": comma_separated(licence),
            "most": most,
        },
        columns={"model": model, "endpoint": {"base_url": base_url}},
        split={
            "exclude": tuple(exclude) if exclude else None,
            "exclude_content": tuple(exclude_content) if exclude_content else None,
        },
        workers=workers,
        ray={} if ray else None,
    )
    with listening(quiet=json) as progress:
        built = build_corpus(settings, output, until=stage, retry=retry, progress=progress)
    corpus_view.corpus_built(built, as_json=json)
    if push:
        with listening(quiet=json) as progress:
            progress.step(f"Uploading to {push}")
            address = push_corpus(output, push, private=not public)
        say(f"Uploaded to {address}.")


@corpus_app.command("check")
def check(
    corpus: Folder,
    similarity: Annotated[
        float, typer.Option(min=0.1, max=1.0, help="Similarity from which two texts count as one.")
    ] = 0.7,
    json: Json = False,
) -> None:
    """Count what the splits of a corpus have in common. Exit code 1 if there is anything."""
    from promptmii.corpus.leakage import check_corpus

    with listening(quiet=json) as progress:
        progress.step("Comparing the splits")
        report = check_corpus(corpus, similarity)
    corpus_view.leakage(report, as_json=json)
    if not report.clean:
        raise typer.Exit(1)


@corpus_app.command("card")
def card(corpus: Folder) -> None:
    """Describe a corpus in its README.md: counts, domains, languages, licences, lengths, leakage, figures."""
    from promptmii.corpus.card import write_card

    with listening(quiet=False) as progress:
        progress.step("Describing the corpus")
        path = write_card(corpus)
    say(f"Read {path}.")
