"""How the command line reads and shows data, before any call."""

import csv
import json
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.command_line import promptmii
from tests.models.faulty_server import FaultyServer, serving

from promptmii import Naive, Support

PLAIN = "text,label\n" + "".join(f"text number {i},{['good', 'bad'][i % 2]}\n" for i in range(20))
DOUBTFUL = "words,shelf,colour\n" + "".join(
    f"text number {i},{'abc'[i % 3]},{['red', 'blue'][i % 2]}\n" for i in range(20)
)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving(FaultyServer(default="say:good")) as running:
        yield running


@pytest.fixture
def instruction_file(tmp_path: Path) -> Path:
    instruction = Naive().induce(Support(("good", "bad"), ()))
    return instruction.model_copy(update={"follower": "openai:m", "mode": "generate"}).save(tmp_path / "made.json")


def options(server: FaultyServer) -> list[str]:
    return ["--base-url", server.url, "--generator", "openai:m", "--mode", "generate", "--eval", "4", "-n", "4"]


def test_columns_labels_with_counts_and_three_rows_are_shown(tmp_path: Path, server: FaultyServer) -> None:
    (tmp_path / "a.csv").write_text(PLAIN)
    done = promptmii("induce", tmp_path / "a.csv", *options(server))
    assert done.exit_code == 0, done.stderr
    assert "Text: text. Label: label. 20 rows." in done.stderr
    assert "Labels: bad (10), good (10)" in done.stderr
    assert done.stderr.count(" -> good") + done.stderr.count(" -> bad") == 3
    assert "might be meant" not in done.stderr
    assert "printed, not saved. Use -o FILE" in done.stderr


def test_without_a_terminal_ambiguous_columns_are_reported_only(tmp_path: Path, server: FaultyServer) -> None:
    (tmp_path / "a.csv").write_text(DOUBTFUL)
    done = promptmii("induce", tmp_path / "a.csv", *options(server))
    assert done.exit_code == 0, done.stderr
    assert "Other columns might be meant: shelf." in done.stderr
    done = promptmii("induce", tmp_path / "a.csv", *options(server), "--json")
    assert "might be meant: 'shelf'" in done.stdout


def test_without_a_terminal_no_server_that_only_the_file_names_is_called(tmp_path: Path, server: FaultyServer) -> None:
    made = Naive().induce(Support(("good", "bad"), ()))
    made = made.model_copy(update={"follower": f"openai:m@{server.url}", "mode": "generate"})
    done = promptmii("predict", made.save(tmp_path / "made.json"), "a secret text")
    assert (done.exit_code, server.requests) == (2, 0)
    assert "sends no text there without your consent" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "extra", "code"), [(b"n\n", [], 2), (b"y\n", [], 0), (b"", ["--yes"], 0), (b"", ["--label", "shelf"], 0)]
)
def test_on_a_terminal_ambiguous_columns_are_confirmed_before_any_call(
    tmp_path: Path, server: FaultyServer, answer: bytes, extra: list[str], code: int
) -> None:
    (tmp_path / "a.csv").write_text(DOUBTFUL)
    command = [sys.executable, "-m", "promptmii", "induce", str(tmp_path / "a.csv"), *options(server), *extra]
    controller, terminal = pty.openpty()
    environment = os.environ | {"TERM": "dumb"}
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    os.write(controller, answer)
    seen = bytearray()
    try:
        while part := os.read(controller, 1024):
            seen += part
    except OSError:  # how Linux reports the end of a terminal
        pass
    os.close(controller)
    assert process.wait() == code, seen.decode()
    assert (b"Continue?" in seen) == (not extra)
    if code:
        assert b"Stopped before the first call" in seen
        assert server.bodies == []


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"\xef\xbb\xbfone\r\ntwo\r\n", ["one", "two"]),
        ("one\ntwo\n".encode("utf-16"), ["one", "two"]),
        ("one\u2028still one\ntwo\x0cstill two".encode(), ["one\u2028still one", "two\x0cstill two"]),
        ("Bär\n".encode(), ["Bär"]),
    ],
)
def test_standard_input_is_read_like_a_file(
    server: FaultyServer, instruction_file: Path, content: bytes, texts: list[str]
) -> None:
    done = promptmii("predict", instruction_file, "-", "--base-url", server.url, "--json", stdin=content)
    assert done.exit_code == 0, done.stderr
    assert [row["text"] for row in json.loads(done.stdout)] == texts
    assert len(server.bodies) == len(texts)


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("csv", b'id,text\n1,"one, two"\n2,three\n'),
        ("tsv", b"id\ttext\n1\tone, two\n2\tthree\n"),
        ("jsonl", b'{"id": "1", "text": "one, two"}\n{"id": "2", "text": "three"}\n'),
    ],
)
def test_standard_input_can_be_a_table(
    server: FaultyServer, instruction_file: Path, tmp_path: Path, form: str, content: bytes
) -> None:
    args = (instruction_file, "-", "--base-url", server.url, "--format", form)
    done = promptmii("predict", *args, "-o", tmp_path / "out.csv", stdin=content)
    assert done.exit_code == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [(row["id"], row["text"]) for row in rows] == [("1", "one, two"), ("2", "three")]
    again = promptmii("predict", *args, "-o", tmp_path / "out.csv", "--force", stdin=b"")
    assert f"Standard input is empty; expected {form}" in again.stderr
    assert "'txt', 'csv'" in promptmii("predict", *args[:-1], "xml", stdin=content).stderr


def test_words_that_end_like_a_file_are_no_text_unless_on_standard_input(
    server: FaultyServer, instruction_file: Path
) -> None:
    command = ["predict", instruction_file, "--base-url", server.url]
    done = promptmii(*command, "my new tickets.csv")
    assert done.exit_code == 2
    assert "There is no file 'my new tickets.csv'. If it is a text to label, give it on standard input" in done.stderr
    assert not server.bodies
    assert "cannot open data.csv,good" in promptmii(*command, "-", stdin="I cannot open data.csv\n").stdout


def test_undecodable_bytes_are_a_one_line_error(server: FaultyServer, instruction_file: Path) -> None:
    done = promptmii("predict", instruction_file, "-", "--base-url", server.url, stdin=b"hello\n\xff\xfe bye\n")
    assert done.exit_code == 2
    assert "Standard input is not UTF-8: byte 6 (line 2)" in done.stderr
    assert "Traceback" not in done.stderr
    assert (
        "Standard input is empty"
        in promptmii("predict", instruction_file, "-", "--base-url", server.url, stdin=b"").stderr
    )
    assert promptmii("predict", instruction_file, "-", "--base-url", server.url, stdin=b"\n\n").exit_code == 0
    assert server.bodies == []


def test_a_text_is_scored_from_a_file_and_from_standard_input(tmp_path: Path, server: FaultyServer) -> None:
    (tmp_path / "rows.csv").write_text(PLAIN)
    (tmp_path / "prompt.txt").write_text("Decide well.")
    args = ["--follower", "openai:m", "--mode", "generate", "--base-url", server.url]
    done = promptmii(
        "score", tmp_path / "prompt.txt", tmp_path / "rows.csv", *args, "-o", tmp_path / "made.json", "--json"
    )
    assert done.exit_code == 0, done.stderr
    again = promptmii("score", "-", tmp_path / "rows.csv", *args, "--json", stdin=b"Decide well.")
    assert json.loads(again.stdout)["measured"] == json.loads(done.stdout)["measured"]
    assert "Decide well." in server.bodies[0]["messages"][0]["content"]
    saved = json.loads((tmp_path / "made.json").read_text())
    assert (saved["text"], saved["method"], saved["follower"]) == ("Decide well.", "human", "openai:m")
    assert saved["measured"]["macro_f1"] == json.loads(done.stdout)["measured"]["macro_f1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-", "rows.csv"], "The text is empty"),
        (["rows.csv", "rows.csv"], "Is the order swapped?"),
        (["prompt.txt", "no.csv"], "does not exist"),
        (["prompt.txt", "rows.csv", "--label", "lable"], "Did you mean 'label'"),
        (["prompt.txt", "one.csv"], "has one value"),
    ],
)
def test_unusable_input_to_score_is_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(PLAIN)
    (tmp_path / "one.csv").write_text("text,label\na b,good\nc d,good\n")
    (tmp_path / "prompt.txt").write_text("Decide well.")
    done = promptmii("score", *arguments, "--follower", "openai:m", "--base-url", "http://127.0.0.1:9")
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.slow
def test_mistakes_among_many_labels_are_listed_without_a_matrix(tmp_path: Path, server: FaultyServer) -> None:
    labels = [f"kind {number}" for number in range(40)]
    rows = "".join(f"text {i} of {label},{label}\n" for label in labels for i in range(2))
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}")
    instruction_file = Naive().induce(Support(tuple(labels), ())).save(tmp_path / "made.json")
    server.default = "say:kind 7"
    args = ["--follower", "openai:m", "--mode", "generate", "--base-url", server.url]
    done = promptmii("score", instruction_file, tmp_path / "rows.csv", *args)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("→ kind 7 ") == 20
    assert "kind 7 → kind 7" not in done.stdout
    assert len(done.stdout.splitlines()) < 100


def test_score_warns_of_labels_that_the_instruction_does_not_know(
    tmp_path: Path, server: FaultyServer, instruction_file: Path
) -> None:
    (tmp_path / "rows.csv").write_text(PLAIN + "so so,middling\n")
    done = promptmii("score", instruction_file, tmp_path / "rows.csv", "--base-url", server.url)
    assert "\nWarning: 1 row dropped: a label that the instruction does not know ('middling')." in done.stdout


def test_a_confusion_matrix_is_headed_by_short_labels_and_by_letters(tmp_path: Path, server: FaultyServer) -> None:
    labels = ("0", "1", "A", "delivery", "refund")
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"text of {label},{label}\n" for label in labels))
    instruction_file = Naive().induce(Support(labels, ())).save(tmp_path / "made.json")
    args = ["--follower", "openai:m", "--mode", "generate", "--base-url", server.url]
    done = promptmii("score", instruction_file, tmp_path / "rows.csv", *args)
    assert done.exit_code == 0, done.stderr
    matrix = done.stdout.partition("per predicted label")[2].splitlines()
    assert matrix[2].split() == ["0", "1", "A", "B", "C", "none"]
    assert [" ".join(line.split()[:-6]) for line in matrix[4:9]] == ["0", "1", "A", "B delivery", "C refund"]


def test_compare_shows_only_columns_that_apply(tmp_path: Path, server: FaultyServer) -> None:
    (tmp_path / "rows.csv").write_text(PLAIN)
    args = ["--data", tmp_path / "rows.csv", "--follower", "openai:m", "--base-url", server.url, "--mode", "generate"]
    alone, two = (promptmii("compare", *prompts, *args) for prompts in (["naive"], ["naive", "Read it."]))
    assert "difference" not in alone.stdout
    assert "difference: naive minus the other" in two.stdout
    assert "plain F1" not in alone.stdout + two.stdout  # nothing is calibrated in this mode


@pytest.mark.slow
def test_compare_exits_with_1_if_a_check_fails(tmp_path: Path, server: FaultyServer) -> None:
    (tmp_path / "rows.csv").write_text(PLAIN)
    (tmp_path / "prompt.txt").write_text("Decide well.")
    args = ["--follower", "openai:m", "--mode", "generate", "--base-url", server.url, "--price", "1,1"]
    command = ["compare", tmp_path / "prompt.txt", "naive", "--data", tmp_path / "rows.csv", *args]
    files = ["-o", tmp_path / "differ.csv", "--junit", tmp_path / "junit.xml"]
    done = promptmii(*command, "--fail-under", "0.8", "--fail-if-worse", *files)
    assert done.exit_code == 1, done.stderr
    assert "macro-F1 is at least 0.8' failed: macro-F1 is 0.333 on 20 rows" in done.stderr
    assert done.stderr.count("Error:") == 1
    assert "per 1,000" in done.stdout
    assert 'failures="1"' in (tmp_path / "junit.xml").read_text()
    assert (tmp_path / "differ.csv").read_text().count("\n") == 1
    again = promptmii(*command, "--fail-under", "0.3", "--json")
    assert again.exit_code == 0
    result = json.loads(again.stdout)
    assert [check["passed"] for check in result["checks"]] == [True]
    assert result["differences"]["naive"]["mean"] == 0
    assert promptmii(*command, *files).exit_code == 2, "existing files are not replaced"


@pytest.mark.parametrize("fails", [False, True])
def test_edit_opens_the_editor_keeps_the_old_file_and_measures_both(
    tmp_path: Path, server: FaultyServer, instruction_file: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    (tmp_path / "rows.csv").write_text(PLAIN)
    monkeypatch.setenv("VISUAL", f"{sys.executable} -c \"import sys; open(sys.argv[1], 'a').write('Decide well.')\"")
    old = instruction_file.read_text()
    if fails:
        server.default = "context"
    done = promptmii("edit", instruction_file, tmp_path / "rows.csv", "--base-url", server.url)
    assert done.exit_code == (4 if fails else 0), done.stderr
    saved = json.loads(instruction_file.read_text())
    assert saved["text"] == "Decide well."
    assert (saved["measured"] is None) == fails
    assert instruction_file.with_name("made.json~").read_text() == old
    assert ("after" in done.stdout and "before" in done.stdout) != fails
    command = f"promptmii score {instruction_file} DATA --refit ROWS --base-url {server.url}"
    assert (f"is saved in {instruction_file} but not measured. Run: {command}" in done.stderr) == fails


@pytest.mark.parametrize(
    ("editor", "words", "code"),
    [
        ("true", "nothing was measured", 0),
        ("false", "ended with exit code 1", 2),
        ("no-such-editor", "cannot be started", 2),
    ],
)
def test_an_editor_without_a_change_leaves_the_file_alone(
    tmp_path: Path, instruction_file: Path, monkeypatch: pytest.MonkeyPatch, editor: str, words: str, code: int
) -> None:
    (tmp_path / "rows.csv").write_text(PLAIN)
    monkeypatch.setenv("VISUAL", editor)
    old = instruction_file.read_text()
    done = promptmii("edit", instruction_file, tmp_path / "rows.csv")
    assert done.exit_code == code
    assert words in done.stderr
    assert instruction_file.read_text() == old
    assert "name a table" in promptmii("edit", instruction_file).stderr
    if code == 0:
        printed = json.loads(promptmii("edit", instruction_file, tmp_path / "rows.csv", "--json").stdout)
        assert printed == {"rows": [], "differences": {}, "disagreements": [], "notes": ["the text is unchanged"]}


def test_an_edited_text_that_cannot_be_saved_is_printed(
    tmp_path: Path, instruction_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").write_text(PLAIN)
    (tmp_path / "gone").mkdir()
    script = f"import os, sys; open(sys.argv[1], 'a').write('Decide well.'); os.rmdir({str(tmp_path / 'gone')!r})"
    monkeypatch.setenv("VISUAL", shlex.join([sys.executable, "-c", script]))
    done = promptmii("edit", instruction_file, tmp_path / "rows.csv", "-o", tmp_path / "gone" / "new.json")
    assert done.exit_code == 2
    assert "could not be saved:\nDecide well." in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="the editor is a shell script")
def test_the_path_of_an_editor_may_hold_spaces(
    tmp_path: Path, instruction_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").write_text(PLAIN)
    editor = tmp_path / "my editor"
    editor.write_text("#!/bin/sh\nexit 0\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    done = promptmii("edit", instruction_file, tmp_path / "rows.csv")
    assert done.exit_code == 0, done.stderr
    assert "The text is unchanged" in done.stderr


def test_extend_says_that_it_keeps_lines_that_it_could_not_measure(
    tmp_path: Path, server: FaultyServer, instruction_file: Path
) -> None:
    (tmp_path / "more.csv").write_text("text,label\n" + "".join(f"so so {i},middling\n" for i in range(6)))
    server.plan += ["say:middling: so so"]
    server.default = "context"
    args = ["--generator", "openai:m", "--base-url", server.url, "-o", tmp_path / "new.json"]
    failed = promptmii("extend", instruction_file, tmp_path / "more.csv", *args)
    assert failed.exit_code == 4, failed.stderr
    command = f"promptmii score {tmp_path / 'new.json'} DATA --refit ROWS --base-url {server.url}"
    assert f"The new lines are saved in {tmp_path / 'new.json'} but not measured. Run: {command}" in failed.stderr
    assert json.loads((tmp_path / "new.json").read_text())["labels"] == ["good", "bad", "middling"]


def test_extend_adds_a_line_and_measures_and_requires_a_new_label(
    tmp_path: Path, server: FaultyServer, instruction_file: Path
) -> None:
    (tmp_path / "old.csv").write_text(PLAIN)
    (tmp_path / "more.csv").write_text("text,label\n" + "".join(f"so so {i},middling\n" for i in range(6)))
    args = ["--old", tmp_path / "old.csv", "--generator", "openai:m", "--base-url", server.url]
    done = promptmii("extend", instruction_file, tmp_path / "more.csv", *args, "-o", tmp_path / "new.json")
    assert done.exit_code == 0, done.stderr
    assert "+ middling: good" in done.stdout
    assert "On rows of the old labels" in done.stdout
    saved = json.loads((tmp_path / "new.json").read_text())
    assert saved["labels"] == ["good", "bad", "middling"]
    assert (
        saved["measured"]["n"] == json.loads(promptmii("show", tmp_path / "new.json", "--json").stdout)["measured"]["n"]
    )
    again = promptmii("extend", instruction_file, tmp_path / "old.csv", *args)
    assert again.exit_code == 2
    assert "no label that the instruction lacks" in again.stderr


def test_review_exits_with_4_if_calls_failed_even_if_no_such_row_is_written(
    tmp_path: Path, server: FaultyServer, instruction_file: Path
) -> None:
    (tmp_path / "rows.csv").write_text(PLAIN)
    server.plan += ["context"] + ["say:good"] * 19
    done = promptmii(
        "review", instruction_file, tmp_path / "rows.csv", "--base-url", server.url, "--concurrency", "1", "--most", "2"
    )
    assert done.exit_code == 4, done.stderr
    assert "20 rows: 9 wrong, 1 failed. The first 2 are written; a higher --most writes more." in done.stderr
    assert done.stdout.count("\n") == 1 + 2


def test_a_saved_review_has_the_delimiter_of_the_table(
    tmp_path: Path, server: FaultyServer, instruction_file: Path
) -> None:
    (tmp_path / "rows.csv").write_text(PLAIN.replace(",", ";"))
    output = tmp_path / "review.csv"
    done = promptmii("review", instruction_file, tmp_path / "rows.csv", "--base-url", server.url, "-o", output)
    assert done.exit_code == 0, done.stderr
    assert output.read_text().startswith("text;label;suggested_label;probability;reason\n")
