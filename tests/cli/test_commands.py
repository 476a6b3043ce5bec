"""The command line: arguments, output, exit codes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tests.command_line import promptmii
from tests.models.faulty_server import FaultyServer, Reply, completion, serving
from tests.models.tiny import transformers_folder

from promptmii import Naive, Support
from promptmii.data import demo_path
from promptmii.inducers import METHODS, Method
from promptmii.instruction import Cost, Instruction
from promptmii.models.base import Price, Usage

GRID = ["evaluate", "--tasks", "suite", "--methods", "naive", "--mode", "generate", "--eval", "1"]


@pytest.fixture
def instruction_file(tmp_path) -> Path:
    instruction = Naive().induce(Support(("good", "bad"), ()))
    instruction.model_copy(update={"follower": "openai:m", "mode": "generate"}).save(tmp_path / "generate.json")
    return instruction.model_copy(update={"follower": "smol", "mode": "choose"}).save(tmp_path / "made.json")


def test_export_prints_json(instruction_file: Path, tmp_path: Path) -> None:
    result = json.loads(promptmii("export", instruction_file, "--to", "txt", "--json").stdout)
    assert result == {"target": "txt", "file": None, "code": Instruction.load(instruction_file).export("txt")}
    path = tmp_path / "prompt.txt"
    result = json.loads(promptmii("export", instruction_file, "--to", "txt", "-o", path, "--json").stdout)
    assert (result["file"], result["code"]) == (str(path), path.read_text())


@pytest.mark.slow
def test_score_refit_calibrates_an_edited_instruction_and_keeps_its_score(tmp_path: Path) -> None:
    model = transformers_folder(tmp_path / "tiny")
    rows = [f"text number {i},{('good', 'bad')[i % 2]}" for i in range(16)]
    for name, part in (("fit.csv", rows[:6]), ("all.csv", rows)):
        (tmp_path / name).write_text("\n".join(["text,label", *part, ""]))
    instruction = (
        Naive().induce(Support(("good", "bad"), ())).model_copy(update={"follower": f"hf:{model}", "mode": "choose"})
    )
    path = instruction.save(tmp_path / "made.json")
    done = promptmii("score", path, tmp_path / "all.csv", "--refit", tmp_path / "fit.csv", "--json")
    assert done.exit_code == 0, done.stderr
    saved = Instruction.load(path)
    assert saved.is_calibrated
    assert saved.calibration_cost.calls == 6
    assert saved.measured is not None
    assert saved.measured.n == 10
    result = json.loads(done.stdout)
    assert result["measured"]["macro_f1"] == saved.measured.macro_f1
    assert any("6 rows left out" in note for note in result["notes"])
    assert not any("training" in note for note in result["notes"])  # all other rows measure
    shown = promptmii("show", path).stdout
    assert f"{saved.measured.macro_f1:.3f}" in shown
    assert f"{saved.measured.uncalibrated_macro_f1:.3f} uncalibrated" in " ".join(shown.split())


@pytest.mark.smol
@pytest.mark.slow
def test_the_command_after_a_calibration_repeats_the_address(instruction_file: Path, tmp_path: Path) -> None:
    (tmp_path / "fit.csv").write_text("text,label\nfine,good\npoor,bad\nnice,good\nworse,bad\n")
    address = ["--base-url", "http://127.0.0.1:9/v1"]
    done = promptmii("calibrate", instruction_file, tmp_path / "fit.csv", *address)
    command = f"promptmii score {instruction_file} OTHER_DATA {' '.join(address)}"
    assert f"Measure it with: {command}\n" in done.stdout


def test_score_refit_refuses_a_file_that_cannot_be_written_before_it_reads_or_pays(tmp_path: Path) -> None:
    (tmp_path / "made.json").mkdir()
    done = promptmii("score", tmp_path / "made.json", tmp_path / "no-rows.csv", "--refit", tmp_path / "no-rows.csv")
    assert done.exit_code == 2
    assert "expected the name of a file to write" in done.stderr


def test_an_instruction_whose_server_reports_no_tokens_says_unknown(tmp_path: Path) -> None:
    usage = Usage(3, None, None)
    instruction = (
        Naive().induce(Support(("good", "bad"), ())).model_copy(update={"cost": Cost.of(usage, Price(1.0, 1.0))})
    )
    path = instruction.save(tmp_path / "made.json")
    assert json.loads(path.read_text())["cost"]["prompt_tokens"] is None
    assert "3 calls, unknown tokens" in promptmii("show", path).stdout


def test_induce_says_unknown_if_the_server_reports_no_tokens(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"text number {i},{('good', 'bad')[i % 2]}\n" for i in range(20)))
    with serving(FaultyServer(default=lambda _: completion("good", usage=None))) as server:
        options = ["--generator", "openai:m", "--base-url", server.url, "--mode", "generate", "-n", "4", "--eval", "6"]
        done = promptmii("induce", path, *options, "--price", "1,1", "--yes", "-o", tmp_path / "made.json")
    assert done.exit_code == 0, done.stderr
    assert "The saving over ICL is unknown" in done.stdout
    assert f"promptmii predict {tmp_path / 'made.json'} NEW_DATA --base-url {server.url}" in done.stdout
    assert "held-back rows, 2 labels" in done.stdout
    assert "plain F1" not in done.stdout  # nothing is calibrated in this mode
    instruction = Instruction.load(tmp_path / "made.json")
    assert (instruction.cost.calls, instruction.cost.tokens, instruction.cost.money) == (1, None, None)
    assert instruction.measured is not None
    assert instruction.measured.prompt_tokens_per_query is None


def test_induce_says_whether_the_instruction_wins_beyond_noise(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    labels = ["good", "bad"] * 30
    path.write_text("text,label\n" + "".join(f"a {label} text {i},{label}\n" for i, label in enumerate(labels)))

    def answer(body: dict[str, Any]) -> Reply:
        prompt = body["messages"][-1]["content"]
        is_bad = prompt.rfind("a bad text") > prompt.rfind("a good text")
        return completion("bad" if is_bad and "Read the adjective." in prompt else "good")

    with serving(FaultyServer([completion("Read the adjective.")], default=answer)) as server:
        options = ["--generator", "openai:m", "--base-url", server.url, "--mode", "generate", "-n", "4"]
        done = promptmii("induce", path, *options, "--yes", "-o", tmp_path / "made.json")
    assert done.exit_code == 0, done.stderr
    assert "The induced instruction is better than naive: macro-F1 +0." in done.stdout
    assert "Warning" not in done.stdout
    assert "Next: edit" not in done.stdout


@pytest.mark.slow
def test_answers_that_name_no_label_are_no_silent_zeros(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    words = "Answers name no label, such as 'I cannot tell.' instead of '"
    with serving(FaultyServer(default=lambda _: completion("I cannot tell."))) as server:
        options = ["--base-url", server.url, "--mode", "generate"]
        made = promptmii(
            "induce", demo_path(), *options, "--generator", "openai:m", "-n", "6", "--eval", "30", "-o", path
        )
        assert f"Warning: {words}" in made.stdout
        assert "30 of 30 (naive), 30 of 30 (icl), 30 of 30 (mii). They are misses: use" in made.stdout
        assert "Next: edit" not in made.stdout
        options += ["--follower", "openai:m"]
        assert words in promptmii("compare", path, "naive", "--data", demo_path(), *options).stdout
        assert words in promptmii("score", path, demo_path(), *options).stdout


def test_induce_says_once_which_labels_have_no_example(tmp_path: Path) -> None:
    with serving(FaultyServer(default=lambda _: completion("refund"))) as server:
        options = ["--generator", "openai:m", "--base-url", server.url, "--mode", "generate", "-n", "2", "--eval", "6"]
        done = promptmii("induce", demo_path(), *options, "--yes", "-o", tmp_path / "made.json")
    assert done.output.count("no example of 4 of 6 labels") == done.stderr.count("no example of") == 1


def test_induce_advises_more_drafts_than_it_wrote(tmp_path: Path) -> None:
    with serving(FaultyServer(default=lambda _: completion("refund"))) as server:
        options = ["--generator", "openai:m", "--base-url", server.url, "--mode", "generate", "-n", "8", "--eval", "20"]
        done = promptmii("induce", demo_path(), *options, "--best-of", "6", "--yes", "-o", tmp_path / "made.json")
    assert "more drafts compete (--best-of 12)" in done.stdout


@pytest.mark.parametrize(
    ("command", "words"), [("score", "macro-F1 0."), ("compare", "6 rows; tokens"), ("review", "text number 1")]
)
def test_paid_results_that_cannot_be_saved_are_printed(
    instruction_file: Path, tmp_path: Path, command: str, words: str
) -> None:
    path, output = tmp_path / "rows.csv", tmp_path / "out.json"
    path.write_text("text,label\n" + "".join(f"text number {i},{('good', 'bad')[i % 2]}\n" for i in range(6)))

    def answer(_: object) -> Reply:
        output.write_text("made meanwhile")
        return completion("good")

    inputs = ["naive", "--data", path] if command == "compare" else [instruction_file, path]
    with serving(FaultyServer(default=answer)) as server:
        options = ["--follower", "openai:m", "--base-url", server.url, "--mode", "generate"]
        done = promptmii(command, *inputs, *options, "-o", output)
    assert done.exit_code == 2
    assert "exists already" in done.stderr
    assert words in done.stdout
    assert output.read_text() == "made meanwhile"


def test_version_and_short_help() -> None:
    assert promptmii("--version").stdout == f"promptmii {version('promptmii')}\n"
    for command in ([], ["induce"], ["corpus", "build"]):
        assert promptmii(*command, "-h").stdout == promptmii(*command, "--help").stdout != ""


def test_the_help_of_install_names_the_writer_too() -> None:
    assert "One of qwen, qwen-small, smol, minilm, qwen-writer." in promptmii("models", "install", "-h").stdout


@pytest.mark.parametrize("group", [[], ["models"], ["corpus"], ["styles"]])
def test_the_summary_of_a_command_is_a_whole_sentence(group: list[str]) -> None:
    _, listed = promptmii(*group, "--help").stdout.split("Commands:")
    assert "..." not in listed


def test_help_loses_nothing_to_markup() -> None:
    text = " ".join(promptmii("induce", "--help").stdout.split())
    assert "[MODEL=]PROMPT,COMPLETION" in text
    assert "hub:owner/name[:config][@revision]" in text


def test_evaluate_lists_every_method() -> None:
    text = promptmii("evaluate", "--help").stdout
    assert all(name in text for name in METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_completes_commands(shell: str) -> None:
    environment = os.environ | {
        "_PROMPTMII_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "promptmii ev",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "promptmii ev",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    code = "from promptmii.cli import app; app(prog_name='promptmii')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert "evaluate" in done.stdout, done.stderr


@pytest.mark.slow
def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from promptmii.cli import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "print(*{'torch', 'pandas', 'numpy', 'sklearn', 'pydantic', 'openai', 'pyarrow'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
    timed = "import sys, time; from promptmii.__main__ import main; sys.argv = ['promptmii', '--help']\ntry: main()\n"
    timed += "finally: print(time.process_time(), file=sys.stderr)"
    done = [
        subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=False) for _ in range(3)
    ]
    seconds = [float(process.stderr.split()[-1]) for process in done]
    assert min(seconds) < 0.5


def test_an_unexpected_error_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 200_000)
    for command in (["show", deep], ["induce", deep], ["score", deep, demo_path()]):
        done = promptmii(*command)
        assert done.exit_code == 2
        assert "deep.json" in done.stderr
        assert done.stderr.count("Error:") == 1 >= len(done.stderr.partition("Error:")[2].strip().splitlines())
        assert "Traceback" not in done.stderr


def test_every_setting_of_a_grid_has_an_option(tmp_path: Path, refusing: str) -> None:
    output = tmp_path / "run"
    grid = [*GRID, "-o", output]
    sets = ["endpoint.patience=7", "endpoint.base_url=" + refusing, 'followers=["openai:m"]', "calibration=none"]
    promptmii(*grid, *(word for setting in sets for word in ("--set", setting)))
    saved = json.loads((output / "config.json").read_text())
    assert saved["endpoint"]["patience"] == 7
    assert (saved["followers"], saved["calibration"]) == (["openai:m"], "none")
    done = promptmii(*grid, "--set", "endpoint.patiense=7")
    assert done.exit_code == 2
    assert "endpoint.patiense" in done.stderr
    assert "expected NAME=VALUE" in promptmii(*grid, "--set", "workers").stderr


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on which every labelling request fails."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with serving(FaultyServer(default="context")) as server:
        yield server.url


def test_failed_calls_give_exit_code_4(instruction_file: Path, refusing: str, tmp_path: Path) -> None:
    options = ["--follower", "openai:m", "--base-url", refusing]
    done = promptmii(
        "predict",
        instruction_file.with_name("generate.json"),
        "-",
        "-o",
        tmp_path / "out.csv",
        *options,
        stdin="a text\n",
    )
    assert done.exit_code == 4
    assert "1 failed" in done.stderr
    assert "context" in (tmp_path / "out.csv").read_text(), "the failure is saved with its reason"
    grid = [*GRID, "-o", tmp_path / "run"]
    done = promptmii(*grid, *options, "--json")
    assert done.exit_code == 4
    assert json.loads(done.stdout)["done"] == 0
    assert done.stderr == ""


def test_show_prints_an_instruction_without_models(tmp_path: Path) -> None:
    text = promptmii("show", Naive().induce(Support(("good", "bad"), ())).save(tmp_path / "naive.json")).stdout
    assert "good, bad" in text
    assert "None" not in text
    assert "naive, from 0 examples" in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["induce", "nothing.csv"], 2, "does not exist"),
        (["induce", demo_path(), "--label", "lable"], 2, "Did you mean 'label'"),
        (["induce", demo_path(), "-n", "9999"], 2, "the training part"),
        (["induce", demo_path(), "--price", "cheap"], 2, "[MODEL=]PROMPT,COMPLETION"),
        (["induce", demo_path(), "--generator", "gpt"], 3, "Unknown model reference"),
        (["induce", demo_path(), "-o", "/nowhere/out.json"], 2, "does not exist"),
        (["show", demo_path()], 2, "not an instruction file"),
        (["induce"], 2, "Missing argument"),
        (["induce", demo_path(), "--mode", "foo"], 2, "'--mode': 'foo' is not one of 'choose', 'generate'"),
        (["doctor", "hf:/no/such/folder"], 3, "the folder /no/such/folder does not exist"),
        (["doctor", "smol", "--context-length", "0"], 2, "context_length = 0 is refused"),
        (["compare", "naive", "--data", demo_path(), "-o", "a.csv", "--junit", "./a.csv"], 2, "both name a.csv"),
        (["corpus", "build", "--stage", "clean", "--push", "me/corpus"], 2, "--stage clean stops before that"),
        (["launch", "llama-3.1-8b-16gpu", "--slurm", "--machines", "2"], 2, "Leave out --machines"),
    ],
)
def test_bad_input_is_one_clear_error_and_an_exit_code(arguments, code: int, words: str) -> None:
    done = promptmii(*arguments)
    assert done.exit_code == code
    assert words in " ".join((done.stderr + done.stdout).replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_edit_refuses_what_cannot_work_before_it_opens_the_editor(
    instruction_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "no-such-editor")
    before = instruction_file.read_bytes()
    assert "--price is 'cheap'" in promptmii("edit", instruction_file, demo_path(), "--price", "cheap").stderr
    instruction_file.with_name("made.json~").mkdir()
    assert "made.json~ is a folder" in promptmii("edit", instruction_file, demo_path()).stderr
    assert instruction_file.read_bytes() == before


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_behind_standard_output_is_not_blamed_on_the_input(instruction_file: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "promptmii", "show", str(instruction_file)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "output cannot be written" in done.stderr
    assert "made.json" not in done.stderr


@pytest.mark.parametrize("options", [["--copies", "2"], ["--gpus", "1"], ["--ray"]])
def test_options_of_servers_need_servers(instruction_file: Path, options: list[str]) -> None:
    done = promptmii("predict", instruction_file, "a text", *options)
    assert done.exit_code == 2
    assert "Add --serve ENGINE" in done.stderr


def test_an_existing_output_is_kept_without_force(instruction_file: Path) -> None:
    before = instruction_file.read_bytes()
    done = promptmii("induce", demo_path(), "-o", instruction_file)
    assert done.exit_code == 2
    assert "--force" in done.stderr
    assert instruction_file.read_bytes() == before


@pytest.mark.smol
@pytest.mark.timeout(1800)
def test_the_main_job_with_the_embedded_model(tmp_path) -> None:
    out = tmp_path / "demo.json"
    done = promptmii(
        "induce", demo_path(), "-n", "4", "--generator", "smol", "--budget", "24", "--eval", "4", "-o", out, "--json"
    )
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert [row["method"] for row in result["comparison"]] == ["naive", "icl", "mii"]
    assert json.loads(out.read_text())["measured"] == result["instruction"]["measured"]
    labelled = promptmii(
        "predict", out, "-", "-o", tmp_path / "out.csv", stdin="my parcel is late\nI want my money back\n"
    )
    assert labelled.exit_code == 0, labelled.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3
    few = tmp_path / "few.csv"
    header, *rows = demo_path().read_text("utf-8").splitlines(keepends=True)
    few.write_text("".join([header, *rows[18:24]]), "utf-8")
    scored = promptmii("score", out, few, "--json")
    assert json.loads(scored.stdout)["measured"]["n"] == 5  # without the last, which the instruction was written from


class Broken(Method):
    """A method with a bug."""

    name = "broken"
    summary = "has a bug"

    def check(self) -> None:
        raise ValueError("a bug")


@pytest.fixture
def broken() -> Iterator[str]:
    METHODS[Broken.name] = Broken
    yield Broken.name
    del METHODS[Broken.name]


def test_a_bug_is_one_line_that_asks_for_a_report(broken: str, tmp_path: Path) -> None:
    """It may come from an input that nobody thought of."""
    with serving(FaultyServer()) as server:
        options = ["--mode", "generate", "--follower", "openai:m", "--base-url", server.url, "-o", tmp_path / "run"]
        done = promptmii("evaluate", "--tasks", "suite", "--methods", broken, *options)
    assert done.exit_code == 2
    assert "ValueError: a bug. If it looks right, set PROMPTMII_TRACEBACK=1 and report what you see." in done.stderr
