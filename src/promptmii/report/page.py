"""The report of runs: one page that works from a file, with its figures and tables beside it.

The page holds everything: style, script, figures, numbers, instructions. Its policy forbids any network and any script
but its own. What comes from tasks and models is escaped by the template, or set as text by the script.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from promptmii.curves import VALIDATION, Curves, read_curves
from promptmii.errors import ScoreRefusedError, counted
from promptmii.report import costs, figures, headline, tables, transfer
from promptmii.report.drawing import INK, WIDTH, Drawn, looks
from promptmii.report.methods import summary
from promptmii.report.output import FIGURES, TABLES, Files, ShownFigure, ShownTable, Tip
from promptmii.report.page_data import numbers, task_details
from promptmii.report.paper import paper_scale_tables, published_tables
from promptmii.report.results import Results, outcome, split_folders
from promptmii.report.scores import Scores, nearest_n
from promptmii.report.statistics import points
from promptmii.report.tables import prompt_length, with_interval
from promptmii.version import VERSION

FAILED_ROWS = 200
"""Failed cells that the page lists; the CSV has all."""
MODES = {
    "generate": "the follower writes its answer, and one parser reads the label from it, as in the paper",
    "choose": "the follower's likelihoods of the labels are compared, so there is always a label",
}
COSTS = ("calls to make the instruction", "tokens to make it and to label", "seconds to make it and to label")


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write `index.html`, `figures/` and `tables/` into `out`, and return the page's path.

    Folders are runs of `promptmii evaluate`, and training runs for their curves; with training runs alone, the page
    shows the curves. It replaces an earlier report in `out` once everything is read and drawn; other files stay.
    Raises `ScoreRefusedError`, once the page is written, if every cell failed; `ArtefactError` if an evaluation holds
    no cell; `OutputError` if `out` cannot be written.
    """
    evaluations, trained = split_folders(folders)
    if not evaluations:
        files, runs = Files.at(out), read_curves(trained)
        named = ", ".join(run.name for run in runs)
        winners = [("", headline.progress(run)) for run in runs]
        return files.page(_page(title=f"Training of {named}", winners=winners, training=training(runs, files)))
    results = Results.read(folders)
    files, run, n, claims = Files.at(out), results.run, results.n, results.claims
    page = files.page(
        _page(
            title=headline.title(results.cells),
            winners=_told(results, lambda own: [headline.winner(own, n)]),
            findings=_told(results, lambda own: [headline.finding(own, n, claims), headline.unbeaten(own, n)]),
            details=task_details(results),
            data=_embedded(numbers(results)),
            **sections(results, files),
        )
    )
    if len(run.failed) == len(run.records):
        raise ScoreRefusedError(
            f"All cells failed ({counted(len(run.failed), 'cell')}; first: {run.failed[0].error}). {page} lists why; "
            "run them again with: promptmii evaluate ... --retry-failed"
        )
    return page


def _page(**values: Any) -> str:
    script = _file("page.js") + _file("tasks.js")
    environment = Environment(
        loader=PackageLoader("promptmii.report", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template("page.html").render(
        {"data": Markup("{}")} | values,
        key=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        script=Markup(script),
        style=Markup(_file("page.css")),
        wide=f"{WIDTH * 80:.0f}",
        figure_kinds=FIGURES,
        table_kinds=TABLES,
        version=VERSION,
        date=date.today().isoformat(),
    )
    # A lone surrogate, which records may hold, is no text that a file can have.
    return text.encode("utf-8", "replace").decode()


def _file(name: str) -> str:
    return resources.files("promptmii.report").joinpath(name).read_text(encoding="utf-8")


def _told(results: Results, tell: Callable[[Scores], Sequence[str]]) -> list[tuple[str, str]]:
    """Sentences on each scope, which is named if there are several."""
    several = len(results.by_scope) > 1
    return [(own.scope.title if several else "", " ".join(filter(None, tell(own)))) for own in results.by_scope]


def _embedded(value: object) -> Markup:
    """JSON that cannot end the element that it stands in."""
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))


class ByN(NamedTuple):
    """Tables by n, of which the page shows one n at a time."""

    group: str
    tables: Mapping[int, Any]
    n: int
    drawn: ShownFigure | None = None


def sections(results: Results, files: Files) -> dict[str, Any]:
    """The values of the template. What is empty has no section."""
    by_scope, run = results.by_scope, results.run
    return {
        "legend": legend(results),
        "length": [files.figure(figures.length_figure(own), _point_tip([own])) for own in by_scope],
        "headline": files.table(headline.claim_table(results.claims)) if results.claims else None,
        "long_prompts": [*filter(None, (headline.long_prompts(own, results.n) for own in by_scope))],
        "facts": headline.facts(run, results.cells, results.folders),
        "methods": {one.method: summary(one.method) for one in results.series},
        "modes": {own.scope.mode: MODES[own.scope.mode] for own in by_scope},
        "method_tables": [*map(files.table, [*map(tables.method_table, by_scope), *published_tables(by_scope)])],
        "pareto": files.figure(figures.pareto_figure(by_scope), _point_tip(by_scope)),
        "budgets": [files.table(tables.budget_table(own)) for own in by_scope],
        "training": training(results.curves, files) if results.curves else None,
        "costs": [_costs(results, own, files) for own in by_scope],
        "transfers": _transfers(results, files),
        "comparisons": [*filter(None, (_comparisons(results, own, files) for own in by_scope))],
        "outcome": outcome(results),
        "untrained": results.untrained,
        "task_tables": [files.table(tables.task_table(own)) for own in by_scope],
        "paper_scale": [*map(files.table, paper_scale_tables(run, results.cells, by_scope))],
        "failures": files.table(tables.failure_table(results.cells)),
        "failed": files.table(tables.failed_cell_table(run), most=FAILED_ROWS) if run.failed or run.damaged else None,
        "torn": [f"{run.name}: {run.damaged}" for run in results.curves if run.damaged],
    }


def legend(results: Results) -> list[tuple[str, str, str]]:
    """Name, colour and line of each method. With several followers a name stands for a series of each."""
    entries: list[tuple[str, str, str]] = []
    for name, look in looks(results.series).items():
        colour = "var(--ink)" if look.colour == INK else f"var(--c-{look.colour[1:]}, {look.colour})"
        entries.append((name, colour, "solid" if look.line == "-" else "dashed"))
    return entries


def _point_tip(by_scope: Sequence[Scores]) -> Tip:
    known = [{(p.series.name, p.tokens, p.mean): p for p in points(own)} for own in by_scope]

    def tip(panel: int, name: str, x: float, y: float) -> str:
        mean = known[panel][name, x, y]
        given = f", n={mean.n}" if mean.n else ""
        score = f"macro-F1 {with_interval(mean)}"
        return f"{name}{given}\n{score}\n{prompt_length(mean.tokens)}\n{counted(mean.tasks, 'task')}"

    return tip


def training(runs: Sequence[Curves], files: Files) -> dict[str, Any]:
    """The validation reward and the curves that matter most; all others together."""
    named = dict.fromkeys(name for run in runs for name in run.metrics)
    first = figures.important([name for name in named if name != VALIDATION])
    rest = [name for name in named if name not in (VALIDATION, *first)]

    def show(drawn: Drawn, shown: Sequence[str]) -> ShownFigure:
        tip: Tip = lambda panel, run, x, y: f"{run}, step {x:,.0f}\n{shown[panel]} {y:.4g}"  # noqa: E731
        return files.figure(drawn, tip, method=False)

    def panels(shown: Sequence[str], name: str, caption: str) -> ShownFigure | None:
        return show(figures.training_figure(runs, shown, name, caption), shown) if shown else None

    reward = show(figures.validation_figure(runs), [VALIDATION]) if VALIDATION in named else None
    most = panels(first, "training", "The curves that matter most, without smoothing.")
    others = panels(rest, "training-all", "All other curves of the same runs.")
    return {"rewarded": bool(reward), "first": [*filter(None, (reward, most))], "others": others, "count": len(rest)}


def _costs(results: Results, own: Scores, files: Files) -> tuple[ShownFigure, ShownTable]:
    drawn = costs.cost_figure(results.cells, own, nearest_n(own.ns, results.n))
    return files.figure(drawn, _cost_tip), files.table(costs.cost_table(results.cells, own.scope))


def _cost_tip(panel: int, name: str, x: float, _: float) -> str:
    return f"{name}\n{costs.rounded(x)} {COSTS[panel]}"


def _transfers(results: Results, files: Files) -> list[ByN]:
    by_way: dict[str, dict[int, transfer.Transfer]] = {}
    for one in transfer.transfers(results.by_scope):
        by_way.setdefault(one.way, {})[one.n] = one
    found: list[ByN] = []
    for way, by_n in by_way.items():
        chosen = by_n[nearest_n(by_n, results.n)]
        drawn = files.figure(transfer.transfer_figure(chosen))
        made = {n: files.table(transfer.transfer_table(one)) for n, one in by_n.items()}
        found.append(ByN(f"transfer-{way}", made, chosen.n, drawn))
    return found


def _comparisons(results: Results, own: Scores, files: Files) -> ByN | None:
    if len(own.series) < 2:
        return None
    made = {n: tuple(map(files.table, tables.pair_tables(own, n))) for n in own.ns}
    return ByN(f"pairs-{own.scope.slug}", made, nearest_n(own.ns, results.n))
