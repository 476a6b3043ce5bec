"""Figures for a page: real text, an id per series, a fixed palette, reproducible bytes; and training curves."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from tests.report.synthetic import write_run

from promptmii.errors import ArtefactError
from promptmii.records import Run
from promptmii.report import costs, drawing, figures, statistics, transfer
from promptmii.report.results import Results
from promptmii.report.scores import Scores, all_cells, scopes
from promptmii.train.run_folder import VALIDATION, Curves, RunFolder, read_curves

METHODS = ("naive", "icl", "zero", "mii", "my-own")

pytestmark = pytest.mark.slow  # whole figures are drawn


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    return write_run(
        path, 6, METHODS, (5, 20), 2, rows=20, generators=("smol", "x:large"), followers=("a", "b"), failures=3
    )


@pytest.fixture(scope="module")
def by_scope(folder: Path) -> list[Scores]:
    return Results(Run.read(folder)).by_scope


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Curves]:
    folder = tmp_path_factory.mktemp("training") / "qwen"
    folder.mkdir()
    lines = [
        f'{{"step": {s}, "validation/reward": {0.3 + s / 100}, "entropy": {2 - s / 20}, "length": {s}}}'
        for s in range(0, 20, 5)
    ]
    big = "1" + "0" * 400
    lines += [f'{{"step": 10, "entropy": 1.25, "note": "resumed", "ok": true, "loss": NaN, "big": {big}}}']
    lines += ['{"step": 20, "ent', "[1]"]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return read_curves([folder])


def check(svg: str, title: str, series: set[str]) -> None:
    """Check that an SVG is well-formed, has real text and named series, and uses the palette only."""
    root = ElementTree.fromstring(svg)
    texts = [element.text or "" for element in root.iter() if element.tag.endswith("}text")]
    assert any(title in text for text in texts)
    ids = [str(element.get("id")) for element in root.iter() if element.get("id")]
    assert {name for name in ids if name.startswith("series:")} == {f"series:{name}" for name in series}
    assert "<image" not in svg
    if "Cross-model" not in title:  # a heat map has a colour scale of its own
        palette = {drawing.INK, drawing.GRID, "#ffffff", "#000000", *drawing.COLOURS}
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= palette


def test_figures_of_prompt_length_name_every_series(by_scope: list[Scores]) -> None:
    names = {"naive", "icl", "zero · smol", "zero · large", "mii · smol", "mii · large", "my-own"}
    length, pareto = figures.length_figure(by_scope[0]), figures.pareto_figure(by_scope)
    check(drawing.svg(length.figure), "Macro-F1 against prompt length: a follower, mode choose", names)
    check(drawing.svg(pareto.figure), "Pareto frontier", names)
    assert "(5 of 6 tasks, those that most points share; 2 seeds;" in length.caption
    assert "b follower" in pareto.caption


def test_a_method_without_a_prompt_is_a_horizontal_line(folder: Path) -> None:
    cells = all_cells(Run.read(folder))
    cells.loc[cells["series"] == "my-own", "tokens_per_query"] = 0.0
    scope = scopes(cells)[0]
    assert scope.name == "a"
    scores = Scores.of(cells, scope)
    height = statistics.comparable(scores).at("my-own", 20).mean()
    for drawn in (figures.length_figure(scores), figures.pareto_figure([scores])):
        (axes,) = drawn.figure.axes
        collections: Any = axes.collections
        (line,) = [line for line in collections if line.get_linestyle()[0][1] and line.get_gid() == "series:my-own"]
        assert line.get_segments()[0][:, 1] == pytest.approx(np.full(2, height))
        assert axes.get_xlim()[0] > 0
    assert any(text.get_text() == "my-own, n=20" for text in figures.length_figure(scores).figure.axes[0].texts)


def test_the_caption_names_methods_whose_prompt_length_is_unknown(by_scope: list[Scores]) -> None:
    scores = by_scope[0].only(20)
    tokens = scores.tokens.copy()
    tokens[scores.names.index("icl")] = np.nan
    drawn = figures.length_figure(replace(scores, tokens=tokens))
    assert "left out because their prompt tokens are unknown: icl at n=20;" in drawn.caption


def test_costs_and_transfer_are_drawn(folder: Path, by_scope: list[Scores]) -> None:
    cells = all_cells(Run.read(folder))
    cost = costs.cost_figure(cells, by_scope[0], 20)
    check(drawing.svg(cost.figure), "Cost per task at n=20", set(by_scope[0].names))
    matrix = transfer.transfers(by_scope)["mode choose"][20]
    heat_map = transfer.transfer_figure(matrix)
    drawn = drawing.svg(heat_map.figure)
    check(drawn, "Cross-model transfer at n=20", set())
    assert all(f">{value:.3f}<" in drawn for value in matrix.macro_f1.to_numpy().flat)
    assert "cost of one task at n=20" in cost.caption
    assert "6 tasks" in heat_map.caption


def test_figures_have_room_for_long_names_and_many_methods(tmp_path: Path) -> None:
    long = write_run(
        tmp_path / "long", 2, ("mii",), [5], 1, rows=10, generators=("g" * 150, "h"), followers=("f" * 150,)
    )
    many = write_run(tmp_path / "many", 2, [f"own-{i}" for i in range(50)], [5], 1, rows=10)
    for run in (long, many):
        results = Results(Run.read(run))
        (scores,) = results.by_scope
        drawn = [
            figures.length_figure(scores),
            figures.pareto_figure([scores]),
            costs.cost_figure(results.cells, scores, 5),
            *map(transfer.transfer_figure, transfer.transfers([scores]).get("mode choose", {}).values()),
        ]
        for figure in drawn:
            drawing.svg(figure.figure)  # matplotlib warns if nothing is left for the panels


def test_a_method_looks_the_same_with_and_without_other_methods(by_scope: list[Scores]) -> None:
    series = by_scope[0].series
    everywhere, alone = drawing.looks(series), drawing.looks([s for s in series if s.method == "mii"])
    assert set(alone) == {"mii · smol", "mii · large"}
    assert {name: everywhere[name] for name in alone} == alone
    assert everywhere["mii · smol"].colour == everywhere["mii · large"].colour
    assert len(set(everywhere.values())) == len(series)


def test_the_png_is_wide_enough_for_print(by_scope: list[Scores]) -> None:
    image = drawing.image(figures.length_figure(by_scope[0]).figure, "png")
    assert image.startswith(b"\x89PNG")
    assert int.from_bytes(image[16:20]) == 1440


def test_curves_match_what_the_run_wrote(runs: list[Curves]) -> None:
    (run,) = runs
    assert run.name == "qwen"
    assert set(run.metrics) == {"validation/reward", "entropy", "length"}
    assert run.metrics["entropy"] == {0: 2.0, 5: 1.75, 10: 1.25, 15: 1.25}
    assert run.damaged == 2
    drawn = drawing.svg(figures.validation_figure(runs).figure)
    check(drawn, "Training curves", {"qwen"})
    assert drawn == drawing.svg(figures.validation_figure(runs).figure)
    check(drawing.svg(figures.training_figure(runs, ["entropy", "length"], "training", "").figure), "entropy", {"qwen"})
    assert "qwen: 15 steps" in figures.validation_figure(runs).caption


def test_the_six_most_important_curves_are_chosen() -> None:
    names = ["a", "kl", "train/loss", "length", "b", "train/reward", "entropy", "zero_variance", "c"]
    assert figures.important(names) == ["train/reward", "length", "zero_variance", "entropy", "kl", "train/loss"]
    assert figures.important(list("abcdefgh")) == list("abcdef")
    assert figures.important(["a", "train/loss", "validation/loss"]) == ["train/loss", "validation/loss", "a"]


def test_runs_in_folders_of_the_same_name_stay_distinct(tmp_path: Path) -> None:
    folders = [tmp_path / name / "out" for name in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
        RunFolder(folder).log_metrics(0, {VALIDATION: 0.5})
    assert [run.name for run in read_curves(folders)] == [str(folder) for folder in folders]


def test_a_folder_without_curves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="is not a training run"):
        read_curves([tmp_path])


def test_nearly_empty_runs_can_be_drawn(tmp_path: Path) -> None:
    results = Results(Run.read(write_run(tmp_path / "run", 1, ["naive"], [5], 1, rows=10)))
    cells, (scores,) = results.cells, results.by_scope
    (mean,) = statistics.means(scores)
    assert np.isfinite([mean.low, mean.high]).all()
    for drawn in (
        figures.length_figure(scores),
        figures.pareto_figure([scores]),
        costs.cost_figure(cells, scores, 5),
        figures.validation_figure([]),
        figures.training_figure([], [], "training", ""),
    ):
        ElementTree.fromstring(drawing.svg(drawn.figure))
    unscored = cells.assign(macro_f1=float("nan"))
    ElementTree.fromstring(drawing.svg(figures.pareto_figure([Scores.of(unscored, scores.scope)]).figure))
    ElementTree.fromstring(drawing.svg(costs.cost_figure(unscored, scores, 5).figure))
