"""The sections of the page, in its order: a heading, how to read what follows, figures and tables."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from promptmii.report import figures, tables
from promptmii.report.curves import VALIDATION, Run
from promptmii.report.embed import Files, Tip, file_links
from promptmii.report.headline import chosen_n
from promptmii.report.material import Material, outcome
from promptmii.report.methods import summary
from promptmii.report.paper_scale import paper_scale_tables
from promptmii.report.statistics import Mean, Scores, Transfer, points, transfers
from promptmii.report.tables import number

FAILED_ROWS = 200
"""Failed cells that the page lists; the CSV has all."""
MODES = {
    "generate": "the follower writes its answer, and one parser reads the label from it, as in the paper",
    "choose": "the follower's likelihoods of the labels are compared, so there is always a label",
}
COSTS = ("calls to make the instruction", "tokens to make it and to label", "seconds to make it and to label")


class Section(NamedTuple):
    """A part of the page."""

    name: str
    title: str
    parts: Sequence[str]

    @property
    def html(self) -> str:
        """With its heading."""
        return (
            f'<section id="{self.name}" aria-labelledby="{self.name}-title"><h2 id="{self.name}-title">{self.title}</h2>\n'
            + ("\n".join(self.parts) + "</section>\n")
        )


def sections(material: Material, files: Files) -> Iterator[Section]:
    """Every section that the material has something for."""
    yield _methods(material, files)
    yield _length(material, files)
    yield _pareto(material, files)
    if material.curves:
        yield training(material.curves, files)
    yield _costs(material, files)
    if found := transfers(material.by_scope):
        yield _transfer(found, material.n, files)
    if any(material.pairs):
        yield _comparisons(material, files)
    if outcome(material):
        yield _outcome(material)
    yield _tasks(material, files)
    if found := paper_scale_tables(material.grid, material.cells, material.by_scope):
        yield Section("paper-scale", "On the authors' scale", [files.table(table) for table in found])
    yield _failures(material, files)


def _methods(material: Material, files: Files) -> Section:
    names = [
        f"<div><dt>{escape(method)}</dt><dd>{escape(summary(method))}</dd></div>"
        for method in dict.fromkeys(series.method for series in material.series)
    ]
    modes = [
        f"Mode <b>{mode}</b>: {MODES[mode]}." for mode in dict.fromkeys(own.scope.mode for own in material.by_scope)
    ]
    glossary = f'<dl class="glossary">{"".join(names)}</dl><p class="note">{" ".join(modes)}</p>'
    lead = (
        "Each row is a way of prompting, each column a number of examples that it was given. Higher is better. Two methods whose "
        "intervals overlap may still differ: the paired comparisons below tell."
    )
    return Section(
        "methods",
        "Methods",
        [_lead(lead), glossary, *(files.table(tables.method_table(own)) for own in material.by_scope)],
    )


def _length(material: Material, files: Files) -> Section:
    lead = (
        "Every query pays for its prompt. Up and to the left is better: a higher score from a shorter prompt. A line follows one method "
        "through its numbers of examples."
    )
    drawn = [
        files.figure(
            figures.length_figure(own), f"length-{_scoped(own)}", figures.length_caption(own), _point_tip([own])
        )
        for own in material.by_scope
    ]
    return Section("length", "Performance against prompt length", [_lead(lead), *drawn])


def _pareto(material: Material, files: Files) -> Section:
    lead = "A method is worth its tokens where it lies on the dashed line; below the line, another one scores higher for fewer tokens."
    caption = figures.pareto_caption(material.by_scope)
    drawn = files.figure(figures.pareto_figure(material.by_scope), "pareto", caption, _point_tip(material.by_scope))
    return Section(
        "pareto",
        "Pareto frontier",
        [_lead(lead), drawn, *(files.table(tables.budget_table(own)) for own in material.by_scope)],
    )


def _point_tip(by_scope: Sequence[Scores]) -> Tip:
    known = [{(p.series.name, p.tokens, p.mean): p for p in points(own)} for own in by_scope]

    def tip(panel: int, name: str, x: float, y: float) -> str:
        return _described(known[panel][name, x, y])

    return tip


def _described(mean: Mean) -> str:
    given = f", n={mean.n}" if mean.n else ""
    return (
        f"{mean.series.name}{given}\nmacro-F1 {number(mean.mean)} [{number(mean.low)}, {number(mean.high)}]\n"
        f"{mean.tokens:,.0f} prompt tokens per query\n{mean.tasks} tasks"
    )


def training(runs: Sequence[Run], files: Files) -> Section:
    """The curves of training runs."""
    others = [name for name in dict.fromkeys(name for run in runs for name in run.metrics) if name != VALIDATION]

    def tip(names: Sequence[str]) -> Tip:
        return lambda panel, run, x, y: f"{run}, step {x:,.0f}\n{names[panel]} {y:.4g}"

    caption = figures.training_caption(runs)
    parts = [
        _lead(
            "Whether training the generator helped it: the reward is the follower's macro-F1 on tasks kept for validation."
        )
    ]
    if any(VALIDATION in run.metrics for run in runs):
        parts.append(
            files.figure(figures.validation_figure(runs), "training-reward", caption, tip([VALIDATION]), method=False)
        )
    if others:
        caption = "What else the same runs recorded."
        parts.append(files.figure(figures.training_figure(runs), "training", caption, tip(others), method=False))
    return Section("training", "Training dynamics", parts)


def _costs(material: Material, files: Files) -> Section:
    lead = (
        "What a task takes: model calls, tokens and seconds to make the instruction, once, and to label the rows with it. The scales are "
        "logarithmic, so a bar that is a little longer may be ten times the cost."
    )
    parts = [_lead(lead)]
    for own in material.by_scope:
        n = material.n if material.n in own.ns else chosen_n(own.ns)
        drawn = figures.cost_figure(tables.costs(material.cells, own.scope), n, own.scope.title)
        parts.append(files.figure(drawn, f"costs-{_scoped(own)}", figures.cost_caption(own, n), _cost_tip))
        parts.append(files.table(tables.cost_table(material.cells, own.scope)))
    return Section("costs", "Calls, tokens and seconds", parts)


def _cost_tip(panel: int, name: str, x: float, _: float) -> str:
    return f"{name}\n{x:,.0f} {COSTS[panel]}" if x >= 10 or x == int(x) else f"{name}\n{x:.2g} {COSTS[panel]}"


def _transfer(found: Sequence[Transfer], n: int, files: Files) -> Section:
    lead = (
        "An instruction is text, so one model may write it and another read it. Read down a column: which writer suits this follower; "
        "<i>zero</i> rows are untrained writers, perhaps larger ones, beside the trained ones (<i>mii</i>)."
    )
    parts = [_lead(lead)]
    for mode in dict.fromkeys(transfer.mode for transfer in found):
        by_n = {transfer.n: transfer for transfer in found if transfer.mode == mode}
        shown = by_n.get(n) or by_n[chosen_n(by_n)]
        drawn = figures.transfer_figure(shown)
        parts.append(files.figure(drawn, f"transfer-{mode}-n{shown.n}", figures.transfer_caption(shown), _no_tip))
        parts.append(
            _by_n(f"transfer-{mode}", {m: files.table(tables.transfer_table(one)) for m, one in by_n.items()}, shown.n)
        )
    return Section("transfer", "Cross-model transfer", parts)


def _no_tip(*_: object) -> str:
    return ""  # the numbers stand in the cells


def _comparisons(material: Material, files: Files) -> Section:
    lead = (
        "Methods compared task by task, which says more than two means: every task counts once, whether it is hard or easy. A small "
        "p-value after Holm's correction says that a difference of this size is unlikely to be chance; a large one says nothing either way."
    )
    parts = [_lead(lead)]
    for own, pairs in zip(material.by_scope, material.pairs, strict=True):
        both = {n: files.table(tables.win_table(own, n), sortable=False) + files.table(pairs[n]) for n in pairs}
        parts += (
            [_by_n(f"pairs-{_scoped(own)}", both, material.n if material.n in both else chosen_n(both))] if both else []
        )
    return Section("comparisons", "Paired comparisons", parts)


def _by_n(group: str, parts: Mapping[int, str], chosen: int) -> str:
    """One part at a time, chosen by its number of examples."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    options = "".join(f'<option value="{n}"{" selected" if n == chosen else ""}>n = {n}</option>' for n in parts)
    panels = "".join(
        f'<div data-panel="{escape(group)}" data-n="{n}"{"" if n == chosen else " hidden"}>{part}</div>'
        for n, part in parts.items()
    )
    return f'<p class="controls"><label>Examples <select data-panels="{escape(group)}">{options}</select></label></p>{panels}'


def _outcome(material: Material) -> Section:
    lead = (
        "What two methods make of the same examples: on the left an untrained generator, on the right the one under test, where both "
        "were run. It opens with the task whose difference in score is the median, so neither the best case nor the worst."
    )
    parts = [
        _lead(lead),
        '<div id="outcome-controls" class="controls"></div>',
        '<div id="outcome-box" class="pair" aria-live="polite"></div>',
    ]
    if material.untrained:
        names = escape(", ".join(material.untrained))
        parts.insert(
            1,
            f'<p class="problem">{names} wrote for both <i>zero</i> and <i>mii</i>, so there the two compare no training.</p>',
        )
    return Section("outcome", "Generator outcome", parts)


def _tasks(material: Material, files: Files) -> Section:
    lead = (
        "Macro-F1 of every task, mean over seeds, the best in bold. Click a column to sort, a task to see its instructions, confusion "
        "matrices and wrong rows. † marks a score that lacks a seed whose cell failed; – was not run."
    )
    written = [tables.task_table(own) for own in material.by_scope]
    for one in written:
        files.table(one)
    links = [
        f'<p class="note">{escape(one.title)} {file_links("tables", one.name, ("csv", "md"))}</p>' for one in written
    ]
    table = (
        '<div class="scroll" tabindex="0" role="region" aria-label="Every task">'
        '<table id="task-table" data-sortable aria-label="Every task">'
        "<thead></thead><tbody></tbody><tfoot></tfoot></table></div>"
    )
    return Section(
        "tasks",
        "Every task",
        [
            _lead(lead),
            '<div id="task-controls" class="controls"></div>',
            table,
            '<p id="task-count" class="note" role="status"></p>',
            *links,
        ],
    )


def _failures(material: Material, files: Files) -> Section:
    lead = "What went wrong, so that it can be weighed: nothing is left out in silence."
    parts = [_lead(lead), files.table(tables.failure_table(material.cells))]
    failed = tables.failed_cell_table(material.grid)
    shown = files.table(failed, rows=FAILED_ROWS)
    parts.append(shown if len(failed.data) else "<p>No cell failed, and every line of the records could be read.</p>")
    torn = [f"{escape(run.name)}: {run.damaged}" for run in material.curves if run.damaged]
    parts += (
        [f'<p class="note">Lines of training curves that could not be read: {"; ".join(torn)}.</p>'] if torn else []
    )
    return Section("failures", "Failures, unparsed, truncated", parts)


def legend(material: Material) -> str:
    """The check boxes that show and hide methods."""
    known = figures.looks(material.series)
    # One box for a name: with several followers it stands for a series of each.
    boxes = "".join(
        f'<label><input type="checkbox" value="{escape(name)}" checked>{_swatch(known[name])}{escape(name)}</label>'
        for name in dict.fromkeys(one.name for one in material.series)
    )
    buttons = '<button type="button" value="all">all</button><button type="button" value="none">none</button>'
    return f'<form id="legend"><fieldset><legend>Methods shown</legend>{boxes}{buttons}</fieldset></form>\n'


def _swatch(look: figures.Look) -> str:
    colour = "var(--ink)" if look.colour == figures.INK else f"var(--c-{look.colour[1:]}, {look.colour})"
    return f'<span class="swatch" style="border-color: {colour}; border-top-style: {"solid" if look.line == "-" else "dashed"}"></span>'


def _scoped(own: Scores) -> str:
    return f"{own.scope.name}-{own.scope.mode}"


def _lead(text: str) -> str:
    return f"<p>{text}</p>"
