"""The report of runs: one page that works from a file, with its figures and tables beside it.

The page holds everything: style, script, figures, numbers, instructions. Its policy forbids any network and any script
but its own. What comes from tasks and models is escaped by the template, or set as text by the script.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from promptmii.curves import read_curves
from promptmii.errors import ScoreRefusedError, counted
from promptmii.report import headline
from promptmii.report.drawing import WIDTH
from promptmii.report.output import FIGURES, TABLES, Files
from promptmii.report.results import Results, numbers, split_folders
from promptmii.report.scores import Scores
from promptmii.report.sections import sections, training
from promptmii.report.task_details import task_details
from promptmii.version import VERSION


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
    scopes = [own.scope for own in results.by_scope]
    page = files.page(
        _page(
            title=headline.title(results.cells),
            winners=_told(results, lambda own: [headline.winner(own, n)]),
            findings=_told(results, lambda own: [headline.finding(own, n, claims), headline.unbeaten(own, n)]),
            details=task_details(run, results.cells, scopes, results.tasks, results.series),
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
