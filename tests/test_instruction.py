"""Instruction files: they round-trip, they are never lost, and errors name what is broken."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptmii import Instruction
from promptmii.errors import ArtefactError, OutputError
from promptmii.instruction import EDITED, Calibration, Cost, Measurement, Provenance
from promptmii.models.base import Price, Usage

PLAIN = Instruction(text="Label the ticket.", labels=("money", "parcel"), method="human")

numbers = st.floats(-1e9, 1e9)
counts = st.integers(0, 10**12)
words = st.text(max_size=20)
names = st.lists(st.text("aé体ш😀,\"'\\{}-1", min_size=1, max_size=8), min_size=2, max_size=6, unique=True).map(tuple)
costs = st.builds(
    Cost,
    calls=counts,
    prompt_tokens=counts,
    completion_tokens=counts,
    cached_tokens=counts,
    seconds=numbers,
    money=st.none() | numbers,
)
measurements = st.builds(
    Measurement,
    macro_f1=numbers,
    low=numbers,
    high=numbers,
    accuracy=numbers,
    n=counts,
    n_unparsed=counts,
    n_truncated=counts,
    prompt_tokens_per_query=numbers,
    data_key=words,
)
provenances = st.builds(
    Provenance,
    n=counts,
    seed=st.integers(),
    source=words,
    text_template=st.none() | words,
    notes=st.lists(words, max_size=3).map(tuple),
)
plain = st.builds(
    Instruction,
    text=st.text(),
    labels=names,
    method=words,
    generator=st.none() | words,
    mode=st.sampled_from(["choose", "generate", None]),
    cost=costs,
    provenance=provenances,
    measured=st.none() | measurements,
)


@st.composite
def instructions(draw: st.DrawFn) -> Instruction:
    """Calibrated or not."""
    instruction = draw(plain)
    row = tuple(draw(st.lists(numbers, min_size=len(instruction.labels), max_size=len(instruction.labels))))
    calibration = draw(st.none() | st.just(Calibration(kind="support", scale=row, offset=row)))
    return instruction.model_copy(update={"calibration": calibration})


@settings(max_examples=50, deadline=None)
@given(instruction=instructions(), text=st.text(max_size=30))
def test_saving_and_loading_round_trips(
    tmp_path_factory: pytest.TempPathFactory, instruction: Instruction, text: str
) -> None:
    loaded = Instruction.load(instruction.save(tmp_path_factory.mktemp("artefact") / "i.json"))
    assert loaded == instruction
    assert loaded.key == instruction.key
    assert loaded.messages(text) == instruction.messages(text)


def test_150_labels_in_many_scripts_round_trip_and_stay_readable(tmp_path: Path) -> None:
    labels = tuple(f"{word} {i}" for i in range(30) for word in ("étiquette", "метка", "标签", "وسم", "लेबल"))
    instruction = PLAIN.model_copy(update={"labels": labels, "text": "Что это?\r\n这是什么\u2028🙂"})
    path = instruction.save(tmp_path / "инструкция.json")
    assert Instruction.load(path) == instruction
    assert all(label in path.read_text(encoding="utf-8") for label in labels)


def test_a_file_that_an_editor_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = PLAIN.save(tmp_path / "i.json")
    path.write_text(path.read_text("utf-8"), "utf-8-sig")
    assert Instruction.load(path) == PLAIN


def test_half_of_a_character_in_a_file_does_not_prevent_saving(tmp_path: Path) -> None:
    path = PLAIN.save(tmp_path / "i.json")
    path.write_text(path.read_text("utf-8").replace("ticket", "ticket \\ud83d"), "utf-8")
    loaded = Instruction.load(path)
    assert loaded.text == "Label the ticket ?."
    assert Instruction.load(loaded.save(path, force=True)) == loaded


def test_a_path_that_is_not_valid_unicode_does_not_prevent_saving(tmp_path: Path) -> None:
    path = PLAIN.model_copy(update={"generator": "gguf:b\udcfccher.gguf"}).save(tmp_path / "i.json")
    assert Instruction.load(path).generator == "gguf:b?cher.gguf"


def test_a_frame_without_a_slot_for_the_text_is_refused_when_the_file_is_read(tmp_path: Path) -> None:
    path = PLAIN.save(tmp_path / "i.json")
    path.write_text(path.read_text("utf-8").replace("{{text}}", ""), "utf-8")
    with pytest.raises(ArtefactError, match=r"i\.json is not an instruction file.*expected each of .*\{\{text\}\}"):
        Instruction.load(path)


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({"text": "Another."}, True),
        ({"labels": ("parcel", "money")}, True),
        ({"frame": PLAIN.frame + "\nAnswer:"}, True),
        ({"calibration": Calibration(kind="support", scale=(1, 1), offset=(0, 1))}, True),
        ({"method": "mii"}, False),
        ({"cost": Cost(calls=1)}, False),
        ({"provenance": Provenance(seed=3)}, False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_key_changes_with_what_a_follower_depends_on(change: dict[str, object], matters: bool) -> None:
    assert (PLAIN.model_copy(update=change).key != PLAIN.key) == matters


class TestSave:
    def test_a_file_is_not_replaced_without_force(self, tmp_path: Path) -> None:
        path = PLAIN.save(tmp_path / "i.json")
        other = PLAIN.model_copy(update={"text": "Another."})
        with pytest.raises(OutputError, match=r"i\.json exists already.*--force"):
            other.save(path)
        assert Instruction.load(path) == PLAIN
        assert Instruction.load(other.save(path, force=True)) == other
        assert [file.name for file in tmp_path.iterdir()] == ["i.json"]

    @pytest.mark.parametrize(
        ("name", "words"), [("", "is a folder"), ("none/i.json", "does not exist"), ("file/i.json", "does not exist")]
    )
    def test_the_error_names_an_unusable_path(self, tmp_path: Path, name: str, words: str) -> None:
        (tmp_path / "file").write_text("a file")
        with pytest.raises(OutputError, match=words):
            PLAIN.save(tmp_path / name)

    @pytest.mark.slow
    def test_a_full_disk_leaves_only_the_old_file(self, tmp_path: Path) -> None:
        path = PLAIN.save(tmp_path / "i.json")
        for limit in (0, 100, 20_000):
            assert "i.json cannot be written: File too large." in saving(
                path, f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit},) * 2)"
            )
            assert Instruction.load(path) == PLAIN
            assert [file.name for file in tmp_path.iterdir()] == ["i.json"]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("mode", "words"), [(0o555, "permission denied"), (0o000, "permission denied")], ids=["read-only", "closed"]
    )
    def test_the_error_names_a_folder_without_permission(self, guarded: Path, mode: int, words: str) -> None:
        guarded.chmod(mode)
        assert words in saving(guarded / "i.json", "os.geteuid() or os.setuid(65534)")

    @pytest.fixture
    def guarded(self) -> Iterator[Path]:
        """A folder that other users can reach, unlike pytest's own."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            inner = Path(folder) / "inner"
            inner.mkdir()
            yield inner
            inner.chmod(0o755)


SAVE = """
import os, resource, sys
from promptmii import Instruction
from promptmii.errors import OutputError
large = Instruction(text="word " * 10_000, labels=("money", "parcel"), method="human")
{first}
try:
    large.save(sys.argv[1], force=True)
except OutputError as error:
    sys.stdout.write(str(error))
"""


def saving(path: Path, first: str) -> str:
    """The output of a process that runs `first` and then saves a large instruction."""
    command = [sys.executable, "-W", "error", "-c", SAVE.format(first=first), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"})
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestLoad:
    @pytest.mark.parametrize(
        ("content", "where"),
        [
            (b"", "it is not JSON (Expecting value"),
            (b'{"format": 1, "te', "it is not JSON (Unterminated string"),
            (b"\xff\xfe\x00binary", "the file: 'utf-8' codec"),
            (b"[]", "the file: Input should be a valid dictionary"),
            (b'{"labels": ["a", "b"], "method": "mii"}', "text: Field required"),
            (b'{"text": 1, "labels": ["a", "b"], "method": "mii"}', "text: Input should be a valid string"),
            (b'{"text": "", "labels": ["a", 2], "method": "mii"}', "labels.1: Input should be a valid string"),
            (b'{"text": "", "labels": ["a", "b"], "method": "mii", "colour": "red"}', "colour: Extra inputs"),
            (b'{"format": 3, "text": "", "labels": ["a", "b"], "method": "mii"}', "format: Input should be 2"),
            (
                b'{"text": "", "labels": ["a", "a"], "method": "mii"}',
                "the file: The instruction names these labels more than once: a",
            ),
            (b'{"text": "", "labels": ["a", "b\\nInput:"], "method": "mii"}', "must be one line of"),
            (b'{"text": "", "labels": [], "method": "mii"}', "at least two"),
            (b'{"text": "", "text": "b", "labels": ["a", "b"], "method": "mii"}', "'text' occurs twice"),
            (b"[" * 100_000, "the file: maximum recursion depth"),
            (
                b'{"text": "", "labels": ["a", "b"], "method": "mii", "mode": "guess"}',
                "mode: Input should be 'choose' or 'generate'",
            ),
        ],
        ids=[
            "empty",
            "half",
            "binary",
            "a list",
            "a field less",
            "a number",
            "a number inside",
            "a field more",
            "newer",
            "a label twice",
            "a label with a line break",
            "no labels",
            "a field twice",
            "deep",
            "unknown mode",
        ],
    )
    def test_the_error_names_a_broken_file_and_its_first_problem(
        self, tmp_path: Path, content: bytes, where: str
    ) -> None:
        path = tmp_path / "i.json"
        path.write_bytes(content)
        with pytest.raises(ArtefactError) as caught:
            Instruction.load(path)
        for words in (str(path), "format 2", where, "promptmii induce"):
            assert words in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "words"), [("none.json", "No such file"), ("", "Is a directory")], ids=["missing", "a folder"]
    )
    def test_the_error_names_an_unreadable_file(self, tmp_path: Path, name: str, words: str) -> None:
        with pytest.raises(ArtefactError, match=words):
            Instruction.load(tmp_path / name)

    @pytest.mark.slow
    @settings(max_examples=30, deadline=None)
    @given(cut=st.integers(0, 10**6))
    def test_a_truncated_file_is_refused(self, tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
        path = PLAIN.save(tmp_path_factory.mktemp("artefact") / "i.json")
        whole = path.read_bytes().rstrip()
        path.write_bytes(whole[: cut % len(whole)])
        with pytest.raises(ArtefactError):
            Instruction.load(path)

    def test_a_token_limit_of_an_older_file_keeps_its_meaning(self, tmp_path: Path) -> None:
        limited = PLAIN.model_copy(update={"longest_answer": 10})
        path = limited.save(tmp_path / "i.json")
        path.write_text(path.read_text().replace('"longest_answer": 10', '"answer": 10'))
        assert Instruction.load(path) == limited

    def test_an_older_file_without_newer_fields_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "i.json"
        path.write_text(json.dumps({"text": "Label the ticket.", "labels": ["money", "parcel"], "method": "human"}))
        assert Instruction.load(path) == PLAIN

    @pytest.mark.parametrize(
        "calibration",
        [
            {"kind": "support", "scale": [math.nan, 1], "offset": [0, 0]},
            {"kind": "support", "scale": [1, 1], "offset": [0, math.inf]},
            {"kind": "support", "scale": [1, 1, 1], "offset": [0, 0, 0]},
            {"kind": "support", "scale": [1], "offset": [0, 0]},
            {"kind": "support", "scale": [1, 1, 1, 1], "offset": [0, 0, 0, 0]},
        ],
    )
    def test_a_damaged_calibration_is_refused(self, tmp_path: Path, calibration: dict[str, object]) -> None:
        path = tmp_path / "i.json"
        path.write_text(json.dumps(PLAIN.model_dump(mode="json") | {"calibration": calibration}))
        with pytest.raises(ArtefactError, match="calibration"):
            Instruction.load(path)


class TestEdited:
    """A score and a calibration belong to one text."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        calibration = Calibration(kind="support", scale=(1, 1), offset=(0, 1), belongs_to=PLAIN.text_key)
        fields = {"macro_f1": 0.5, "low": 0, "high": 1, "accuracy": 0.5, "n": 9, "n_unparsed": 0, "n_truncated": 0}
        measurement = Measurement(**fields, prompt_tokens_per_query=9, data_key="")
        calibrated = PLAIN.model_copy(update={"calibration": calibration}).measured_as(measurement)
        return calibrated.save(tmp_path / "i.json")

    def edited(self, path: Path, **changes: object) -> Instruction:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return Instruction.load(path)

    def test_an_unedited_text_keeps_both(self, path: Path) -> None:
        loaded = self.edited(path, method="human", generator="smol")
        assert loaded.measured
        assert loaded.is_calibrated
        assert not loaded.provenance.notes

    @pytest.mark.parametrize(
        "change", [{"text": "Label it."}, {"labels": ["parcel", "money"]}, {"frame": PLAIN.frame + " "}]
    )
    def test_an_edited_text_has_neither(self, path: Path, change: dict[str, object]) -> None:
        loaded = self.edited(path, **change)
        assert loaded.measured is None
        assert loaded.calibration is None
        assert loaded.provenance.notes == (EDITED,)

    def test_a_score_does_not_outlive_its_calibration(self, path: Path) -> None:
        assert self.edited(path, calibration=None).measured is None

    def test_a_file_of_format_1_is_read_with_its_score(self, path: Path) -> None:
        fields = json.loads(path.read_text()) | {"format": 1}
        del fields["measured"]["belongs_to"], fields["calibration"]["belongs_to"], fields["calibration_cost"]
        path.write_text(json.dumps(fields))
        loaded = Instruction.load(path)
        assert loaded.format == 2
        assert loaded.measured
        assert loaded.is_calibrated


class TestCost:
    @settings(max_examples=40, deadline=None)
    @given(first=costs, second=costs)
    def test_costs_add_up_whatever_the_order(self, first: Cost, second: Cost) -> None:
        assert first + second == second + first
        assert (first + second).calls == first.calls + second.calls
        assert (first + Cost()).model_copy(update={"money": first.money}) == first

    def test_an_unknown_price_stays_unknown(self) -> None:
        priced = Cost.of(Usage(calls=1, prompt_tokens=1000, completion_tokens=500), Price(2.0, 4.0))
        assert priced.money == pytest.approx(0.004)
        assert (priced + Cost()).money == priced.money
        assert (priced + Cost(calls=1)).money is None


def test_a_copy_with_another_text_has_another_prompt() -> None:
    instruction = Instruction(text="", labels=("a", "b"), method="naive")
    plain = instruction.prompt("x")
    assert instruction.model_copy(update={"text": "Look."}).prompt("x") == f"Look.\n\n{plain}"
    assert "- c" in instruction.model_copy(update={"labels": ("a", "c")}).prompt("x")
