"""Build a corpus of tasks, prove that its splits are apart, describe it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from promptmii.cli import corpus_view
from promptmii.cli.group import app
from promptmii.cli.options import BaseUrl, Json, comma_separated
from promptmii.cli.terminal import listening, say

corpus_app = typer.Typer(
    no_args_is_help=True, help="Many data sets as one corpus of clean tasks, for training and evaluation."
)
app.add_typer(corpus_app, name="corpus")

Folder = Annotated[Path, typer.Argument(help="Corpus folder.")]


@corpus_app.command("build")
def build(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file with any of the settings; the options below change them.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Corpus folder; what it holds already is not done again.")
    ] = Path("corpus"),
    local: Annotated[
        list[Path] | None, typer.Option(help="Folder of data files or dataset folders; repeat it for several.")
    ] = None,
    hub: Annotated[bool | None, typer.Option("--hub/--no-hub", help="List the hub (HF_ENDPOINT, HF_TOKEN).")] = None,
    language: Annotated[str | None, typer.Option(help="Languages a dataset must name one of, comma-separated.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licences a dataset must have one of, comma-separated.")] = None,
    most: Annotated[int | None, typer.Option(help="Hub repositories, at most.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Name of an evaluation set to keep out; repeat it for several.")
    ] = None,
    exclude_content: Annotated[
        list[str] | None, typer.Option(help="Evaluation set (file, folder, corpus, suite) to keep out.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model that is asked for columns that schema and values leave open.")
    ] = None,
    base_url: BaseUrl = None,
    workers: Annotated[int | None, typer.Option(help="Processes that fetch.")] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Fetch on a Ray cluster (table [ray] of the configuration).")
    ] = False,
    stage: Annotated[
        Literal["list", "fetch", "columns", "clean", "split"],
        typer.Option(help="Last stage to run, to look at its table."),
    ] = "split",
    retry: Annotated[
        bool, typer.Option("--retry", help="Try again what was gated, gone, too slow or too large.")
    ] = False,
    push: Annotated[str | None, typer.Option(help="Upload the corpus to owner/name on the hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: for everybody to see.")] = False,
    json: Json = False,
) -> None:
    """List, fetch, clean and split data sets. Interrupted or killed, the same command goes on."""
    from promptmii.data.corpus.build import build_corpus
    from promptmii.data.corpus.settings import CorpusSettings

    settings = CorpusSettings.read(
        config,
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
        from promptmii.data.corpus.push import push_corpus

        with listening(quiet=json) as progress:
            progress.step(f"Uploading to {push}")
            address = push_corpus(output, push, private=not public)
        say(f"Uploaded to {address}.")


@corpus_app.command("check")
def check(
    corpus: Folder,
    similarity: Annotated[
        float, typer.Option(min=0.1, max=1.0, help="Overlap from which two texts count as one.")
    ] = 0.7,
    json: Json = False,
) -> None:
    """Count what the splits of a corpus have in common. Anything but nothing ends with exit code 1."""
    from promptmii.data.corpus.leakage import check_corpus

    with listening(quiet=json) as progress:
        progress.step("Comparing the splits")
        report = check_corpus(corpus, similarity)
    corpus_view.leakage(report, as_json=json)
    if not report.clean:
        raise typer.Exit(1)


@corpus_app.command("card")
def card(corpus: Folder) -> None:
    """Describe the corpus in its README.md: counts, domains, languages, label sets, lengths, licences, figures."""
    from promptmii.data.corpus.card import write_card

    with listening(quiet=False) as progress:
        progress.step("Describing the corpus")
        path = write_card(corpus)
    say(f"Read {path}.")
