"""The report of runs: one page that works from a file, with its figures and tables beside it.

The page holds everything (style, script, figures, numbers, instructions) and asks no network for anything: its policy forbids it,
and lets no script run but its own. What comes from tasks and models is escaped here, or set as text by the script.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import date
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from promptmii.report import headline
from promptmii.report.curves import Run, is_training_run, read_curves
from promptmii.report.details import task_details
from promptmii.report.embed import Files
from promptmii.report.grid import read_grid
from promptmii.report.material import Material, numbers
from promptmii.report.sections import Section, legend, sections, training
from promptmii.report.statistics import all_cells, scopes, scores
from promptmii.version import VERSION


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write `index.html`, `figures/` and `tables/` into `out`, and return the page's path.

    Folders are runs of `promptmii evaluate`, and of training for its curves; of training alone, the page is about the curves. What an
    earlier report left in `out` is replaced, once all is read and drawn; other files stay. Raises `ArtefactError` where an evaluation
    holds no cell, `OutputError` where `out` cannot be written.
    """
    evaluations = [folder for folder in folders if (folder / "records.jsonl").exists() or not is_training_run(folder)]
    runs = read_curves([folder for folder in folders if is_training_run(folder)])
    if not evaluations:
        files = Files.at(out)
        return files.page(_training_page(runs, folders, files))
    grid = read_grid(evaluations)
    cells = all_cells(grid)
    by_scope = [scores(cells, scope) for scope in scopes(cells)]
    material = Material(grid, cells, by_scope, runs)
    files = Files.at(out)
    written = list(sections(material, files))
    return files.page(_page(material, written, folders))


def _page(material: Material, written: Sequence[Section], folders: Sequence[Path]) -> str:
    packed = task_details(
        material.grid, material.cells, [own.scope for own in material.by_scope], material.tasks, material.series
    )
    return _filled(
        headline.title(material.cells),
        _finding(material),
        headline.facts(material.grid, material.cells, folders),
        written,
        legend=legend(material),
        details="\n".join(
            f'<script type="text/plain" id="task-{i}">{details}</script>' for i, details in enumerate(packed)
        ),
        data=_embedded(numbers(material)),
    )


def _training_page(runs: Sequence[Run], folders: Sequence[Path], files: Files) -> str:
    finding = "\n".join(f'<p class="finding">{escape(headline.progress(run))}</p>' for run in runs)
    facts = [("Runs", ", ".join(map(str, folders)))]
    return _filled(f"Training of {', '.join(run.name for run in runs)}", finding, facts, [training(runs, files)])


def _filled(
    title: str,
    finding: str,
    facts: Sequence[tuple[str, str]],
    written: Sequence[Section],
    *,
    legend: str = "",
    details: str = "",
    data: str = "{}",
) -> str:
    first, *others = [section.html for section in written]
    script = _file("page.js")
    text = Template(_file("page.html")).substitute(
        title=escape(title),
        policy=_policy(script),
        style=_file("page.css"),
        finding=finding,
        facts="".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts),
        contents="".join(f'<li><a href="#{section.name}">{section.title}</a></li>' for section in written),
        sections="".join([first, legend, *others]),
        version=escape(VERSION),
        date=date.today().isoformat(),
        details=details,
        data=data,
        script=script,
    )
    # A lone surrogate, which records may hold, is no text that a file can have.
    return text.encode("utf-8", "replace").decode()


def _file(name: str) -> str:
    return resources.files("promptmii.report").joinpath(name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Nothing from elsewhere, and no script but this one: a handler that slipped into the page would not run."""
    key = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{key}'; base-uri 'none'; form-action 'none'"


def _finding(material: Material) -> str:
    """A sentence per follower and mode."""
    lines: list[str] = []
    for own, pairs in zip(material.by_scope, material.pairs, strict=True):
        n = material.n if material.n in own.ns else headline.chosen_n(own.ns)
        about = f"<b>{escape(own.scope.title)}.</b> " if len(material.by_scope) > 1 else ""
        found = headline.finding(own, n, pairs.get(n))
        lines.append(
            f'<p class="finding">{about}{escape(found.sentence)}</p><p class="note">{escape(found.evidence)}</p>'
        )
    note = (
        "In brackets: 95 % bootstrap intervals over tasks and rows. p: Wilcoxon signed-rank test over tasks, adjusted (Holm) for all "
        "pairs of methods. A difference is called clear where the interval leaves out zero and p is below 0.05. The number of examples "
        "was fixed beforehand, not chosen by score."
    )
    return "\n".join([*lines, f'<p class="note">{note}</p>'])


def _embedded(value: object) -> str:
    """JSON that cannot end the element that it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
