"""The HTML report: one file, no network, and no code injected by tasks or models."""
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false

import base64
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tests.chromium import chromium
from tests.report.synthetic import recording, write_run

from promptmii import metrics
from promptmii.errors import ArtefactError, OutputError, ScoreRefusedError
from promptmii.follower import Prediction
from promptmii.instruction import Instruction, Measurement
from promptmii.metrics import holm
from promptmii.records import Cell, Query, Record, Run, pack_predictions
from promptmii.report import headline, page_data
from promptmii.report.output import Files
from promptmii.report.page import legend, write_report
from promptmii.report.results import Results
from promptmii.report.scores import all_cells, chosen_n
from promptmii.report.statistics import paired
from promptmii.task import Example

pytestmark = pytest.mark.slow
METHODS = ("naive", "icl", "zero", "mii")
EVIL = "</script><img src=x onerror=\"document.title='owned'\"><b>\"'&$title ${evil}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 tasks with a damaged line and two failed cells."""
    folder = write_run(
        tmp_path_factory.mktemp("runs") / "run", 12, METHODS, (5, 20), 2, rows=30, modes=("generate",), failures=2
    )
    with (folder / "records.jsonl").open("a") as file:
        file.write('{"format": 1, "ke')
    return folder


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training") / "qwen"
    folder.mkdir()
    lines = [
        json.dumps({"step": step, "validation/reward": 0.3 + step / 100, "entropy": 2 - step / 20})
        for step in range(0, 20, 5)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def page(run: Path, training: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(Results.read([run, training]), tmp_path_factory.mktemp("report") / "out")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run in which every string from a task, model or server is an attack."""
    folder, labels = tmp_path_factory.mktemp("hostile"), (EVIL, "good")
    rows = [Example(f"{EVIL} \ud800 {i}", labels[i % 2]) for i in range(8)]
    query = Query.of(EVIL, rows)
    predictions = [Prediction(None, answer=EVIL) for _ in rows]
    measured = Measurement(
        macro_f1=0.0,
        low=0.0,
        high=0.1,
        accuracy=0.0,
        n=8,
        n_unparsed=8,
        n_truncated=0,
        prompt_tokens_per_query=90,
        data_key=query.key,
    )
    with recording(folder / "run") as writer:
        for name, n in product(("zero", "mii"), (5, 20)):
            cell = Cell(
                task=EVIL,
                method=name,
                n=n,
                seed=0,
                generator=EVIL.replace("$", ""),
                follower=EVIL.replace("$", ""),
                mode="generate",
            )
            instruction = Instruction(text=EVIL, labels=labels, method=name, measured=measured)
            record = Record(
                key=f"{name}{n}",
                cell=cell,
                status="done",
                instruction=instruction,
                query=query.key,
                answers=pack_predictions(predictions, labels),
                finished="2026-01-01",
            )
            writer.add(record, query)
        failed_cell = cell.model_copy(update={"seed": 1})
        writer.add(Record(key="failed", cell=failed_cell, status="failed", error=EVIL, finished="2026-01-01"))
    return write_report(Results.read([folder / "run"]), folder / "out")


def task_details(text: str) -> list[dict[str, Any]]:
    """The details of each task on the page."""
    return [unpack(part) for part in re.findall(r'<script type="text/plain" id="task-\d+">([^<]*)</script>', text)]


def unpack(part: str) -> dict[str, Any]:
    return json.loads(zlib.decompress(base64.b64decode(part)))


def test_the_page_needs_no_network_and_no_other_file(page: Path) -> None:
    text = page.read_text("utf-8")
    targets = [*re.findall(r'(?:src|href|xlink:href|action)="([^"]*)"', text), *re.findall(r"url\(([^)]*)\)", text)]
    files = [target for target in targets if not target.startswith(("#", "data:"))]
    assert files
    for target in files:
        assert re.fullmatch(r"(figures|tables)/[a-z0-9_.-]+", target), target
        assert (page.parent / target).stat().st_size > 0
    assert "http" not in re.sub(r"<script.*?</script>|<meta http-equiv", "", text, flags=re.DOTALL)
    assert not re.search(r"\son\w+=", re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))


def test_the_page_has_every_panel_of_the_poster(page: Path) -> None:
    text = page.read_text("utf-8")
    sections = re.findall(r'<section id="(\w+)"', text)
    assert sections == [
        "length",
        "headline",
        "run",
        "methods",
        "pareto",
        "training",
        "costs",
        "comparisons",
        "outcome",
        "tasks",
        "failures",
    ]
    assert re.findall(r'<li><a href="#(\w+)"', text) == sections
    assert text.count("<figure>") == text.count("<figcaption>") == text.count('role="img"') == 5
    assert "12: banking_000" in text
    assert "154 done, 2 failed, 1 damaged line" in text
    assert "no answer after 5 tries" in text
    assert "smol wrote for both" in text
    assert len(re.findall(r'id="(?!task-)[^"]*"', text)) == len(set(re.findall(r'id="(?!task-)[^"]*"', text)))


def test_the_page_is_small(page: Path) -> None:
    assert page.stat().st_size < 500_000


def test_figures_follow_the_theme_and_have_tooltips(page: Path) -> None:
    text = page.read_text("utf-8")
    svgs = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "var(--ink, #1f2328)" in svgs
    assert not re.search(r"(?<!, )#1f2328", svgs)
    tips = [unescape(tip) for tip in re.findall(r'data-series="mii" data-tip="([^"]*)"', svgs)]
    assert any(
        re.match(r"mii, n=20\nmacro-F1 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]\n\d+ prompt tokens per query\n1[01] tasks", tip)
        for tip in tips
    )
    assert '"qwen, step 15' in svgs
    assert (page.parent / "figures" / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert 'data-series="naive"' not in (page.parent / "figures" / "pareto.svg").read_text()


def test_details_match_the_records(page: Path, run: Path) -> None:
    grid = Run.read(run)
    tasks = task_details(page.read_text("utf-8"))
    assert sum(len(task["cells"]) for task in tasks) == len(grid.records) == 156
    series_numbers = {"icl": 1, "zero": 2}
    for record in (r for r in grid.records.values() if r.cell.method in series_numbers):
        task = tasks[sorted({r.cell.task for r in grid.records.values()}).index(record.cell.task)]
        coordinates = (series_numbers[record.cell.method], record.cell.n, record.cell.seed)
        (cell,) = [c for c in task["cells"] if (c["series"], c["n"], c["seed"]) == coordinates]
        if record.status == "failed":
            assert cell["error"] == record.error
            continue
        gold, predicted = record.scored(grid.queries)
        labels = task["labels"][cell["labels"]]
        counts = [[0] * (len(labels) + 1) for _ in labels]
        for g, p, count in zip(*[iter(cell["confusion"])] * 3, strict=True):
            counts[g][p] = count
        assert counts == metrics.confusion(gold, predicted, labels)
        assert task["instructions"][cell["instruction"]] == [record.instruction.text, len(record.instruction.text)]
        wrong = [i for i, (g, p) in enumerate(zip(gold, predicted, strict=True)) if g != p]
        assert cell["n_wrong"] == len(wrong)
        texts = [grid.queries[record.query].examples[i].text for i in wrong[: page_data.MAX_WRONG]]
        assert [task["texts"][row[0]][0] for row in cell["wrong"]] == texts
        assert [row[2] for row in cell["wrong"] if row[1] == len(labels)] == [
            record.predictions[i].answer for i in wrong[: page_data.MAX_WRONG] if predicted[i] is None
        ]


def test_long_instructions_are_cut_and_cut_shorter_on_a_large_page(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = Results(Run.read(run))
    monkeypatch.setattr(page_data, "INSTRUCTION_LENGTHS", (100, 30))
    for size, length in ((10**9, 100), (0, 30)):
        monkeypatch.setattr(page_data, "MAX_SIZE", size)
        tasks = map(unpack, page_data.task_details(results))
        instructions = [instruction for task in tasks for instruction in task["instructions"]]
        assert max(len(text) for text, _ in instructions) == length < max(full for _, full in instructions)


def test_cells_have_the_right_series_if_each_follower_has_its_own_generator(tmp_path: Path) -> None:
    methods = ("zero", "best-of-k", "mii")
    runs = [
        write_run(tmp_path / name, 1, methods, [5], 1, rows=10, generators=[name], followers=[name]) for name in "ab"
    ]
    results = Results(Run.read(*runs))
    numbers = page_data.numbers(results)
    (packed,) = page_data.task_details(results)
    task = unpack(packed)
    assert len(task["cells"]) == 6
    for cell in task["cells"]:
        assert numbers["series"][cell["series"]]["generator"] == "ab"[cell["scope"]]
        assert numbers["scores"][cell["scope"]][cell["series"]] is not None
    assert [name for name, _, _ in legend(results)] == ["zero", "mii", "best-of-k"]


def test_only_methods_that_take_all_that_fits_may_be_short_of_examples(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 1, ("mii", "best-of-k"), [5], 1, rows=10)
    text = (folder / "records.jsonl").read_text("utf-8")
    (folder / "records.jsonl").write_text(text.replace('"provenance":{"n":5', '"provenance":{"n":3'), "utf-8")
    results = Results(Run.read(folder))
    (packed,) = page_data.task_details(results)
    task = unpack(packed)
    assert {results.by_scope[0].names[cell["series"]]: cell["fitted"] for cell in task["cells"]} == {
        "mii": 3,
        "best-of-k": 5,
    }


def test_the_finding_claims_only_what_interval_and_test_support(run: Path) -> None:
    (scores,) = Results(Run.read(run)).by_scope
    claims = headline.claims([(scores, 20)])
    sentence = headline.finding(scores, 20, claims)
    assert sentence.startswith("With 20 examples, mii scores 0.")
    assert [claim.pair.b for claim in claims] == ["icl", "naive"], "the planned rivals, whatever their scores"
    pairs = [paired(scores, "mii", rival, 20) for rival in ("icl", "naive")]
    assert [claim.p for claim in claims] == holm([pair.p for pair in pairs]), "adjusted for all claims"
    for claim, pair in zip(claims, pairs, strict=True):
        clear = re.search(rf"0\.\d+ (more|less) than {pair.b}\b", sentence)
        assert bool(clear) == claim.clear
        assert not clear or pair.low > 0 or pair.high < 0
        assert claim.detectable > 0
    assert re.search(r"icl \(whose prompts are \d+\.\d times as long\)", sentence)
    assert "smallest difference to find" in headline.claim_table(claims).markdown
    assert chosen_n([5, 20, 100]) == 20
    assert chosen_n([5, 10, 50]) == 10


def test_the_first_sentence_names_the_leader_and_says_if_no_model_writes_for_it(tmp_path: Path) -> None:
    for methods, leader, unwritten in (
        (("naive", "zero", "mii"), "mii", False),
        (("naive", "icl", "zero"), "icl", True),
    ):
        folder = write_run(tmp_path / leader, 12, methods, (20,), 1, rows=200)
        (scores,) = Results(Run.read(folder)).by_scope
        sentence = headline.winner(scores, 20)
        assert sentence.startswith(f"{leader} leads at n=20 with a mean macro-F1 of 0.")
        assert ("It needs no instruction from a model." in sentence) == unwritten


def test_rivals_alone_are_ranked_but_none_is_under_test(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 7, ("naive", "icl", "tfidf", "keywords"), (5,), 1, rows=20)
    (scores,) = Results(Run.read(folder)).by_scope
    assert not headline.claims([(scores, 5)])
    assert headline.finding(scores, 5, []) == headline.unbeaten(scores, 5) == headline.long_prompts(scores, 5) == ""
    assert " leads at n=5 " in headline.winner(scores, 5)


def test_a_users_own_method_is_under_test_beside_baselines(tmp_path: Path) -> None:
    (scores,) = Results(Run.read(write_run(tmp_path / "run", 7, ("naive", "my-own"), (5,), 1, rows=20))).by_scope
    assert headline.finding(scores, 5, headline.claims([(scores, 5)])).startswith("With 5 examples, my-own scores")
    assert "from a model" not in headline.winner(scores, 5), "that is unknown for a user's own method"


def test_the_facts_name_the_whole_revision_of_a_server(tmp_path: Path) -> None:
    run = Run.read(write_run(tmp_path / "run", 1, ("naive",), (5,), 1, rows=10))
    served = "http://127.0.0.1:8000/v1/models m"
    revisions = {"openai:m": served}
    records = {key: record.model_copy(update={"revisions": revisions}) for key, record in run.records.items()}
    run = replace(run, records=records)
    assert headline.facts(run, all_cells(run), ["run"])["Revisions"] == f"openai:m {served}"


def test_no_selector_of_the_script_contains_data() -> None:
    # A model named with a quote would break the selector, and the script with it.
    for name in ("page.js", "tasks.js"):
        script = resources.files("promptmii.report").joinpath(name).read_text("utf-8")
        for selector in re.findall(r"(?:querySelector(?:All)?|closest)\(`([^`]*)`\)", script):
            assert set(re.findall(r"\$\{(\w+)", selector)) <= {"kind"}, selector


def test_hostile_text_stays_text(hostile: Path) -> None:
    text = hostile.read_text("utf-8")
    assert "<img" not in text
    assert text.count("<script") == text.count("</script>") == 3
    assert task_details(text)[0]["instructions"][0][0].startswith(EVIL)
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert EVIL in json.loads(data)["tasks"][0]["name"]


@pytest.mark.parametrize("methods", [["naive"], ["my-own", "mii"]])
def test_a_nearly_empty_run_has_a_page(tmp_path: Path, methods: list[str]) -> None:
    run = write_run(tmp_path / "run", 1, methods, [5], 1, rows=10)
    text = write_report(Results.read([run]), tmp_path / "deep" / "out").read_text("utf-8")
    assert ("With 5 examples, mii scores" if "mii" in methods else "naive leads at n=0") in text
    assert ('id="outcome"' in text) == ("naive" not in methods)


def test_the_page_of_a_run_whose_cells_all_failed_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 2, ["zero", "mii"], [5], 1, rows=10, failures=99)
    lines = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    failed = [
        {key: line[key] for key in ("key", "cell", "finished")} | {"status": "failed", "error": "the server is away"}
        for line in lines
    ]
    (run / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in failed))
    with pytest.raises(ScoreRefusedError, match=r"All cells failed .*the server is away"):
        write_report(Results.read([run]), tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "mii has no score at n=5." in text
    assert text.count("the server is away") >= 4


def test_a_training_run_alone_has_a_page(training: Path, tmp_path: Path) -> None:
    text = write_report(Results.read([training]), tmp_path / "out").read_text("utf-8")
    assert f"{training.name}: validation reward" in text
    assert 'id="training"' in text
    assert (tmp_path / "out" / "figures" / "training-reward.svg").exists()


def test_every_file_beside_the_page_has_a_link(page: Path) -> None:
    files = {
        str(path.relative_to(page.parent))
        for folder in ("figures", "tables")
        for path in (page.parent / folder).iterdir()
    }
    assert files == set(re.findall(r'href="((?:figures|tables)/[^"]+)"', page.read_text("utf-8")))
    for path in (page.parent / "figures").glob("*.tex"):
        text = path.read_text("utf-8")
        assert f"{{{path.stem}.pdf}}" in text
        assert path.with_suffix(".pdf").exists()
        assert re.search(r"\\caption\{.+\}", text)


def test_a_report_replaces_an_earlier_one_and_nothing_else(training: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    write_report(Results.read([training]), out)
    (out / "figures" / "mine.svg").write_text("mine")
    before = sorted(out.rglob("*"))
    with pytest.raises(ArtefactError):
        write_report(Results.read([tmp_path / "mistyped"]), out)
    assert sorted(out.rglob("*")) == before
    other.mkdir()
    (other / "metrics.jsonl").write_text('{"step": 0, "entropy": 2.0}\n{"step": 1, "entropy": 1.0}\n')
    write_report(Results.read([other]), out)
    assert {path.name for path in (out / "figures").iterdir()} == {
        "mine.svg",
        "training.svg",
        "training.png",
        "training.pdf",
        "training.tex",
    }


def test_unreadable_runs_and_unwritable_folders_are_reported(tmp_path: Path, run: Path) -> None:
    with pytest.raises(ArtefactError, match="not a run folder"):
        write_report(Results.read([run, tmp_path]), tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be made"):
        write_report(Results.read([run]), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(OutputError, match=r"^The folder .* does not exist\. Create it first\.$"):
        Files(tmp_path / "gone").page("")


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


class Tab:
    """A page in the browser, with its console messages, errors and requests."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#outcome-box article")

    def column(self, number: int) -> list[str]:
        """The texts of a column of the table of tasks, in the order shown."""
        return self.page.locator(f"#task-table > tbody > tr:visible > :nth-child({number})").all_inner_texts()


@pytest.fixture
def tab(browser: Any, page: Path) -> Iterator[Tab]:
    tab = Tab(browser, page)
    yield tab
    tab.page.close()
    assert tab.complaints == []
    assert tab.requests == [page.as_uri()]


@pytest.mark.browser
def test_tasks_are_sorted_by_mouse_and_keyboard(tab: Tab) -> None:
    names = tab.column(1)
    assert names == sorted(names)
    header = tab.page.locator("#task-table thead th", has_text="mii")
    header.locator("button").click()
    scores = [float(text.rstrip(" †")) for text in tab.column(7)]
    assert scores == sorted(scores, reverse=True)
    assert header.get_attribute("aria-sort") == "descending"
    header.locator("button").press("Enter")
    assert [float(text.rstrip(" †")) for text in tab.column(7)] == sorted(scores)
    assert tab.page.locator("#task-table [aria-sort]").count() == 1


@pytest.mark.browser
def test_tasks_can_be_searched(tab: Tab) -> None:
    before = tab.page.inner_text("#task-table tfoot")
    tab.page.fill("#task-controls input", "BANK")
    assert [name.strip() for name in tab.column(1)] == ["banking_000", "banking_006"]
    assert tab.page.inner_text("#task-count") == "2 of 12 tasks shown."
    assert tab.page.inner_text("#task-table tfoot") != before
    tab.page.select_option("#task-controls select:visible", "5")
    assert len(tab.column(1)) == 2


@pytest.mark.browser
def test_a_method_can_be_hidden_everywhere_and_shown_again(tab: Tab) -> None:
    shown = 'svg [data-series="icl"]:visible, #task-table [data-series="icl"]:visible'
    before = tab.page.locator(shown).count()
    assert before > 20
    tab.page.uncheck('#legend input[value="icl"]')
    assert tab.page.locator(shown).count() == 0
    assert tab.page.locator('svg [data-series="mii"]:visible').count() > 10
    tab.page.click("#legend button[value=none]")
    assert tab.page.locator("svg [data-series]:visible").count() == 0
    tab.page.click("#legend button[value=all]")
    assert tab.page.locator(shown).count() == before


@pytest.mark.browser
def test_values_are_shown_under_the_pointer(tab: Tab) -> None:
    tab.page.hover('#length .spots [data-series="icl"] >> nth=1')
    assert re.match(r"icl, n=20\nmacro-F1 0\.", tab.page.inner_text("#tip"))
    assert tab.page.locator('#length svg [data-series="mii"].dim').count() > 0
    tab.page.hover("h1")
    assert not tab.page.is_visible("#tip")
    assert tab.page.locator(".dim").count() == 0


@pytest.mark.browser
def test_a_task_opens_with_instruction_confusion_matrix_and_wrong_rows(tab: Tab) -> None:
    tab.page.click("#task-table .open >> nth=3")
    tab.page.wait_for_selector(".task h4")
    assert tab.page.inner_text(".task h4") == "mii, n=20, seed 0"
    assert "Answer with the label only." in tab.page.inner_text(".task .instruction")
    cells = tab.page.locator(".confusion td").all_inner_texts()
    assert sum(int(cell) for cell in cells if cell != "·") == 30
    wrong = tab.page.locator(".wrong tbody tr").count()
    assert tab.page.inner_text(".wrong caption").startswith(("The first", str(wrong)))
    tab.page.click(".task .picks button[aria-label^='naive']")
    assert tab.page.inner_text(".task h4") == "naive"
    assert "None: the follower reads" in tab.page.inner_text(".task .cell")
    tab.page.click(".task .picks button[aria-label^='icl, n=5']")
    tab.page.focus(".task .controls select:visible")
    tab.page.select_option(".task .controls select:visible", "1")
    assert tab.page.inner_text(".task h4") == "icl, n=5, seed 1"
    assert tab.page.evaluate("document.activeElement.tagName") == "SELECT"
    tab.page.click("#task-table .open >> nth=3")
    assert tab.page.locator(".task").count() == 0


@pytest.mark.browser
def test_a_task_of_another_scope_opens_with_its_own_cells(browser: Any, tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / str(hidden), 1, METHODS, (5,), 1, rows=10, nameless=hidden) for hidden in (False, True)
    ]
    tab = Tab(browser, write_report(Results.read(runs), tmp_path / "out"))
    assert tab.page.input_value("#task-controls select >> nth=0") == "0", "names kept"
    tab.page.click("#task-table tr[data-name*=nameless] .open")
    tab.page.wait_for_selector(".task h4")
    assert "Not run with smol follower, mode choose. Run with: smol follower, mode choose, names hidden." in (
        tab.page.inner_text(".task")
    )
    assert tab.page.locator(".task .controls select:visible").count() == 0, "the task has no other scope to choose"
    assert tab.complaints == []
    tab.page.close()


@pytest.mark.browser
def test_instructions_are_shown_side_by_side_and_tables_for_another_n_can_be_chosen(tab: Tab) -> None:
    left, right = tab.page.locator("#outcome-box article").all_inner_texts()
    assert left.startswith("zero written by smol, untrained")
    assert right.startswith("mii written by smol, under test")
    assert "Mind the tone" in left
    assert "forum. Decide what each is" in right
    tab.page.select_option("#outcome-controls select >> nth=0", label="law_004")
    tab.page.wait_for_function("document.querySelector('#outcome-box').innerText.includes('law forum')")
    assert "at n=20" in tab.page.inner_text("#comparisons h3:visible >> nth=0")
    tab.page.select_option("#comparisons select", "5")
    assert "at n=5" in tab.page.inner_text("#comparisons h3:visible >> nth=0")


@pytest.mark.browser
def test_the_page_follows_a_dark_theme_prints_light_and_fits_a_phone(browser: Any, page: Path) -> None:
    tab = Tab(browser, page, color_scheme="dark")
    colour = "getComputedStyle(document.querySelector('{}')).{}"
    dark = tab.page.evaluate(colour.format("body", "backgroundColor"))
    assert max(map(int, re.findall(r"\d+", dark))) < 60
    ink = tab.page.evaluate(colour.format("#length svg text", "fill"))
    assert min(map(int, re.findall(r"\d+", ink))) > 180
    tab.page.emulate_media(media="print")
    assert tab.page.evaluate(colour.format("body", "backgroundColor")) == "rgb(255, 255, 255)"
    assert not tab.page.is_visible("#legend")
    tab.page.emulate_media(media="screen")
    tab.page.set_viewport_size({"width": 360, "height": 740})
    tab.page.click("#task-table .open >> nth=0")
    tab.page.wait_for_selector(".confusion")
    tab.page.evaluate(
        "for (const s of document.querySelectorAll('.controls select')) s.append(new Option('w'.repeat(60)))"
    )
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 360
    tab.page.close()


@pytest.mark.browser
def test_the_first_screen_names_the_winner_and_shows_the_whole_figure(browser: Any, page: Path) -> None:
    tab = Tab(browser, page, viewport={"width": 1280, "height": 800})
    assert "leads at n=20" in tab.page.inner_text("header .finding")
    assert tab.page.evaluate("document.querySelector('#length svg').getBoundingClientRect().bottom") <= 800
    tab.page.set_viewport_size({"width": 390, "height": 844})
    box = "document.querySelector('#length .scroll')"
    assert tab.page.evaluate(f"{box}.scrollWidth > {box}.clientWidth"), "a narrow screen scrolls the figure"
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 390, "and nothing else"
    tab.page.close()


@pytest.mark.browser
def test_hostile_text_does_nothing_in_the_browser(browser: Any, hostile: Path) -> None:
    tab = Tab(browser, hostile)
    tab.page.click("#task-table .open")
    tab.page.wait_for_selector(".confusion")
    assert tab.page.inner_text("#task-table .open").strip() == EVIL
    assert EVIL in tab.page.inner_text(".task .instruction")
    assert EVIL in tab.page.inner_text(".wrong")
    assert tab.page.locator("img, b:has-text('evil')").count() == 0
    assert tab.page.title() != "owned"
    # Even injected markup would not run: the policy allows one script only.
    tab.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"document.title=1\">')")
    tab.page.wait_for_timeout(100)
    assert "report" in tab.page.inner_text(".kicker")
    assert tab.page.title() != "1"
    tab.page.close()


def test_unknown_costs_stay_unknown_and_uncalibrated_scores_are_shown(tmp_path: Path) -> None:
    """The follower's server reports no tokens."""
    folder = write_run(tmp_path / "run", 6, METHODS, (5, 20), 1, rows=20, modes=("choose",), failures=0)
    run = Run.read(folder)
    no_usage = {"prompt_tokens": None, "completion_tokens": None, "money": None}
    with recording(tmp_path / "silent") as writer:
        for record in run.records.values():
            assert record.instruction is not None
            assert record.instruction.measured is not None
            measured = record.instruction.measured.model_copy(
                update={"prompt_tokens_per_query": None, "uncalibrated_macro_f1": 0.125}
            )
            instruction = record.instruction.model_copy(
                update={"measured": measured, "cost": record.instruction.cost.model_copy(update=no_usage)}
            )
            update = {"instruction": instruction, "spent": record.spent.model_copy(update=no_usage)}
            writer.add(record.model_copy(update=update), run.queries[str(record.query)])
    page = write_report(Results.read([tmp_path / "silent"]), tmp_path / "out").read_text()
    assert "an unknown number of prompt tokens per query" in page
    tables = {path.name: path.read_text() for path in (tmp_path / "out" / "tables").glob("*.md")}
    methods = next(text for name, text in tables.items() if name.startswith("methods"))
    assert "n=5, uncalibrated" in methods
    assert "0.125" in methods
    costs = next(text for name, text in tables.items() if name.startswith("costs")).splitlines()
    head, mii = (next(line for line in costs if line.startswith(start)) for start in ("| method", "| mii"))
    assert "calls to make it" in head
    assert "prompt tokens per query" not in head
    assert "money to label" not in head
    assert "| – |" in mii  # the columns exist because naive makes no calls, so its tokens and money are known
