"""What `page.html` shows, section by section. What is shown is also written to files."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from promptmii.curves import VALIDATION, Curves
from promptmii.errors import counted
from promptmii.report import costs, figures, headline, tables, transfer
from promptmii.report.drawing import INK, Drawn, Look, looks
from promptmii.report.markup import Tip
from promptmii.report.methods import summary
from promptmii.report.output import Files, ShownFigure, ShownTable
from promptmii.report.paper import paper_scale_tables, published_tables
from promptmii.report.results import Results, outcome
from promptmii.report.scores import Scores, nearest_n
from promptmii.report.statistics import points
from promptmii.report.tables import prompt_length, with_interval

FAILED_ROWS = 200
"""Failed cells that the page lists; the CSV has all."""
MODES = {
    "generate": "the follower writes its answer, and one parser reads the label from it, as in the paper",
    "choose": "the follower's likelihoods of the labels are compared, so there is always a label",
}
COSTS = ("calls to make the instruction", "tokens to make it and to label", "seconds to make it and to label")


class ByN(NamedTuple):
    """Tables of which the page shows those of one n."""

    group: str
    tables: Mapping[int, Any]
    n: int
    drawn: ShownFigure | None = None


def sections(results: Results, files: Files) -> dict[str, Any]:
    """The values of the template. What is empty has no section."""
    by_scope = results.by_scope
    modes = dict.fromkeys(own.scope.mode for own in by_scope)
    return {
        "legend": legend(results),
        "length": [_length(own, files) for own in by_scope],
        "headline": files.table(headline.claim_table(results.claims)) if results.claims else None,
        "long_prompts": [*filter(None, (headline.long_prompts(own, results.n) for own in by_scope))],
        "facts": headline.facts(results.run, results.cells, results.folders),
        "methods": {one.method: summary(one.method) for one in results.series},
        "modes": {mode: MODES[mode] for mode in modes},
        "method_tables": [*map(files.table, [*map(tables.method_table, by_scope), *published_tables(by_scope)])],
        "pareto": _pareto(by_scope, files),
        "budgets": [files.table(tables.budget_table(own)) for own in by_scope],
        "training": training(results.curves, files) if results.curves else None,
        "costs": [_costs(results, own, files) for own in by_scope],
        "transfers": _transfers(results, files),
        "comparisons": [*filter(None, (_comparisons(results, own, files) for own in by_scope))],
        "outcome": outcome(results),
        "untrained": results.untrained,
        "task_tables": [files.table(tables.task_table(own)) for own in by_scope],
        "paper_scale": [*map(files.table, paper_scale_tables(results.run, results.cells, by_scope))],
        "failures": files.table(tables.failure_table(results.cells)),
        "failed": _failed(results, files),
        "torn": [f"{run.name}: {run.damaged}" for run in results.curves if run.damaged],
    }


def _failed(results: Results, files: Files) -> ShownTable | None:
    table = tables.failed_cell_table(results.run)
    return files.table(table, most=FAILED_ROWS) if len(table.data) else None


def legend(results: Results) -> list[tuple[str, str, str]]:
    """Name, colour and line of each method. With several followers a name stands for a series of each."""
    known = looks(results.series)
    return [(name, *_swatch(known[name])) for name in dict.fromkeys(one.name for one in results.series)]


def _swatch(look: Look) -> tuple[str, str]:
    colour = "var(--ink)" if look.colour == INK else f"var(--c-{look.colour[1:]}, {look.colour})"
    return colour, "solid" if look.line == "-" else "dashed"


def _length(own: Scores, files: Files) -> ShownFigure:
    return files.figure(figures.length_figure(own), _point_tip([own]))


def _pareto(by_scope: Sequence[Scores], files: Files) -> ShownFigure:
    return files.figure(figures.pareto_figure(by_scope), _point_tip(by_scope))


def _point_tip(by_scope: Sequence[Scores]) -> Tip:
    known = [{(p.series.name, p.tokens, p.mean): p for p in points(own)} for own in by_scope]

    def tip(panel: int, name: str, x: float, y: float) -> str:
        mean = known[panel][name, x, y]
        given = f", n={mean.n}" if mean.n else ""
        score = f"macro-F1 {with_interval(mean.mean, mean.low, mean.high)}"
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
