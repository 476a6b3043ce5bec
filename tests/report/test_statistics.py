"""Statistics and tables of a run, checked against its raw predictions and against their mathematical properties."""
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import wilcoxon
from sklearn.metrics import f1_score
from tests.report.synthetic import recording, write_run

from promptmii.records import Record, Run, pack_predictions
from promptmii.report import costs, headline, statistics, tables, transfer
from promptmii.report.paper import paper_scale_tables, published_tables
from promptmii.report.results import Results
from promptmii.report.scores import Scope, Scores, Series, all_cells, scopes, short_name, short_names, slug
from promptmii.report.statistics import Mean
from promptmii.report.tables import ReportTable

METHODS = ("naive", "icl", "zero", "mii")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight tasks. Twelve cells failed, including all seeds of some tasks."""
    folder = tmp_path_factory.mktemp("run")
    modes = ("choose", "generate")
    return write_run(
        folder, 8, METHODS, (5, 20), 2, rows=40, generators=("smol", "hf:me/trained"), modes=modes, failures=12
    )


@pytest.fixture(scope="module")
def grid(run: Path) -> Run:
    return Run.read(run)


@pytest.fixture(scope="module")
def cells(grid: Run) -> pd.DataFrame:
    return all_cells(grid)


@pytest.fixture(scope="module")
def scores(cells: pd.DataFrame) -> Scores:
    return Scores.of(cells, Scope("smol", "generate", "smol"))


def scores_from(values: np.ndarray) -> Scores:
    """Scores at n=20 from values of shape (S, T), without errors or costs."""
    macro_f1 = values[:, None].astype(float)
    names = [f"m{i}" for i in range(len(values))]
    return Scores(
        Scope("f", "choose", "f"),
        tuple(Series(name, name, None) for name in names),
        (20,),
        tuple(f"t{i}" for i in range(values.shape[1])),
        macro_f1,
        error=np.zeros_like(macro_f1),
        uncalibrated=np.full_like(macro_f1, np.nan),
        tokens=np.ones_like(macro_f1),
        seeds=(~np.isnan(macro_f1)).astype(np.int64),
        failed=np.isnan(macro_f1).astype(np.int64),
        constant=(False,) * len(values),
    )


def every_table(grid: Run) -> list[ReportTable]:
    """All tables of a page."""
    results = Results(grid)
    cells, by_scope = results.cells, results.by_scope
    listed: list[ReportTable] = []
    for own in by_scope:
        listed += [
            tables.method_table(own),
            tables.budget_table(own),
            costs.cost_table(cells, own.scope),
            tables.task_table(own),
        ]
        if len(own.series) > 1:
            listed += [table(own, n) for n in own.ns for table in (tables.win_table, tables.pair_table)]
    listed += [
        transfer.transfer_table(matrix) for by_n in transfer.transfers(by_scope).values() for matrix in by_n.values()
    ]
    listed += paper_scale_tables(grid, cells, by_scope)
    return [*listed, tables.failure_table(cells), tables.failed_cell_table(grid.failed, grid.damaged)]


shapes = st.tuples(st.integers(2, 4), st.integers(1, 12))
value_sets = shapes.flatmap(
    lambda shape: arrays.arrays(float, shape, elements=st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.9, float("nan")]))
)


@pytest.mark.slow
def test_scores_match_the_raw_predictions(grid: Run, scores: Scores) -> None:
    assert scores.names == ("naive", "icl", "zero · smol", "zero · trained", "mii · smol", "mii · trained")
    for name, n, generator in (("icl", 20, None), ("mii · trained", 5, "hf:me/trained")):
        for task, score in zip(scores.tasks, scores.at(name, n), strict=True):
            expected = []
            for record in grid.records.values():
                cell, wanted = record.cell, (task, name.split()[0], n, generator, "generate")
                if (cell.task, cell.method, cell.n, cell.generator, cell.mode) == wanted and record.status == "done":
                    gold, predicted = record.scored(grid.queries)
                    texts = [label or "none" for label in predicted]
                    expected.append(f1_score(gold, texts, labels=sorted(set(gold)), average="macro", zero_division=0))
            assert score == pytest.approx(np.mean(expected) if expected else float("nan"), nan_ok=True)


def test_modes_are_never_mixed(cells: pd.DataFrame) -> None:
    by_mode = [Scores.of(cells, scope) for scope in scopes(cells)]
    assert [own.scope.mode for own in by_mode] == ["choose", "generate"]
    assert not np.allclose(by_mode[0].at("icl", 20), by_mode[1].at("icl", 20), equal_nan=True)


def test_a_method_that_reads_no_examples_has_the_same_score_at_every_n(scores: Scores) -> None:
    assert (scores.at("naive", 5) == scores.at("naive", 20)).all()
    naive = [mean for mean in statistics.means(scores) if mean.series.name == "naive"]
    assert [mean.n for mean in naive] == [0, 0]
    assert sum(point.series.name == "naive" for point in statistics.points(scores)) == 1


def test_points_are_means_over_the_same_tasks(scores: Scores) -> None:
    macro_f1 = np.full_like(scores.macro_f1, 0.5)
    icl, last, at_20 = scores.names.index("icl"), len(scores.names) - 1, scores.ns.index(20)
    macro_f1[:, :, 0] = 0.0
    macro_f1[last, :, 0] = np.nan  # it lacks the hard task, which would flatter it
    macro_f1[icl, at_20] = 0.9
    macro_f1[icl, at_20, 1:4] = np.nan  # this point lacks three others
    changed = replace(scores, macro_f1=macro_f1)
    compared, points = statistics.comparable(changed), statistics.points(changed)
    assert compared.tasks == scores.tasks[1:]
    assert {(point.tasks, point.mean) for point in points} == {(len(compared.tasks), 0.5)}
    drawn = {(point.series.name, point.n) for point in points}
    assert ("icl", 20) not in drawn
    assert {("icl", 5), (scores.names[last], 20)} <= drawn
    assert "icl leads" not in headline.winner(changed, 20)


def test_methods_that_score_the_same_tie_and_a_lead_within_noise_is_called_that() -> None:
    noise = np.array([0.1, -0.1, 0.1, -0.1, 0.1, -0.1])
    means = np.array([0.4472, 0.4471, 0.44, 0.2])
    scores = scores_from(means[:, None] + np.outer([0, 0, 1, 0], noise))
    assert re.match(r"m0, m1 tie at n=20 .* 0\.447, at .* for m0, within noise of m2\.", headline.winner(scores, 20))
    assert re.match(
        r"m0 leads at n=20 .* 0\.447, [^,]+ per query\.$",
        headline.winner(scores_from(means[[0, 3], None] + 0 * noise), 20),
    )


def test_failed_cells_are_counted_and_named(cells: pd.DataFrame, grid: Run) -> None:
    means = [mean for scope in scopes(cells) for mean in statistics.means(Scores.of(cells, scope))]
    failed = sum(mean.failed for mean in means if mean.n)
    failed += sum(mean.failed for mean in means if not mean.n) / 2  # listed once for each of the two n
    assert failed == len(grid.failed) == 12
    incomplete = [mean for mean in means if mean.missing]
    assert incomplete
    assert all(mean.tasks == 8 - len(mean.missing) for mean in means)
    shown = "".join(table.markdown for table in every_table(grid))
    assert "(7 of 8 tasks)" in shown
    assert all(record.cell.name in shown for record in grid.failed)


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [4, 6, 12, 40])
@pytest.mark.parametrize("shape", [(20, 20), (4, 1.5), (2, 6)])
def test_the_interval_of_a_mean_has_its_nominal_coverage(tasks: int, shape: tuple[float, float]) -> None:
    # Task scores between 0 and 1, from bell-shaped to badly skewed. A bootstrap over six tasks covers 84 to 88 %.
    samples = np.random.default_rng(tasks).beta(*shape, size=(2000, tasks))
    truth = shape[0] / sum(shape)
    covered = [low <= truth <= high for low, high in map(statistics.interval_of_mean, samples)]
    assert 0.92 <= np.mean(covered) <= 0.97


def test_a_single_task_has_the_interval_over_its_rows(tmp_path: Path) -> None:
    grid = Run.read(write_run(tmp_path / "run", 1, ["icl"], [20], 1, rows=60))
    (mean,) = statistics.means(Scores.of(all_cells(grid), Scope("smol", "choose", "smol")))
    (record,) = grid.records.values()
    assert record.instruction is not None
    assert record.instruction.measured is not None
    assert mean.high - mean.low == pytest.approx(record.instruction.measured.high - record.instruction.measured.low)
    assert np.isnan(statistics.interval_of_mean(np.array([0.5]))).all()


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [2, 6, 12, 40])
def test_a_detectable_difference_is_detected_four_times_in_five(tasks: int) -> None:
    random = np.random.default_rng(1)
    noise = random.normal(0, 0.1, size=(2000, tasks))
    effect = statistics.detectable(np.array([0.1, -0.1] * (tasks // 2)) * np.sqrt((tasks - 1) / tasks))  # sd 0.1
    detected = [not low <= 0 <= high for low, high in map(statistics.interval_of_mean, noise + effect)]
    assert np.mean(detected) == pytest.approx(0.8, abs=0.03)


@settings(deadline=None, max_examples=25)
@given(value_sets)
def test_a_swapped_comparison_is_the_opposite(values: np.ndarray) -> None:
    scores = scores_from(values)
    pair, swapped = statistics.paired(scores, "m0", "m1", 20), statistics.paired(scores, "m1", "m0", 20)
    assert (pair.wins, pair.ties, pair.losses) == (swapped.losses, swapped.ties, swapped.wins)
    assert pair.mean == pytest.approx(-swapped.mean, nan_ok=True)
    assert pair.p == pytest.approx(swapped.p, nan_ok=True)
    assert bool(pair.reason) == np.isnan(pair.p)
    assert pair.wins + pair.ties + pair.losses == len(pair.differences)
    assert set(pair.differences) == set(scores.tasks) - set(pair.missing_a) - set(pair.missing_b)


@settings(deadline=None, max_examples=25)
@given(value_sets)
def test_wins_and_losses_mirror_each_other(values: np.ndarray) -> None:
    data = tables.win_table(scores_from(values), 20).data.set_index(["a", "b"])
    for a, b in data.index:
        row, mirrored = data.loc[(a, b)], data.loc[(b, a)]
        assert (row["wins"], row["ties"], row["losses"]) == (mirrored["losses"], mirrored["ties"], mirrored["wins"])


@settings(deadline=None, max_examples=25)
@given(value_sets)
def test_every_pair_counts_the_tasks_that_both_finished(values: np.ndarray) -> None:
    has_score = (~np.isnan(values)).astype(int)
    matched = has_score @ has_score.T
    for row in tables.pair_table(scores_from(values), 20).data.itertuples():
        assert row.wins + row.ties + row.losses == row.matched_tasks == matched[int(row.a[1:]), int(row.b[1:])]


def test_a_missing_signed_rank_test_has_a_reason() -> None:
    assert statistics.signed_rank(np.array([0.1] * 5))[1] == "fewer than 6 tasks"
    assert statistics.signed_rank(np.zeros(9)) == (1.0, ""), "it counts when p-values are adjusted"
    assert np.isnan(statistics.detectable(np.full(9, 0.1))), "a sample without noise does not say how much there is"
    differences = np.random.default_rng(0).normal(0.02, 0.05, 30)
    assert statistics.signed_rank(differences) == (pytest.approx(wilcoxon(differences).pvalue, rel=1e-6), "")
    assert statistics.signed_rank(np.array([0, 0, 0, 0, 0, 0.1]))[0] == 1.0


def _point(tokens: float, mean: float) -> Mean:
    return Mean(Series("m", "m", None), 5, mean, mean, mean, mean, tokens, 1, (), 1, 0)


@given(st.lists(st.builds(_point, st.floats(1, 1e4), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_frontier_holds_the_unbeaten_points(points: list[Mean]) -> None:
    front = statistics.frontier(points)
    assert all(any(best.tokens <= p.tokens and best.mean >= p.mean for best in front) for p in points)
    assert not any(
        other.tokens <= p.tokens and other.mean >= p.mean and other is not p for p in front for other in front
    )
    assert [point.mean for point in front] == sorted(point.mean for point in front)
    bests = [best.mean for budget in tables.BUDGETS if (best := statistics.best_within(points, budget))]
    assert bests == sorted(bests)


def test_a_cell_on_other_rows_than_the_latest_of_its_task_is_stale(run: Path, tmp_path: Path) -> None:
    read = Run.read(run)
    old = next(r for r in read.records.values() if (r.cell.method, r.cell.mode, r.status) == ("icl", "choose", "done"))
    query = read.queries[str(old.query)]
    shorter = type(query).of(query.task, query.examples[:-1])
    assert old.instruction is not None
    answers = pack_predictions(old.predictions[:-1], old.instruction.labels)
    changes = {"key": "other rows", "finished": "2027-01-01T00:00:00Z", "query": shorter.key, "answers": answers}
    new = old.model_copy(update=changes)
    with recording(tmp_path / "again") as recorder:
        recorder.add(new, shorter)
    both = all_cells(Run.read(run, tmp_path / "again"))
    of_task = both[(both["task"] == old.cell.task) & (both["status"] == "done")]
    assert of_task.loc[~of_task["stale"], "key"].tolist() == ["other rows"]


def test_a_follower_whose_cells_are_all_stale_is_left_out(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", 1, ("naive",), [5], 1, rows=10)
    new = write_run(tmp_path / "new", 1, ("naive",), [5], 1, rows=12, followers=("qwen",))
    lines = (new / "records.jsonl").read_text().replace("2026-01-05", "2027-01-05")
    (new / "records.jsonl").write_text(lines)
    results = Results.read([old, new])
    assert [scores.scope.name for scores in results.by_scope] == ["qwen"]
    assert headline.title(results.cells) == "1 method on 1 task, labelled by qwen"


def test_a_failed_cell_that_was_measured_again_later_is_not_listed_as_failed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 1, ("naive",), [5], 1, rows=10)
    (record,) = Run.read(run).records.values()
    finished = "2025-01-01T00:00:00Z"
    with recording(tmp_path / "failed") as recorder:
        recorder.add(Record(key="earlier", cell=record.cell, status="failed", error="gone", finished=finished), None)
    assert Run.read(run, tmp_path / "failed").failed == ()
    assert [record.error for record in Run.read(tmp_path / "failed").failed] == ["gone"]
    with recording(tmp_path / "at n") as recorder:
        cell = record.cell.model_copy(update={"n": 20})
        recorder.add(Record(key="at n", cell=cell, status="failed", error="gone", finished=finished), None)
    assert Run.read(run, tmp_path / "at n").failed == (), "the method is now measured once, without examples"
    with recording(tmp_path / "failed") as recorder:
        recorder.add(Record(key="later", cell=record.cell, status="failed", error="lost", finished="2027"), None)
    later = Results.read([run, tmp_path / "failed"])
    assert [record.error for record in later.run.failed] == ["lost"]
    assert later.nothing_scored, "the score is of earlier settings"


def test_failures_with_names_kept_and_hidden_are_counted_apart(tmp_path: Path) -> None:
    kept = write_run(tmp_path / "kept", 1, ("naive",), [5], 1, rows=10, failures=1)
    hidden = write_run(tmp_path / "hidden", 1, ("naive",), [5], 1, rows=10, nameless=True)
    shown = tables.failure_table(all_cells(Run.read(kept, hidden))).shown
    assert [*zip(shown["mode"], shown["failed"], strict=True)] == [("choose", 1), ("choose, names hidden", 0)]


def test_the_costs_of_a_follower_without_a_score_are_no_nan(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 1, ("naive",), [5], 1, rows=10)
    cells = all_cells(Run.read(run)).assign(macro_f1=np.nan)
    assert "nan" not in costs.cost_table(cells, scopes(cells)[0]).markdown


def test_a_finished_record_takes_precedence_over_a_failed_one(run: Path, tmp_path: Path) -> None:
    read = Run.read(run)
    done = next(r for r in read.records.values() if r.status == "done")
    with recording(tmp_path / "failed") as recorder:
        recorder.add(
            done.model_copy(update={"status": "failed", "error": "gone", "finished": "2027-01-01T00:00:00Z"}), None
        )
    for folders in ([run, tmp_path / "failed"], [tmp_path / "failed", run]):
        assert Run.read(*folders).records[done.key].status == "done"


def test_only_the_later_of_two_measurements_of_a_cell_counts(run: Path, cells: pd.DataFrame, tmp_path: Path) -> None:
    read = Run.read(run)
    old = next(r for r in read.records.values() if (r.cell.method, r.cell.mode, r.status) == ("icl", "choose", "done"))
    assert old.instruction is not None
    assert old.instruction.measured is not None
    measured = old.instruction.measured.model_copy(update={"macro_f1": 0.0})
    instruction = old.instruction.model_copy(update={"measured": measured})
    new = old.model_copy(update={"key": "again", "finished": "2027-01-01T00:00:00Z", "instruction": instruction})
    with recording(tmp_path / "again") as recorder:
        recorder.add(new, read.queries[str(old.query)])
    both = all_cells(Run.read(tmp_path / "again", run))
    assert both.loc[both["stale"], "key"].tolist() == [old.key]
    scope = Scope("smol", "choose", "smol")
    before, after = (Scores.of(frame, scope).at("icl", old.cell.n) for frame in (cells, both))
    changed_tasks = np.flatnonzero(~np.isclose(before, after, equal_nan=True))
    assert len(changed_tasks) == 1
    assert after[changed_tasks[0]] < before[changed_tasks[0]]


@pytest.mark.slow
def test_written_tables_can_be_read_back(grid: Run, tmp_path: Path) -> None:
    page_tables = every_table(grid)
    assert len({table.name for table in page_tables}) == len(page_tables)
    for table in (*page_tables, *page_tables):  # a second report replaces the first
        tables.write(table, tmp_path)
    assert len([*tmp_path.iterdir()]) == 3 * len(page_tables)
    for table in page_tables:
        csv = pd.read_csv(tmp_path / f"{table.name}.csv")
        assert list(csv.columns) == list(table.data.columns)
        assert len(csv) == len(table.data)
        lines = [line for line in (tmp_path / f"{table.name}.md").read_text().splitlines() if line.startswith("|")]
        assert len(lines) == len(table.shown) + 2
        assert {line.replace("\\|", "").count("|") for line in lines} == {len(table.shown.columns) + 1}
        assert "nan" not in table.markdown.lower()
    methods = next(table for table in page_tables if table.name == "methods-smol-generate")
    assert [c for c in methods.shown.columns if c.startswith("n=")] == ["n=5", "n=20"]


def test_text_of_servers_stays_in_its_cell(tmp_path: Path) -> None:
    text = "50 %\r<img src=x>\r\nbad | gateway < 500"
    frame = pd.DataFrame([{"cell": "a", "error": text}, {"cell": "b", "error": "<0.001"}])
    tables.write(ReportTable("failed", "Failed", "A note.", frame, frame), tmp_path)
    (first, second) = pd.read_csv(tmp_path / "failed.csv").itertuples(index=False)
    assert (first.error, second.error) == ("50 %\n<img src=x>\nbad | gateway < 500", "<0.001")
    lines = (tmp_path / "failed.md").read_text("utf-8").splitlines()
    assert lines[-2:] == ["| a | 50 % &lt;img src=x> bad \\| gateway < 500 |", "| b | <0.001 |"]
    assert "\r" not in (tmp_path / "failed.tex").read_bytes().decode()


def test_costs_are_means_over_tasks_and_unknown_money_stays_unknown(cells: pd.DataFrame) -> None:
    scope = Scope("smol", "generate", "smol")
    priced = costs.mean_costs(cells, scope).set_index(["series", "n"])
    assert priced.loc[("mii · smol", 20), "calls"] == 1
    assert priced.loc[("icl", 5), "calls"] == 0
    assert priced.loc[("icl", 5), "money"] == 0
    assert priced.loc[("naive", 0), "label_calls"] == 40
    without_prices = cells.copy()
    without_prices.loc[without_prices.index[without_prices["method"] == "icl"][0], "mode"] = "generate"
    without_prices.loc[without_prices["method"] == "icl", "label_money"] = None
    label_money = costs.mean_costs(without_prices, scope).set_index(["series", "n"])["label_money"]
    assert np.isnan(label_money["icl", 5])
    assert not np.isnan(label_money["mii · smol", 5])


@pytest.mark.parametrize("methods", [("naive", "icl", "mii"), ("icl", "mii")])
def test_the_leader_of_an_unfinished_run_is_chosen_among_all_methods(tmp_path: Path, methods: tuple[str, ...]) -> None:
    folder = write_run(tmp_path / "run", 12, methods, (5, 20, 50), 1, rows=30)
    lines = (folder / "records.jsonl").read_text("utf-8").splitlines(keepends=True)
    unfinished = re.compile(r'_00[0-5]".*"n":20,')
    (folder / "records.jsonl").write_text("".join(line for line in lines if not unfinished.search(line)), "utf-8")
    (scores,) = Results(Run.read(folder)).by_scope
    assert re.match(r"(mii|icl) leads at n=20 .* over 6 of 12 tasks", headline.winner(scores, 20))


def test_the_two_instructions_are_of_the_follower_that_the_view_opens_with(tmp_path: Path) -> None:
    # `b` comes first in the records, `a` first in the alphabet; each writes for itself as `zero`.
    run = [
        write_run(tmp_path / name, 1, ("zero", "mii"), [5], 1, rows=10, generators=[name], followers=[name])
        for name in "ba"
    ]
    results = Results(Run.read(*run))
    chosen = results.side_by_side
    assert chosen is not None
    assert {chosen.left, chosen.right} <= set(chosen.scores.series)


def test_transfer_lists_untrained_and_trained_writers(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run",
        3,
        ("icl", "zero", "mii"),
        [5],
        1,
        rows=20,
        generators=("small", "x:large"),
        followers=("a", "b"),
    )
    by_scope = Results(Run.read(folder)).by_scope
    matrix = transfer.transfers(by_scope)["mode choose"][5]
    assert [*matrix.macro_f1.index] == [("zero", "small"), ("zero", "x:large"), ("mii", "small"), ("mii", "x:large")]
    assert [*matrix.macro_f1.columns] == ["a", "b"]
    assert matrix.macro_f1.iloc[3, 1] == pytest.approx(np.mean(by_scope[1].at("mii · large", 5)))
    assert (matrix.tasks == 3).all(axis=None)


def test_a_run_with_failed_cells_and_damaged_lines_is_still_reported(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 1, ("naive", "icl"), [5], 1, rows=20, failures=1)
    with (folder / "records.jsonl").open("a") as file:
        file.write('{"half a line')
    both = [folder, shutil.copytree(folder, tmp_path / "copy")]
    by_name = {table.name: table for table in every_table(Run.read(*both))}
    assert "–" in by_name["methods-smol-choose"].shown.iloc[0].tolist()
    assert len(by_name["failed-cells"].data) == 3  # the failed cell, and the half line of each folder
    assert by_name["tests-smol-choose-n5"].data["reason"].tolist() == ["fewer than 6 tasks"]


def test_the_authors_scale_matches_their_scorer_and_needs_generated_answers(grid: Run, cells: pd.DataFrame) -> None:
    by_scope = [Scores.of(cells, scope) for scope in scopes(cells)]
    (table,) = paper_scale_tables(grid, cells, by_scope)  # for one of the two modes
    assert "generate" in table.title
    row = table.data[(table.data["series"] == "icl") & (table.data["n"] == 20)].iloc[0]
    by_task: dict[str, list[float]] = {}
    for record in grid.records.values():
        cell = record.cell
        if record.status == "done" and (cell.method, cell.n, cell.mode) == ("icl", 20, "generate"):
            gold, _ = record.scored(grid.queries)
            labels = list(record.instruction.labels) if record.instruction else []
            codes = {label.lower(): i for i, label in enumerate(labels)}
            predicted = [codes.get((p.answer or p.label or "").lower().strip(), 0) for p in record.predictions]
            by_task.setdefault(cell.task, []).append(
                float(f1_score([codes[g.lower()] for g in gold], predicted, average="macro"))
            )
    assert row["reward_f1"] == pytest.approx(np.mean([np.mean(scores) for scores in by_task.values()]))
    assert row["cells"] == sum(len(scores) for scores in by_task.values())


def test_the_papers_numbers_appear_beside_a_run_with_its_follower(tmp_path: Path) -> None:
    follower = "openai:meta-llama/Llama-3.1-8B-Instruct"
    methods = ("naive", "icl", "mii")
    folder = write_run(
        tmp_path / "run",
        3,
        methods,
        (20, 50),
        1,
        rows=20,
        generators=("base", "trained"),
        followers=(follower, "smol"),
        modes=("generate",),
    )
    by_scope = Results(Run.read(folder)).by_scope
    (table,) = published_tables(by_scope)
    rows = {(row.method, row.n): row for row in table.data.itertuples()}
    assert set(rows) == {("naive", 50), ("mii · base", 50), ("mii · trained", 50)}
    for name in ("mii · base", "mii · trained"):
        assert rows[name, 50].published == 0.416
        assert rows[name, 50].macro_f1 == pytest.approx(np.mean(by_scope[0].at(name, 50)))


def test_followers_that_differ_only_in_folder_or_address_stay_distinct(tmp_path: Path) -> None:
    served = ("openai:a@http://localhost:8000/v1", "openai:b@http://localhost:8001/v1")
    alike = ("smol+runs/x/best", "hf:runs/y/best", "openai:c@http://one/v1", "openai:c@http://two/v1")
    folder = write_run(tmp_path / "run", 1, ("naive", "icl"), [5], 1, rows=10, followers=(*served, *alike))
    found = scopes(all_cells(Run.read(folder)))
    assert [scope.name for scope in found] == ["a", "b", *alike]
    assert len({scope.slug for scope in found}) == len({scope.title for scope in found}) == 6
    same_slug = short_names(["hf:/data/模型甲", "hf:/data/模型乙", "hf:me/Llama", "hf:me/llama"])
    assert len(set(map(slug, same_slug.values()))) == 4
    assert short_name(r"hf:C:\models\llama") == "llama"
    assert short_name("hf:owner/model@cuda:1") == "model@cuda:1"
    assert short_name("openai:owner/llama3:8b") == "llama3:8b"
    assert short_name("openai:owner/llama@http://localhost:8000/v1#ours") == "llama#ours"
