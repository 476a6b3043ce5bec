"""The sections of the page, in its order: a heading, how to read what follows, figures and tables."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from promptmii.curves import VALIDATION, Curves
from promptmii.report import costs, figures, headline, tables, transfer
from promptmii.report.drawing import INK, Look, looks
from promptmii.report.headline import chosen_n
from promptmii.report.markup import TABLES, Tip, file_links
from promptmii.report.methods import summary
from promptmii.report.output import Files
from promptmii.report.paper import paper_scale_tables, published_tables
from promptmii.report.results import Results, outcome
from promptmii.report.scores import Scores
from promptmii.report.statistics import Mean, points
from promptmii.report.tables import number, prompt_length, scoped
from promptmii.report.transfer import Transfer, transfers

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
            f'<section id="{self.name}" aria-labelledby="{self.name}-title">'
            f'<h2 id="{self.name}-title">{self.title}</h2>\n' + ("\n".join(self.parts) + "</section>\n")
        )


def sections(results: Results, files: Files) -> Iterator[Section]:
    """Every section that the results has something for."""
    yield _length(results, files)
    if results.claims:
        yield _headline(results, files)
    yield _run(results)
    yield _methods(results, files)
    yield _pareto(results, files)
    if results.curves:
        yield training_section(results.curves, files)
    yield _costs(results, files)
    if found := transfers(results.by_scope):
        yield _transfer(found, results.n, files)
    if any(results.pairs):
        yield _comparisons(results, files)
    if outcome(results):
        yield _outcome(results)
    yield _tasks(results, files)
    if found := paper_scale_tables(results.grid, results.cells, results.by_scope):
        yield Section("paper-scale", "On the authors' scale", [files.table(table) for table in found])
    yield _failures(results, files)


def _headline(results: Results, files: Files) -> Section:
    lead = (
        "Chosen before any score was seen: the method under test against each baseline, at one number of examples. A "
        "difference is clear if its interval leaves out zero and p is below 0.05."
    )
    notes = [
        f'<p class="note">{escape(text)}</p>'
        for own in results.by_scope
        if (text := headline.long_prompts(own, results.n))
    ]
    return Section(
        "headline", "The headline test", [_lead(lead), files.table(headline.claim_table(results.claims)), *notes]
    )


def _run(results: Results) -> Section:
    facts = headline.facts(results.grid, results.cells, results.folders)
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return Section("run", "What was run", [f'<dl class="facts">{listed}</dl>'])


def _methods(results: Results, files: Files) -> Section:
    names = [
        f"<div><dt>{escape(method)}</dt><dd>{escape(summary(method))}</dd></div>"
        for method in dict.fromkeys(series.method for series in results.series)
    ]
    modes = [
        f"Mode <b>{mode}</b>: {MODES[mode]}." for mode in dict.fromkeys(own.scope.mode for own in results.by_scope)
    ]
    glossary = f'<dl class="glossary">{"".join(names)}</dl><p class="note">{" ".join(modes)}</p>'
    lead = (
        "Each row is a way of prompting, each column a number of examples. Higher is better. Methods whose intervals "
        "overlap may still differ: see the paired comparisons below."
    )
    measured = [tables.method_table(own) for own in results.by_scope]
    return Section(
        "methods",
        "Methods",
        [_lead(lead), glossary, *(files.table(table) for table in (*measured, *published_tables(results.by_scope)))],
    )


def _length(results: Results, files: Files) -> Section:
    lead = (
        "Every query pays for its prompt, so up and to the left is better: a higher score from a shorter prompt. A "
        "line follows one method through its numbers of examples."
    )
    drawn = [
        files.figure(
            figures.length_figure(own), f"length-{scoped(own.scope)}", figures.length_caption(own), _point_tip([own])
        )
        for own in results.by_scope
    ]
    return Section("length", "Performance against prompt length", [*drawn, _lead(lead)])


def _pareto(results: Results, files: Files) -> Section:
    lead = "A method on the dashed line is worth its tokens; below it, another one scores higher for fewer tokens."
    caption = figures.pareto_caption(results.by_scope)
    drawn = files.figure(figures.pareto_figure(results.by_scope), "pareto", caption, _point_tip(results.by_scope))
    return Section(
        "pareto",
        "Pareto frontier",
        [_lead(lead), drawn, *(files.table(tables.budget_table(own)) for own in results.by_scope)],
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
        f"{prompt_length(mean.tokens)}\n{mean.tasks} tasks"
    )


def training_section(runs: Sequence[Curves], files: Files) -> Section:
    """The curves of training runs."""
    others = [name for name in dict.fromkeys(name for run in runs for name in run.metrics) if name != VALIDATION]

    def tip(names: Sequence[str]) -> Tip:
        return lambda panel, run, x, y: f"{run}, step {x:,.0f}\n{names[panel]} {y:.4g}"

    lead = "Whether training helped the generator: its reward is the follower's macro-F1 on tasks kept for validation."
    parts = [_lead(lead)]
    if any(VALIDATION in run.metrics for run in runs):
        drawn, caption = figures.validation_figure(runs), figures.training_caption(runs)
        parts.append(files.figure(drawn, "training-reward", caption, tip([VALIDATION]), method=False))
    first, rest = figures.important(others), [name for name in others if name not in figures.important(others)]
    if first:
        drawn, caption = figures.training_figure(runs, first), "What else the same runs recorded: what matters most."
        parts.append(files.figure(drawn, "training", caption, tip(first), method=False))
    if rest:
        drawn = figures.training_figure(runs, rest)
        folded = files.figure(drawn, "training-all", "All other curves of the same runs.", tip(rest), method=False)
        parts.append(f"<details><summary>{len(rest)} other curves</summary>{folded}</details>")
    return Section("training", "Training dynamics", parts)


def _costs(results: Results, files: Files) -> Section:
    lead = (
        "Model calls, tokens and seconds of a task: to make the instruction, once, and to label the rows with it. The "
        "scales are logarithmic, so a slightly longer bar may mean ten times the cost."
    )
    parts = [_lead(lead)]
    for own in results.by_scope:
        n = results.n if results.n in own.ns else chosen_n(own.ns)
        drawn = costs.cost_figure(costs.costs(results.cells, own.scope), n, own.scope.title)
        parts.append(files.figure(drawn, f"costs-{scoped(own.scope)}", costs.cost_caption(own, n), _cost_tip))
        parts.append(files.table(costs.cost_table(results.cells, own.scope)))
    return Section("costs", "Calls, tokens and seconds", parts)


def _cost_tip(panel: int, name: str, x: float, _: float) -> str:
    return f"{name}\n{costs.rounded(x)} {COSTS[panel]}"


def _transfer(found: Sequence[Transfer], n: int, files: Files) -> Section:
    lead = (
        "An instruction is text, so one model may write it and another read it. Read down a column to see which "
        "writer suits this follower. <i>zero</i> rows are untrained writers, perhaps larger ones; <i>mii</i> rows are "
        "trained ones."
    )
    parts = [_lead(lead)]
    for way in dict.fromkeys(one.way for one in found):
        by_n = {one.n: one for one in found if one.way == way}
        shown = by_n.get(n) or by_n[chosen_n(by_n)]
        drawn = transfer.transfer_figure(shown)
        parts.append(files.figure(drawn, shown.name, transfer.transfer_caption(shown), _no_tip))
        parts.append(
            _by_n(f"transfer-{way}", {m: files.table(transfer.transfer_table(one)) for m, one in by_n.items()}, shown.n)
        )
    return Section("transfer", "Cross-model transfer", parts)


def _no_tip(*_: object) -> str:
    return ""  # the numbers stand in the cells


def _comparisons(results: Results, files: Files) -> Section:
    lead = (
        "Every pair of methods, task by task: each task counts once, hard or easy. A small p-value after Holm's "
        "correction says that chance rarely makes such a difference; a large one says nothing either way."
    )
    parts = [_lead(lead)]
    for own, pairs in zip(results.by_scope, results.pairs, strict=True):
        both = {n: files.table(tables.win_table(own, n), sortable=False) + files.table(pairs[n]) for n in pairs}
        parts += (
            [_by_n(f"pairs-{scoped(own.scope)}", both, results.n if results.n in both else chosen_n(both))]
            if both
            else []
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
    control = f'<label>Examples <select data-panels="{escape(group)}">{options}</select></label>'
    return f'<p class="controls">{control}</p>{panels}'


def _outcome(results: Results) -> Section:
    lead = (
        "What two methods make of the same examples: an untrained generator on the left, the one under test on the "
        "right. It opens with the task of the median difference in score, so neither the best case nor the worst."
    )
    parts = [
        _lead(lead),
        '<div id="outcome-controls" class="controls"></div>',
        '<div id="outcome-box" class="pair" aria-live="polite"></div>',
    ]
    if results.untrained:
        names = escape(", ".join(results.untrained))
        problem = f"{names} wrote for both <i>zero</i> and <i>mii</i>, so the two compare no training."
        parts.insert(1, f'<p class="problem">{problem}</p>')
    return Section("outcome", "Generator outcome", parts)


def _tasks(results: Results, files: Files) -> Section:
    lead = (
        "Macro-F1 of every task, mean over seeds, the best in bold. Click a column to sort, a task to see its "
        "instructions, confusion matrices and wrong rows. †: the cell of a seed failed; –: not run."
    )
    written = [tables.task_table(own) for own in results.by_scope]
    for one in written:
        files.table(one)
    links = [f'<p class="note">{escape(one.title)} {file_links("tables", one.name, TABLES)}</p>' for one in written]
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


def _failures(results: Results, files: Files) -> Section:
    lead = "What went wrong, so that it can be weighed: nothing is left out in silence."
    parts = [_lead(lead), files.table(tables.failure_table(results.cells))]
    failed = tables.failed_cell_table(results.grid)
    shown = files.table(failed, rows=FAILED_ROWS)
    parts.append(shown if len(failed.data) else "<p>No cell failed, and every line of the records could be read.</p>")
    torn = [f"{escape(run.name)}: {run.damaged}" for run in results.curves if run.damaged]
    parts += (
        [f'<p class="note">Lines of training curves that could not be read: {"; ".join(torn)}.</p>'] if torn else []
    )
    return Section("failures", "Failures, unparsed, truncated", parts)


def legend(results: Results) -> str:
    """The check boxes that show and hide methods."""
    known = looks(results.series)
    # One box for a name: with several followers it stands for a series of each.
    boxes = "".join(
        f'<label><input type="checkbox" value="{escape(name)}" checked>{_swatch(known[name])}{escape(name)}</label>'
        for name in dict.fromkeys(one.name for one in results.series)
    )
    buttons = '<button type="button" value="all">all</button><button type="button" value="none">none</button>'
    return f'<form id="legend"><fieldset><legend>Methods shown</legend>{boxes}{buttons}</fieldset></form>\n'


def _swatch(look: Look) -> str:
    colour = "var(--ink)" if look.colour == INK else f"var(--c-{look.colour[1:]}, {look.colour})"
    line = "solid" if look.line == "-" else "dashed"
    return f'<span class="swatch" style="border-color: {colour}; border-top-style: {line}"></span>'


def _lead(text: str) -> str:
    return f"<p>{text}</p>"
