"""The report of runs: one page that works from a file, with its figures and tables beside it.

The page holds everything: style, script, figures, numbers, instructions. Its policy forbids any network and any script
but its own. What comes from tasks and models is escaped here, or set as text by the script.
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

from promptmii.curves import Curves, read_curves
from promptmii.errors import ScoreRefusedError, counted
from promptmii.report import headline
from promptmii.report.output import Files
from promptmii.report.results import Results, numbers, split_folders
from promptmii.report.sections import Section, legend, sections, training_section
from promptmii.report.task_details import task_details
from promptmii.version import VERSION


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write `index.html`, `figures/` and `tables/` into `out`, and return the page's path.

    Folders are runs of `promptmii evaluate`, and training runs for their curves; with training runs alone, the page
    shows the curves. It replaces an earlier report in `out` once everything is read and drawn; other files stay.
    Raises `ScoreRefusedError`, once the page is written, if every cell failed; `ArtefactError` if an evaluation holds
    no cell; `OutputError` if `out` cannot be written.
    """
    evaluations, training = split_folders(folders)
    if not evaluations:
        files, runs = Files.at(out), read_curves(training)
        return files.page(_training_page(runs, files))
    results = Results.read(folders)
    files = Files.at(out)
    grid = results.grid
    page = files.page(_page(results, list(sections(results, files))))
    if len(grid.failed) == len(grid.records):
        raise ScoreRefusedError(
            f"All cells failed ({counted(len(grid.failed), 'cell')}; first: {grid.failed[0].error}). {page} lists why; "
            "run them again with: promptmii evaluate ... --retry-failed"
        )
    return page


def _page(results: Results, written: Sequence[Section]) -> str:
    scopes = [own.scope for own in results.by_scope]
    packed = task_details(results.grid, results.cells, scopes, results.tasks, results.series)
    return _filled(
        headline.title(results.cells),
        _finding(results),
        written,
        legend=legend(results),
        details="\n".join(
            f'<script type="text/plain" id="task-{i}">{details}</script>' for i, details in enumerate(packed)
        ),
        data=_embedded(numbers(results)),
    )


def _training_page(runs: Sequence[Curves], files: Files) -> str:
    finding = "\n".join(f'<p class="finding">{escape(headline.progress(run))}</p>' for run in runs)
    return _filled(f"Training of {', '.join(run.name for run in runs)}", finding, [training_section(runs, files)])


def _filled(
    title: str,
    finding: str,
    written: Sequence[Section],
    *,
    legend: str = "",
    details: str = "",
    data: str = "{}",
) -> str:
    first, *others = [section.html for section in written]
    script = _file("page.js") + _file("tasks.js")
    text = Template(_file("page.html")).substitute(
        title=escape(title),
        policy=_policy(script),
        style=_file("page.css"),
        finding=finding,
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
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{key}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _finding(results: Results) -> str:
    """Who wins, and how the planned comparisons ended: a paragraph per follower and mode."""
    lines: list[str] = []
    for own in results.by_scope:
        about = f"<b>{escape(own.scope.title)}.</b> " if len(results.by_scope) > 1 else ""
        sentences = (
            headline.winner(own, results.n),
            headline.finding(own, results.n, results.claims),
            headline.unbeaten(own, results.n),
        )
        lines.append(f'<p class="finding">{about}{escape(" ".join(filter(None, sentences)))}</p>')
    return "\n".join(lines)


def _embedded(value: object) -> str:
    """JSON that cannot end the element that it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
