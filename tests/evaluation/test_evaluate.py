"""Grids from end to end, with real files, processes and a real server."""
# pyright: reportArgumentType=false, reportOperatorIssue=false

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from tests.command_line import promptmii
from tests.evaluation.labelling_server import WORDS, LabellingServer
from tests.models.faulty_server import serving
from tests.models.tiny_llama import save_tiny_llama

from promptmii import Example, Instruction, MetaInducer, ScriptedModel, Support, Writer
from promptmii.errors import ArtefactError, ConfigError, DataError, EndpointError, ModelError, OutputError
from promptmii.evaluation import estimate, evaluate
from promptmii.evaluation.plan import EvaluateSettings, grid_tasks, plan
from promptmii.files import locked
from promptmii.models.base import ModelCard
from promptmii.records import Run


@pytest.fixture
def server() -> Iterator[LabellingServer]:
    with serving(LabellingServer()) as running:
        assert isinstance(running, LabellingServer)
        yield running


def write_task(folder: Path, name: str, rows: int = 60, instruction: str | None = None) -> str:
    labels = list(WORDS)
    data = [
        {"text": f"{name} case {i}: {WORDS[labels[i % 3]][i % 2]} {'again ' * (i % 5)}", "label": labels[i % 3]}
        for i in range(rows)
    ]
    path = folder / f"{name}.json"
    path.write_text(
        json.dumps({"data": data} | ({"instruction": instruction} if instruction else {})), encoding="utf-8"
    )
    return str(path)


def settings(server: LabellingServer, tasks: list[str], **changes) -> EvaluateSettings:
    values = {
        "followers": ("openai:m",),
        "generators": ("openai:m",),
        "n": (6,),
        "seeds": 1,
        "evaluate": 12,
        "mode": "generate",
    }
    values["endpoint"] = {"base_url": server.url, "concurrency": 8}
    return EvaluateSettings.of(tasks=tuple(tasks), **(values | changes))


@pytest.mark.slow
def test_all_methods_without_weights_run_in_one_grid(server, tmp_path) -> None:
    tasks = [write_task(tmp_path, "shop", instruction="Say what the ticket is about."), write_task(tmp_path, "bank")]
    methods = ("naive", "human", "icl", "zero", "mii", "best-of-k", "ape", "gepa")
    grid = settings(
        server,
        tasks,
        methods=methods,
        n=(6, 9),
        options={"ape": {"calls": 20}, "gepa": {"calls": 12}, "best-of-k": {"k": 2}},
    )
    run = evaluate(grid, tmp_path / "run")
    cells = [record.cell for record in run.records.values()]
    assert not run.failed
    assert Counter(cell.method for cell in cells) == {"naive": 2, "human": 1} | dict.fromkeys(methods[2:], 4)
    assert {cell.n for cell in cells if cell.method == "naive"} == {0}
    for record in run.records.values():
        gold, predicted = record.scored(run.queries)
        assert record.instruction is not None
        assert record.instruction.measured is not None
        names = [label or "none" for label in predicted]
        assert record.instruction.measured.macro_f1 == pytest.approx(
            f1_score(gold, names, labels=sorted(set(gold)), average="macro", zero_division=0)
        )
        assert record.spent.calls == len(gold) == 12


def test_the_recorded_cost_of_a_search_matches_the_server(server, tmp_path) -> None:
    run = evaluate(
        settings(server, [write_task(tmp_path, "shop")], methods=("ape",), n=(9,), options={"ape": {"calls": 40}}),
        tmp_path / "run",
    )
    (record,) = run.records.values()
    assert record.instruction is not None
    assert record.instruction.cost.calls + record.spent.calls == len(server.bodies)
    assert record.instruction.cost.calls <= 40


def test_a_rerun_sends_no_requests_and_changes_nothing(server, tmp_path) -> None:
    grid = settings(server, [write_task(tmp_path, "shop")], methods=("naive", "icl", "zero"))
    first = evaluate(grid, tmp_path / "run")
    calls, lines = len(server.bodies), (tmp_path / "run" / "records.jsonl").read_bytes()
    assert evaluate(grid, tmp_path / "run") == first
    assert len(server.bodies) == calls
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == lines


def test_a_changed_file_makes_another_cell(server, tmp_path) -> None:
    grid = settings(server, [write_task(tmp_path, "shop")], methods=("naive",))
    evaluate(grid, tmp_path / "run")
    write_task(tmp_path, "shop", rows=63)
    assert len(evaluate(grid, tmp_path / "run").records) == 1
    evaluate(settings(server, grid.tasks, methods=("naive",), evaluate=9), tmp_path / "run")
    assert len(Run.read(tmp_path / "run").records) == 3


def test_nameless_labels_the_same_rows_with_meaningless_names(server, tmp_path) -> None:
    grid = settings(server, [write_task(tmp_path, "shop")], methods=("icl",))
    evaluate(grid, tmp_path / "run")
    calls = len(server.bodies)
    nameless = evaluate(settings(server, grid.tasks, methods=("icl",), nameless=True), tmp_path / "run")
    (hidden,) = nameless.records.values()
    assert hidden.cell.task == "shop:nameless"
    assert hidden.instruction is not None
    prompts = [body["messages"][0]["content"] for body in server.bodies[calls:]]
    assert not any(f"Label: {label}" in prompt for label in WORDS for prompt in prompts)
    assert all(f"Label: {label}" in prompts[0] for label in hidden.instruction.labels)


@pytest.mark.slow
def test_grids_of_one_run_have_their_own_settings_and_tasks(server, tmp_path) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name in ("shop", "bank", "zoo"):
        write_task(tasks, name)
    grid = settings(
        server,
        [str(tasks)],
        methods=("naive", "icl"),
        only=("shop", "bank"),
        also=({"n": [12], "methods": ["icl"]}, {"nameless": True, "only": ["bank"], "methods": ["icl"]}),
    )
    cells = {(r.cell.task, r.cell.method, r.cell.n) for r in evaluate(grid, tmp_path / "run").records.values()}
    expected = {(task, *cell) for task in ("shop", "bank") for cell in (("naive", 0), ("icl", 6), ("icl", 12))}
    assert cells == expected | {("bank:nameless", "icl", 6)}
    calls = len(server.bodies)
    assert estimate(grid, tmp_path / "run")[-1].done == 7
    evaluate(grid, tmp_path / "run")
    assert len(server.bodies) - calls < 50  # the estimate's own calls
    with pytest.raises(DataError, match=r"no task 'bnak'. Did you mean 'bank'\?"):
        evaluate(settings(server, [str(tasks)], only=("bnak",)), tmp_path / "other")
    with pytest.raises(ConfigError, match="number 1: tasks is the same"):
        settings(server, ["suite"], also=({"tasks": ["written"]},))
    with pytest.raises(ConfigError, match="Unknown setting 'sedes'"):
        settings(server, ["suite"], also=({"sedes": 2},))


def test_a_further_grid_cannot_select_a_task_that_does_not_exist(tmp_path) -> None:
    write_task(tmp_path, "bank")
    grid = EvaluateSettings(tasks=(str(tmp_path),), methods=("naive",), also=({"only": ["bnak"]},))
    with pytest.raises(DataError, match=r"no task 'bnak'. Did you mean 'bank'\?"):
        grid_tasks(grid)


@pytest.mark.parametrize(
    ("changes", "also", "named"),
    [
        ({"methods": ("mii",)}, {"budget": 30}, "mii .*(budget)"),
        ({"methods": ("icl",)}, {"methods": ["naive"], "evaluate": 9}, "naive .*(evaluate)"),
        ({"methods": ("naive",), "calibration": "none"}, {"calibration": "support"}, "naive .*(calibration)"),
    ],
    ids=["the same cell", "other rows", "at n = 0 and at each n"],
)
def test_grids_of_which_a_report_would_show_only_one_are_refused(server, changes, also, named, tmp_path) -> None:
    grid = settings(server, [write_task(tmp_path, "shop")], **changes, also=(also,))
    with pytest.raises(ConfigError, match=rf"two grids measure shop / {named}"):
        evaluate(grid, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_record_names_the_machine_and_the_revisions_of_its_models(server, tmp_path) -> None:
    run = evaluate(settings(server, [write_task(tmp_path, "shop")], methods=("naive", "zero")), tmp_path / "run")
    for record in run.records.values():
        assert "threads" in str(record.machine)
        assert list(record.revisions) == ["openai:m"]


@pytest.mark.slow
def test_failed_cells_have_no_score_and_run_again_only_with_retry_failed(server, tmp_path) -> None:
    grid = settings(server, [write_task(tmp_path, "shop")], methods=("naive", "icl"))
    server.default = "context"
    failed = evaluate(grid, tmp_path / "run").failed
    assert len(failed) == 2
    assert all(record.instruction is None and "maximum context" in str(record.error) for record in failed)
    server.default = "ok"
    assert estimate(grid, tmp_path / "run")[-1].cost.calls == 0
    assert estimate(grid, tmp_path / "run", retry_failed=True)[-1].cost.calls == 24
    assert len(evaluate(grid, tmp_path / "run").failed) == 2
    assert not evaluate(grid, tmp_path / "run", retry_failed=True).failed


def test_the_server_from_the_environment_is_only_a_default(server, tmp_path) -> None:
    config = tmp_path / "grid.toml"
    task = write_task(tmp_path, "shop")
    grid = f'tasks = ["{task}"]\nmethods = ["naive"]\nfollowers = ["openai:m"]\nevaluate = 6\nmode = "generate"\n'
    nowhere = "http://127.0.0.1:9/v1"
    for name, base_url, environment in (
        ("file", f'base_url = "{server.url}"\n', nowhere),
        ("environment", "", server.url),
    ):
        config.write_text(f"{grid}[endpoint]\npatience = 0\n{base_url}")
        command = ["evaluate", str(config), "-o", str(tmp_path / name), "--json"]
        assert promptmii(*command, env={"OPENAI_BASE_URL": environment}).exit_code == 0
        assert len(Run.read(tmp_path / name).records) == 1
        assert not Run.read(tmp_path / name).failed


def test_the_command_ends_with_the_results(server, tmp_path) -> None:
    command = ["evaluate", "--tasks", write_task(tmp_path, "shop"), "--methods", "naive", "--eval", "6"]
    command += ["--follower", "openai:m", "--base-url", server.url, "--mode", "generate", "-o", tmp_path / "run"]
    done = promptmii(*command)
    (record,) = Run.read(tmp_path / "run").records.values()
    assert record.instruction
    measured = record.instruction.measured
    assert measured
    assert re.search(rf"^ ?naive +{measured.macro_f1:.3f} \[.*1 of 1", done.stdout, re.M)
    assert done.stdout.splitlines()[-1] == f"See figures and tests with: promptmii report {tmp_path / 'run'}"


def test_the_command_speaks_of_its_own_grid(server, tmp_path) -> None:
    options = ["--tasks", write_task(tmp_path, "shop"), "--eval", "6", "--follower", "openai:m", "--mode", "generate"]
    options += ["--base-url", server.url, "-o", tmp_path / "run"]
    server.default = "context"
    failed = promptmii("evaluate", "--methods", "icl", "--n", "6", "--seeds", "1", *options)
    assert "0 cells done, 1 failed in" in failed.stdout
    assert failed.exit_code == 4
    server.default = "ok"
    done = promptmii("evaluate", "--methods", "naive", *options)
    assert "1 cell done, 0 failed in" in done.stdout
    assert done.exit_code == 0


def test_another_context_length_makes_another_cell(server, tmp_path) -> None:
    path = write_task(tmp_path, "shop")
    for length in (4096, 8192):
        grid = settings(server, [path], methods=("icl",), endpoint={"base_url": server.url, "context_length": length})
        evaluate(grid, tmp_path / "run")
    assert len(Run.read(tmp_path / "run").records) == 2

    def key(card: ModelCard) -> str:
        local = settings(server, [path], methods=("mii",), generators=("smol",), followers=("smol",))
        return plan(local, grid_tasks(local), {"smol": card})[0].key

    card = ModelCard("smol", "weights", 8192, gives_scores=True)
    assert key(card) == key(replace(card, context_length=2048))  # of a model here, the revision says it


def test_too_many_examples_fail_only_their_cell(server, tmp_path) -> None:
    run = evaluate(settings(server, [write_task(tmp_path, "shop")], methods=("icl",), n=(6, 500)), tmp_path / "run")
    assert [record.cell.n for record in run.failed] == [500]
    assert "500 examples were asked for" in str(run.failed[0].error)


def test_damaged_lines_are_named_and_their_cells_run_again(server, tmp_path) -> None:
    grid = settings(server, [write_task(tmp_path, "shop"), write_task(tmp_path, "bank")], methods=("naive",))
    whole = evaluate(grid, tmp_path / "run")
    path = tmp_path / "run" / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-40])  # as a kill in the middle of a write would leave it
    cut = Run.read(tmp_path / "run")
    assert len(cut.records) == 1
    assert "records.jsonl, line 2" in cut.damaged[0]
    again = evaluate(grid, tmp_path / "run")
    assert set(again.records) == set(whole.records)
    assert len(again.damaged) == 1


def test_two_processes_cannot_write_to_one_folder(server, tmp_path) -> None:
    with locked(tmp_path / "run"), pytest.raises(OutputError, match="Another process"):
        evaluate(settings(server, [write_task(tmp_path, "shop")]), tmp_path / "run")


@pytest.mark.slow
def test_a_killed_run_resumes_and_pays_for_no_call_twice(server, tmp_path) -> None:
    tasks = [write_task(tmp_path, name) for name in ("shop", "bank", "post")]
    command = [
        sys.executable,
        "-m",
        "promptmii",
        "evaluate",
        "-o",
        str(tmp_path / "run"),
        "--methods",
        "naive,icl",
        "-n",
        "6,9",
    ]
    command += [
        "--seeds",
        "2",
        "--eval",
        "24",
        "--mode",
        "generate",
        "--follower",
        "openai:m",
        "--base-url",
        server.url,
        "--json",
    ]
    command += [part for task in tasks for part in ("--tasks", task)] + ["--workers", "2", "--concurrency", "4"]
    for lines in (0, 4, 12):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        records = tmp_path / "run" / "records.jsonl"
        deadline = time.monotonic() + 60
        while (not records.exists() or records.read_bytes().count(b"\n") <= lines) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    run = Run.read(tmp_path / "run")
    keys = [
        json.loads(line)["key"]
        for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()
        if line.endswith("}")
    ]
    assert len(run.records) == len(keys) == 3 * (1 + 4)
    requests = Counter(json.dumps(body, sort_keys=True) for body in server.bodies)
    # Only requests in flight at a kill are repeated: at most `concurrency` per kill.
    assert sum(count - 1 for count in requests.values()) <= 3 * 4


@pytest.mark.slow
def test_a_refusal_in_one_cell_loses_no_paid_answer_of_another(tmp_path) -> None:
    credit, answered = 13, []

    def reply(body: dict[str, Any]) -> str:
        nonlocal credit
        credit -= 1
        if credit < 0:
            return "401"
        answered.append(json.dumps(body))
        return "slow"

    with serving(LabellingServer(default=reply)) as server:
        grid = settings(server, [write_task(tmp_path, "shop")], methods=("icl",), seeds=4, workers=4)
        with pytest.raises(EndpointError, match="refuses the key"):
            evaluate(grid, tmp_path / "run")
        assert len(answered) == 13
        credit = 1000
        assert not evaluate(grid, tmp_path / "run").failed
    assert max(Counter(answered).values()) == 1


def test_bad_configurations_are_refused_before_the_first_call(server, tmp_path) -> None:
    task = write_task(tmp_path, "shop")
    with pytest.raises(ConfigError, match="Did you mean 'gepa'"):
        evaluate(settings(server, [task], methods=("gepq",)), tmp_path / "run")
    with pytest.raises(ConfigError, match="no task has one"):
        evaluate(settings(server, [task], methods=("human",)), tmp_path / "run")
    with pytest.raises(DataError, match="does not exist"):
        evaluate(settings(server, [str(tmp_path / "none.csv")]), tmp_path / "run")
    with pytest.raises(ArtefactError, match="not a run folder"):
        Run.read(tmp_path)
    config = tmp_path / "grid.toml"
    config.write_text('tasks = ["x"]\nmetods = ["naive"]\n')
    with pytest.raises(ConfigError, match="Did you mean 'methods'"):
        EvaluateSettings.read(config)
    assert not server.bodies


@pytest.mark.slow
def test_an_estimate_predicts_the_calls_of_the_run(server, tmp_path) -> None:
    grid = settings(
        server,
        [write_task(tmp_path, "shop")],
        methods=("naive", "icl", "mii"),
        endpoint={"base_url": server.url, "prices": {"*": (1, 2)}},
    )
    lines = {line.method: line for line in estimate(grid, tmp_path / "run")}
    assert {name: line.cost.calls for name, line in lines.items()} == {"naive": 12, "icl": 12, "mii": 13, "all": 37}
    assert lines["all"].cost.money is not None
    assert lines["icl"].cost.prompt_tokens > lines["naive"].cost.prompt_tokens
    limited = estimate(grid.model_copy(update={"budget": 4000}), tmp_path / "run")[-1]
    assert limited.cost.prompt_tokens == lines["all"].cost.prompt_tokens, "a high limit makes no instruction longer"
    run = evaluate(grid, tmp_path / "run")
    spent = [record.spent.money for record in run.records.values()]
    assert all(money and money > 0 for money in spent)
    assert estimate(grid, tmp_path / "run")[-1].cost.calls == 0


def test_a_dry_run_says_what_it_does_not_know_without_its_servers(server, tmp_path) -> None:
    command = ["evaluate", "--dry-run", "--tasks", write_task(tmp_path, "shop"), "--methods", "naive,mii", "--n", "6"]
    command += ["--seeds", "1", "--eval", "12", "--mode", "generate", "--follower", f"openai:m@{server.url}"]
    command += ["--price", "1,2", "-o", tmp_path / "run", "--generator"]
    for reason, options in {
        "No server answers at http://127.0.0.1:9: connection refused": ["openai:w@http://127.0.0.1:9"],
        "The server of openai:w starts with the run": ["openai:w", "--set", "serve.engine=vllm"],
    }.items():
        done = promptmii(*command, *options)
        assert f"{reason}." in done.stderr
        assert "the time is unknown" in done.stderr
        assert re.search(r"^ mii .* unknown", done.stdout, re.M)
        costs = {line["method"]: line["cost"] for line in json.loads(promptmii(*command, *options, "--json").stdout)}
        assert costs["naive"]["seconds"] > 0
        assert costs["mii"]["seconds"] is costs["all"]["seconds"] is None
        assert costs["mii"]["calls"] == 13
        assert costs["mii"]["money"] > 0


@pytest.mark.slow
def test_an_estimate_counts_training_and_calibration(tmp_path) -> None:
    pytest.importorskip("torch")
    follower = f"hf:{save_tiny_llama(tmp_path / 'tiny', 8192)}"
    # Four rows are labelled. Fine-tuning reads six examples five times, so these do not calibrate it.
    for calibration, naive, sft in (("support", 4 + 6, 4 + 30), ("contextual", 4 + 4, 4 + 30 + 4)):
        grid = EvaluateSettings.of(
            tasks=(write_task(tmp_path, "shop"),),
            methods=("naive", "sft"),
            followers=(follower,),
            n=(6,),
            seeds=1,
            evaluate=4,
            calibration=calibration,
        )
        calls = {line.method: line.cost.calls for line in estimate(grid, tmp_path / "run")}
        assert calls == {"naive": naive, "sft": sft, "all": naive + sft}


def test_settings_refused_late_leave_no_folder(server, tmp_path) -> None:
    task = write_task(tmp_path, "shop")
    for changes, error in (
        ({"methods": ("human",)}, ConfigError),
        ({"followers": ("openai:m", f"hf:{tmp_path / 'none'}")}, ModelError),
    ):
        with pytest.raises(error):
            evaluate(settings(server, [task], **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_run_folder_is_private_to_its_owner(server, tmp_path) -> None:
    evaluate(settings(server, [write_task(tmp_path, "shop")], methods=("naive",)), tmp_path / "run")
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").glob("*.*l*")} >= {0o600}


def test_forgotten_answers_are_requested_again(server, tmp_path) -> None:
    grid = settings(server, [write_task(tmp_path, "shop")], methods=("naive",))
    evaluate(grid, tmp_path / "run")
    calls = len(server.bodies)
    (tmp_path / "run" / "records.jsonl").write_bytes(b"")
    evaluate(grid, tmp_path / "run")
    assert len(server.bodies) == calls
    (tmp_path / "run" / "records.jsonl").write_bytes(b"")
    (tmp_path / "run" / "answers.sqlite").write_bytes(b"damaged" * 200)
    with pytest.raises(OutputError, match="cannot be used"):
        evaluate(grid, tmp_path / "run")
    assert not evaluate(grid, tmp_path / "run", forget_answers=True).failed
    assert len(server.bodies) == 2 * calls


class TestConfigurations:
    """Any file gives settings or a one-line error that names it, before a folder is created."""

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"\xff\xfe\x00", "cannot be read"),
            (b"a = " + b"[" * 5000, "cannot be read"),
            (b"", "The setting tasks is missing"),
            (b"tasks = 5", "tasks = 5 is refused"),
            (b"tasks = []", "tasks = [] is refused"),
            (b'tasks = ["suite"]\nmethods = []', "methods = [] is refused"),
            (b'tasks = ["suite"]\nseeds = 99999999999999999999', "seeds"),
            (b'tasks = ["suite"]\noptions = 3', "options = 3"),
            (b'tasks = ["suite"]\n[options]\nape = 3', "options.ape = 3 is refused"),
            (b'tasks = ["suite"]\n[options.ape]\ncalls = inf', "Method ape"),
            (b'tasks = ["suite"]\ntemplate = "nothing.txt"', "nothing.txt"),
        ],
    )
    def test_a_bad_file(self, tmp_path: Path, content: bytes, words: str) -> None:
        (tmp_path / "grid.toml").write_bytes(content)
        done = promptmii("evaluate", tmp_path / "grid.toml", "-o", tmp_path / "run")
        assert done.exit_code == 2
        assert words in done.stderr
        assert not (tmp_path / "run").exists()

    @given(content=st.binary(max_size=60))
    @hypothesis_settings(max_examples=60, deadline=None)
    def test_any_bytes(self, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "grid.toml"
            path.write_bytes(content)
            with pytest.raises(ConfigError, match=r"grid\.toml"):
                EvaluateSettings.read(path)


def test_unencodable_text_is_repaired_before_it_is_recorded() -> None:
    broken = "say parcel \ud800 or money"
    made = MetaInducer(Writer(ScriptedModel([broken]))).induce(Support(("a", "b"), (Example("x", "a"),)))
    assert made.text == "say parcel ? or money"
    assert Instruction.model_validate_json(made.model_dump_json()) == made
