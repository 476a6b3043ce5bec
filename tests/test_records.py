"""Run folders: damaged lines are reported and skipped."""
# pyright: reportArgumentType=false

import base64
import json
import os
import re
import shutil
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.evaluation.labelling_server import LabellingServer
from tests.evaluation.test_evaluate import settings, write_task
from tests.models.faulty_server import serving

from promptmii.errors import ArtefactError
from promptmii.evaluation import evaluate
from promptmii.records import Run


def packed(value: object) -> str:
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


def columns(rows: int, **changes: list) -> dict[str, list]:
    nothing = dict.fromkeys(("probabilities", "answers", "matches", "failures"), [None] * rows)
    return {"labels": [0] * rows, "truncated": [False] * rows} | nothing | changes


class TestDamage:
    """Hand-edited records are reported with their line, and their cells run again."""

    @pytest.fixture(scope="class")
    @staticmethod
    def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
        folder = tmp_path_factory.mktemp("run")
        with serving(LabellingServer()) as running:
            evaluate(settings(running, [write_task(folder, "shop")], methods=("naive",)), folder / "run")
        return folder / "run", json.loads((folder / "run" / "records.jsonl").read_text())

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"answers": None}, "a done cell needs"),
            ({"answers": "no base64"}, "cannot be unpacked"),
            ({"answers": packed({"labels": [0]})}, "Field required"),
            ({"answers": packed(columns(12, labels=[99] * 12))}, "names a label that the instruction does not have"),
            ({"answers": packed(columns(12, probabilities=[[0.5]] * 12))}, "one probability for each label"),
            ({"answers": packed(columns(12, probabilities=[[float("nan")] * 3] * 12))}, "probabilities.0"),
            ({"answers": packed(columns(3))}, "each of the 12 rows"),
            ({"answers": packed(columns(12, answers=[["deep"]] * 12))}, "answers.0"),
            ({"query": "elsewhere"}, "its query rows are missing"),
            ({"instruction": None}, "a done cell needs"),
            ({"colour": "red"}, "colour: Extra inputs"),
            ({"status": "perhaps"}, "status: Input should be"),
            ({"spent": {"calls": "many"}}, "spent.calls"),
        ],
    )
    def test_a_changed_field(self, line, tmp_path: Path, changes: dict, words: str) -> None:
        folder, record = line
        shutil.copytree(folder, tmp_path / "run")
        (tmp_path / "run" / "records.jsonl").write_text(json.dumps(record | changes) + "\n")
        run = Run.read(tmp_path / "run")
        assert not run.records
        (fault,) = run.damaged
        assert fault.startswith(f"{tmp_path / 'run' / 'records.jsonl'}, line 1: ")
        assert words in fault
        assert "\n" not in fault

    @given(content=st.binary(max_size=80), at=st.integers(0, 10_000))
    @hypothesis_settings(max_examples=60, deadline=None)
    def test_any_bytes_anywhere_give_a_run_or_a_one_line_error(self, line, content: bytes, at: int) -> None:
        folder, _ = line
        with tempfile.TemporaryDirectory() as scratch:
            for name in ("records.jsonl", "queries.jsonl"):
                copy = Path(scratch) / name
                whole = (folder / name).read_bytes()
                copy.write_bytes(whole[: at % len(whole)] + content + whole[at % len(whole) + len(content) :])
            run = Run.read(Path(scratch))
            assert len(run.records) <= 1
            for record in run.records.values():
                gold, predicted = record.scored(run.queries)
                assert len(gold) == len(predicted) == len(record.predictions) == 12

    def test_a_folder_instead_of_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "records.jsonl").mkdir()
        with pytest.raises(ArtefactError, match="cannot be read"):
            Run.read(tmp_path)

    @pytest.mark.skipif(os.name == "nt", reason="quoted otherwise there")
    def test_the_command_in_a_message_quotes_a_path_with_spaces(self, tmp_path: Path) -> None:
        with pytest.raises(ArtefactError, match=f"promptmii evaluate -o '{re.escape(str(tmp_path / 'my runs'))}'"):
            Run.read(tmp_path / "my runs")
