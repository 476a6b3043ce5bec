"""The Markdown page: its numbers match the records, and it includes results against the method under test."""
# pyright: reportOptionalSubscript=false

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats
from tests.command_line import promptmii
from tests.report.synthetic import write_run

from promptmii.errors import ArtefactError, OutputError, ScoreRefusedError
from promptmii.metrics import holm
from promptmii.records import Run
from promptmii.report.markdown import write_markdown
from promptmii.report.page import write_report
from promptmii.report.results import Results

pytestmark = pytest.mark.slow
METHODS = ("naive", "icl", "zero", "mii", "keywords", "tfidf")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs with names kept and hidden, an n for in-context learning alone, a second follower, and a training run."""
    folder = tmp_path_factory.mktemp("runs")
    kept = write_run(folder / "kept", 8, METHODS, (5, 20), 2, rows=30)
    many = write_run(folder / "many", 8, ("icl",), (100,), 2, rows=30)
    hidden = write_run(folder / "hidden", 8, ("naive", "icl", "zero", "mii"), (20,), 1, rows=30, nameless=True)
    other = write_run(folder / "other", 8, ("naive", "mii"), (20,), 1, rows=30, followers=("qwen-small",))
    training = folder / "training"
    training.mkdir()
    lines = [{"step": step, "validation/reward": 0.3 + step / 100} for step in range(0, 20, 5)]
    (training / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return [kept, many, hidden, other, training]


@pytest.fixture(scope="module")
def page(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_markdown(Results.read(runs), tmp_path_factory.mktemp("docs") / "results.md")


def table(page: Path, title: str) -> list[dict[str, str]]:
    """The rows of the table below a heading."""
    section = page.read_text("utf-8").split(f"### {title}", 1)[1]
    lines = [line for line in section.split("\n#")[0].splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(head, row, strict=True)) for row in rows]


def scores(runs: list[Path], method: str, n: int) -> dict[str, float]:
    """Macro-F1 by task with names kept, mean over seeds, straight from the records."""
    by_task: dict[str, list[float]] = {}
    for record in Run.read(runs[0]).records.values():
        if record.cell.method == method and record.cell.n in (0, n):
            assert record.instruction is not None
            assert record.instruction.measured is not None
            by_task.setdefault(record.cell.task, []).append(record.instruction.measured.macro_f1)
    return {task: float(np.mean(values)) for task, values in by_task.items()}


def test_the_page_has_every_section_and_its_figures(page: Path) -> None:
    text = page.read_text("utf-8")
    sections = re.findall(r"^## (.*)", text, re.M)
    assert sections == [
        *("What was run", "Score against prompt length", "Methods", "Label names kept and hidden", "Every task"),
        *("Two instructions side by side", "Other followers", "Training", "What did not work"),
    ]
    shown = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert len(shown) == len(set(shown)) >= 6
    assert {path.name for path in (page.parent / "results").iterdir()} == {Path(name).name for name in shown}
    for name in shown:
        svg = (page.parent / name).read_text("utf-8")
        assert svg.startswith('<svg style="background: #ffffff')
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "**Machine**: a machine, 2 threads" in text
    assert "smol f0f0" in text
    assert "n=100" in text
    assert ":nameless" not in text.split("## Two instructions")[0]


def test_the_table_of_methods_agrees_with_scipy(page: Path, runs: list[Path]) -> None:
    rows = {row["method"]: row for row in table(page, "All methods at n=20: smol follower, mode choose\n")}
    assert set(rows) == set(METHODS)
    means = {method: np.array([*scores(runs, method, 20).values()]) for method in METHODS}
    tests = []
    for method, row in rows.items():
        values = means[method]
        low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        assert row["macro-F1"] == f"{values.mean():.3f} [{max(low, 0):.3f}, {min(high, 1):.3f}]"
        for rival in ("naive", "icl", "zero"):
            if row[f"− {rival}"] != "–":
                difference = values - means[rival]
                result: Any = stats.wilcoxon(np.round(difference, 9))
                tests.append((method, rival, difference, result.pvalue))
    assert len(tests) == 3 * 3 + 3  # every other method with each baseline, and each pair of baselines once
    for (method, rival, difference, _), p in zip(tests, holm([test[3] for test in tests]), strict=True):
        cell = rows[method][f"− {rival}"].replace("−", "-")
        assert float(cell.split()[0]) == pytest.approx(difference.mean(), abs=6e-4)
        assert cell.endswith("<0.001" if p < 0.001 else f"{p:.3f}")


def test_the_page_names_tasks_on_which_a_rival_wins(page: Path, runs: list[Path]) -> None:
    mii, icl = scores(runs, "mii", 20), scores(runs, "icl", 20)
    lost = [task for task in sorted(mii) if icl[task] > mii[task]]
    line = f"smol follower, mode choose, n=20: icl beats mii on {len(lost)} of 8 tasks ({', '.join(lost)})."
    assert line in page.read_text("utf-8")


def test_the_two_instructions_are_for_a_task_with_hidden_names(page: Path) -> None:
    section = page.read_text("utf-8").split("## Two instructions side by side")[1].split("\n## ")[0]
    assert "names hidden" in section
    assert section.index("**zero**") < section.index("**mii**")
    assert len(re.findall(r"^\| class \d \|", section, re.M)) == 4


def test_the_command_prints_the_results_of_the_page(runs: list[Path], tmp_path: Path) -> None:
    command = ["report", str(runs[0]), str(runs[4]), "--markdown", str(tmp_path / "page.md")]
    shown = promptmii(*command)
    rows = json.loads(promptmii(*command, "--json").stdout)["results"]
    assert {row["method"] for row in rows} == {*METHODS}
    for row in rows:
        assert row["macro_f1"] == pytest.approx(np.mean([*scores(runs, row["method"], 20).values()]))
        assert (row["n"], row["tasks"], row["follower"]) == (20, 8, "smol")
        interval = f"{row['macro_f1']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        assert re.search(rf"^ ?{row['method']} +{re.escape(interval)} .* 8 of 8", shown.stdout, re.M)
    assert [row["macro_f1"] for row in rows] == sorted((row["macro_f1"] for row in rows), reverse=True)
    training_only = promptmii("report", runs[4], "-o", tmp_path / "curves", "--json")
    assert json.loads(training_only.stdout)["results"] == []


def test_a_new_page_and_its_figures_replace_the_old_ones(runs: list[Path], tmp_path: Path) -> None:
    path = write_markdown(Results.read(runs), tmp_path / "page.md")
    (tmp_path / "page" / "mine.svg").write_text("<svg/>")
    result = promptmii("report", runs[0], "--markdown", path)
    assert result.exit_code == 0, result.output
    assert not (Path.cwd() / "report").exists()
    text = path.read_text("utf-8")
    files = {file.name for file in (tmp_path / "page").iterdir()}
    assert files == {Path(name).name for name in re.findall(r"\(page/([^)]*)\)", text)} | {"mine.svg"}
    assert "## Training" not in text


def test_the_name_of_a_page_may_have_spaces_and_brackets(tmp_path: Path) -> None:
    run = write_run(tmp_path / "my run", 1, ("naive", "mii"), (5,), 1, rows=10)
    for _ in range(2):
        text = write_markdown(Results.read([run]), tmp_path / "page (1).md").read_text("utf-8")
    names = re.findall(r"\]\(page%20%281%29/([\w-]+\.svg)\)", text)
    assert len(names) == 2
    assert {file.name for file in (tmp_path / "page (1)").iterdir()} == set(names)
    assert f"promptmii report '{run}' --markdown '{tmp_path}/page (1).md' -->" in text


def test_instructions_side_by_side_have_one_seed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 1, ("zero", "mii"), (5,), 2, rows=10)
    lines = (run / "records.jsonl").read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not ('"method":"zero"' in line and '"seed":0' in line)]
    (run / "records.jsonl").write_text("".join(kept), "utf-8")
    text = write_markdown(Results.read([run]), tmp_path / "page.md").read_text("utf-8")
    shown = next(
        record for record in Run.read(run).records.values() if record.cell.method == "mii" and record.cell.seed
    )
    assert shown.instruction is not None
    assert "by zero and mii for `banking_000` from the same 5 examples" in text
    assert shown.instruction.text in text


def test_a_page_from_elsewhere_is_not_overwritten(runs: list[Path], tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Mine\n\n![logo](docs/logo.svg)\n")
    with pytest.raises(OutputError, match="was not made by promptmii report"):
        write_markdown(Results.read(runs), readme)
    assert readme.read_text().startswith("# Mine")


def test_a_humans_instruction_is_not_said_to_come_from_examples(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 1, ("human", "mii"), (5,), 1, rows=10)
    text = write_markdown(Results.read([run]), tmp_path / "results.md").read_text("utf-8")
    assert re.search(r"The instructions by human and mii for `\w+`, smol follower", text)


@pytest.mark.parametrize("name", ["results", "folder.md"])
def test_a_page_needs_the_name_of_a_file_with_an_ending(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(OutputError, match=r"a Markdown page, such as results\.md"):
        write_markdown(Results.read([]), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.md"]


def test_a_folder_without_scores_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"No finished cell in .*training"):
        write_markdown(Results.read([runs[-1]]), tmp_path / "none.md")
    with pytest.raises(ArtefactError, match="not a run folder"):
        write_markdown(Results.read([tmp_path]), tmp_path / "page.md")
    failed = write_run(tmp_path / "failed", 1, ("naive",), (5,), 1, rows=10, failures=1)
    with pytest.raises(ScoreRefusedError, match="All cells failed"):
        write_markdown(Results.read([failed]), tmp_path / "page.md")
    assert not (tmp_path / "page.md").exists()


def test_the_html_page_keeps_hidden_names_apart_too(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / str(nameless), 2, ("naive", "mii"), (5,), 1, rows=8, nameless=nameless)
        for nameless in (False, True)
    ]
    page = write_report(Results.read(folders), tmp_path / "report").read_text("utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])
    assert data["scopes"] == ["smol follower, mode choose", "smol follower, mode choose, names hidden"]
    hidden = [":nameless" in task["name"] for task in data["tasks"]]
    for scope in (0, 1):  # a score at n = 5 where the task belongs to the scope, and nowhere else
        assert all(
            [value is not None for value, _ in values[0]] == [is_hidden == bool(scope) for is_hidden in hidden]
            for values in data["scores"][scope]
        )


def test_hidden_names_are_a_scope_of_their_own(runs: list[Path]) -> None:
    results = Results.read(runs)
    assert [scores.scope.title for scores in results.by_scope] == [
        "smol follower, mode choose",
        "smol follower, mode choose, names hidden",
        "qwen-small follower, mode choose",
    ]
    assert not [task for scores in results.by_scope if not scores.scope.hidden for task in scores.tasks if ":" in task]
    kept = results.by_scope[0]
    assert kept.ns == (5, 20, 100)
    assert kept.missing("mii", 100) == ()  # it was not run there
