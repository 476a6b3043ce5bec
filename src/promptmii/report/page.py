"""The report of runs: one self-contained page, with its figures and tables beside it as files.

The page holds its style, script, figures, numbers and instructions. Its content security policy forbids network access
and any script but its own. Text from tasks and models is escaped by the template, or inserted as text by the script.
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

from promptmii.errors import ScoreRefusedError
from promptmii.messages import counted
from promptmii.report import costs, figures, headline, tables, transfer
from promptmii.report.drawing import INK, WIDTH, Drawn, looks
from promptmii.report.methods import summary
from promptmii.report.output import FIGURES, TABLES, Files, ShownFigure, ShownTable, Tip
from promptmii.report.page_data import numbers, task_details
from promptmii.report.paper import paper_scale_tables, published_tables
from promptmii.report.results import Results
from promptmii.report.scores import Scores, nearest_n
from promptmii.report.statistics import points
from promptmii.report.tables import prompt_length, with_interval
from promptmii.schema import storable
from promptmii.train.run_folder import VALIDATION, Curves
from promptmii.version import VERSION

FAILED_ROWS = 200
"""Failed cells listed on the page; the CSV has all."""
MODES = {
    "generate": "the follower writes its answer, and one parser reads the label from it, as in the paper",
    "choose": "the follower's likelihoods of the labels are compared, so there is always a label",
}
COST_UNITS = ("calls to make the instruction", "tokens to make it and to label", "seconds to make it and to label")


def write_report(results: Results, out: Path) -> Path:
    """Write `index.html`, `figures/` and `tables/` into `out`, and return the page's path.

    Training runs add their curves, or make a page of curves alone. An earlier report in `out` is replaced once
    everything is drawn; other files stay. Raises `ScoreRefusedError` if every cell failed, after the page is written;
    `OutputError` if `out` cannot be written.
    """
    files = Files.at(out)
    if not results.run.records:
        runs = results.curves
        names = ", ".join(run.name for run in runs)
        progress = [("", headline.progress(run)) for run in runs]
        return files.page(_page(title=f"Training of {names}", winners=progress, training=training(runs, files)))
    claims = results.claims
    page = files.page(
        _page(
            title=headline.title(results.cells),
            winners=_by_scope(results, headline.winner),
            findings=_by_scope(
                results,
                lambda scores, n: f"{headline.finding(scores, n, claims)} {headline.unbeaten(scores, n)}".strip(),
            ),
            details=task_details(results),
            data=_embedded_json(numbers(results)),
            **sections(results, files),
        )
    )
    if results.nothing_scored:
        failed = results.run.failed
        raise ScoreRefusedError(
            f"All cells failed ({counted(len(failed), 'cell')}; first: {failed[0].error}). {page} lists why; "
            "run them again with: promptmii evaluate ... --retry-failed"
        )
    return page


def _page(**values: Any) -> str:
    script = _file("page.js") + _file("tasks.js")
    environment = Environment(
        loader=PackageLoader("promptmii.report", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    text: str = environment.get_template("page.html").render(
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
    return storable(text)  # records may hold lone surrogates


def _file(name: str) -> str:
    return resources.files("promptmii.report").joinpath(name).read_text(encoding="utf-8")


def _by_scope(results: Results, sentences: Callable[[Scores, int], str]) -> list[tuple[str, str]]:
    """The title and the sentences of each scope. A single scope has no title."""
    several = len(results.by_scope) > 1
    return [(scores.scope.title if several else "", sentences(scores, n)) for scores, n in results.at_n]


def _embedded_json(value: object) -> Markup:
    """JSON that cannot end the HTML element that contains it."""
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))


class ByN(NamedTuple):
    """Tables for several n, of which the page shows one at a time."""

    group: str
    """A name for the group of tables, unique on the page."""
    tables: Mapping[int, Sequence[ShownTable]]
    n: int
    """The n shown first."""
    figure: ShownFigure | None = None


def sections(results: Results, files: Files) -> dict[str, Any]:
    """The values for the template, which omits sections whose value is empty."""
    by_scope, run = results.by_scope, results.run
    return {
        "legend": legend(results),
        "length": [files.figure(figures.length_figure(scores), _point_tip([scores])) for scores in by_scope],
        "headline": files.table(headline.claim_table(results.claims)) if results.claims else None,
        "long_prompts": [*filter(None, (headline.long_prompts(scores, n) for scores, n in results.at_n))],
        "facts": headline.facts(run, results.cells, results.folders),
        "methods": {series.method: summary(series.method) for series in results.series},
        "modes": {scores.scope.mode: MODES[scores.scope.mode] for scores in by_scope},
        "method_tables": [*map(files.table, [*map(tables.method_table, by_scope), *published_tables(by_scope)])],
        "pareto": files.figure(figures.pareto_figure(by_scope), _point_tip(by_scope)),
        "budgets": [files.table(tables.budget_table(scores)) for scores in by_scope],
        "training": training(results.curves, files) if results.curves else None,
        "costs": [_costs(results, scores, n, files) for scores, n in results.at_n],
        "transfers": _transfers(results, files),
        "comparisons": [_comparisons(scores, n, files) for scores, n in results.at_n if len(scores.series) > 1],
        "outcome": results.side_by_side,
        "untrained": results.untrained,
        "task_tables": [files.table(tables.task_table(scores)) for scores in by_scope],
        "paper_scale": [*map(files.table, paper_scale_tables(run, results.cells, by_scope))],
        "failures": files.table(tables.failure_table(results.cells)),
        "failed": files.table(tables.failed_cell_table(run.failed, run.damaged), max_rows=FAILED_ROWS)
        if run.failed or run.damaged
        else None,
        "torn": [f"{run.name}: {run.damaged}" for run in results.curves if run.damaged],
    }


def legend(results: Results) -> list[tuple[str, str, str]]:
    """Name, CSS colour and line style of each series. Series of several followers may share a name."""
    entries: list[tuple[str, str, str]] = []
    for name, look in looks(results.series).items():
        colour = "var(--ink)" if look.colour == INK else f"var(--c-{look.colour[1:]}, {look.colour})"
        entries.append((name, colour, "solid" if look.line == "-" else "dashed"))
    return entries


def _point_tip(by_scope: Sequence[Scores]) -> Tip:
    by_panel = [{(mean.series.name, mean.tokens, mean.mean): mean for mean in points(scores)} for scores in by_scope]

    def tip(panel: int, name: str, x: float, y: float) -> str:
        mean = by_panel[panel][name, x, y]
        heading = f"{name}, n={mean.n}" if mean.n else name
        score = f"macro-F1 {with_interval(mean)}"
        return f"{heading}\n{score}\n{prompt_length(mean.tokens)}\n{counted(mean.tasks, 'task')}"

    return tip


def training(runs: Sequence[Curves], files: Files) -> dict[str, Any]:
    """The validation reward, the most important curves, and one figure of all others."""
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    important = figures.important([name for name in names if name != VALIDATION])
    rest = [name for name in names if name not in (VALIDATION, *important)]

    def show(drawn: Drawn, quantities: Sequence[str]) -> ShownFigure:
        def tip(panel: int, run: str, x: float, y: float) -> str:
            return f"{run}, step {x:,.0f}\n{quantities[panel]} {y:.4g}"

        return files.figure(drawn, tip, method=False)

    first: list[ShownFigure] = []
    others: ShownFigure | None = None
    if VALIDATION in names:
        first.append(show(figures.validation_figure(runs), [VALIDATION]))
    if important:
        caption = "The most important curves, unsmoothed."
        first.append(show(figures.training_figure(runs, important, "training", caption), important))
    if rest:
        caption = "All other curves of the same runs."
        others = show(figures.training_figure(runs, rest, "training-all", caption), rest)
    return {"rewarded": VALIDATION in names, "first": first, "others": others, "count": len(rest)}


def _costs(results: Results, scores: Scores, n: int, files: Files) -> tuple[ShownFigure, ShownTable]:
    drawn = costs.cost_figure(results.cells, scores, n)
    return files.figure(drawn, _cost_tip), files.table(costs.cost_table(results.cells, scores.scope))


def _cost_tip(panel: int, name: str, x: float, _: float) -> str:
    return f"{name}\n{costs.rounded(x)} {COST_UNITS[panel]}"


def _transfers(results: Results, files: Files) -> list[ByN]:
    groups: list[ByN] = []
    for way, by_n in transfer.transfers(results.by_scope).items():
        chosen = by_n[nearest_n(by_n, results.n)]
        figure = files.figure(transfer.transfer_figure(chosen))
        shown = {n: [files.table(transfer.transfer_table(matrix))] for n, matrix in by_n.items()}
        groups.append(ByN(f"transfer-{way}", shown, chosen.n, figure))
    return groups


def _comparisons(scores: Scores, n: int, files: Files) -> ByN:
    both = {n: (tables.win_table(scores, n), tables.pair_table(scores, n)) for n in scores.ns}
    shown = {n: [*map(files.table, own)] for n, own in both.items()}
    return ByN(f"pairs-{scores.scope.slug}", shown, n)
