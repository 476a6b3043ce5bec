"""Files are written atomically and privately, and replace nothing without `force`."""

import errno
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from promptmii.errors import DataError, OutputError
from promptmii.files import (
    append_line,
    atomic_file,
    atomic_folder,
    cache_folder,
    check_writable,
    free_name,
    locked,
    no_room,
    private_folder,
    refuse_full_disk,
    write_text,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def disk_of(size: int) -> Generator[None]:
    """No file can grow beyond `size` bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(path: Path, error: BaseException | None = None, meanwhile: Callable[[], object] = int) -> None:
    """Write a file. Before it is complete, run `meanwhile` and raise `error`."""
    with atomic_file(path, force=error is not None) as temporary:
        temporary.write_text("half")
        meanwhile()
        if error:
            raise error


class TestWriting:
    def test_a_new_file_has_the_usual_mode_and_a_replaced_one_keeps_its_own(self, tmp_path: Path) -> None:
        previous = os.umask(0o027)
        try:
            path = write_text(tmp_path / "a.json", "one\n")
        finally:
            os.umask(previous)
        assert mode(path) == 0o640
        path.chmod(0o600)
        write_text(path, "two\n", force=True)
        assert (mode(path), path.read_text()) == (0o600, "two\n")

    def test_line_endings_are_not_changed(self, tmp_path: Path) -> None:
        assert write_text(tmp_path / "a", "one\r\ntwo\n").read_bytes() == b"one\r\ntwo\n"

    @pytest.mark.parametrize("error", [DataError("no rows"), KeyboardInterrupt(), ValueError("a bug")])
    def test_an_error_leaves_the_old_file_in_place(self, tmp_path: Path, error: BaseException) -> None:
        path = write_text(tmp_path / "a", "old")
        with pytest.raises(type(error)):
            fill(path, error)
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["a"]

    def test_a_file_that_appears_in_the_meantime_is_not_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        with pytest.raises(OutputError, match="exists already"):
            fill(path, meanwhile=lambda: path.write_text("other"))
        assert path.read_text() == "other"
        assert os.listdir(tmp_path) == ["a"]

    def test_a_symlink_is_replaced_and_its_target_stays(self, tmp_path: Path) -> None:
        target = write_text(tmp_path / "target", "precious")
        (tmp_path / "link").symlink_to(target)
        with pytest.raises(OutputError, match="exists already"):
            write_text(tmp_path / "link", "new")
        write_text(tmp_path / "link", "new", force=True)
        assert (target.read_text(), (tmp_path / "link").read_text()) == ("precious", "new")

    def test_a_name_may_be_as_long_as_the_file_system_allows(self, tmp_path: Path) -> None:
        assert write_text(tmp_path / ("n" * 255), "x").read_text() == "x"

    def test_a_path_that_cannot_be_written_is_refused_before_the_work(self, tmp_path: Path) -> None:
        write_text(tmp_path / "a", "")
        for path, words in (
            (tmp_path, "is a folder"),
            (tmp_path / "a", "exists"),
            (tmp_path / "b" / "c", "Create it"),
            (tmp_path / "a\0b", "not a valid file name"),
        ):
            with pytest.raises(OutputError, match=words):
                check_writable(path)

    def test_the_first_free_name(self, tmp_path: Path) -> None:
        assert free_name(tmp_path / "a.json") == tmp_path / "a.json"
        for name in ("a.json", "a-2.json"):
            write_text(tmp_path / name, "")
        assert free_name(tmp_path / "a.json") == tmp_path / "a-3.json"


class TestFolders:
    def test_a_folder_is_replaced_as_a_whole(self, tmp_path: Path) -> None:
        for content in ("one", "two"):
            with atomic_folder(tmp_path / "best") as new:
                (new / content).write_text(content)
        assert os.listdir(tmp_path / "best") == ["two"]
        with pytest.raises(ValueError, match="a bug"), atomic_folder(tmp_path / "best"):
            raise ValueError("a bug")
        assert os.listdir(tmp_path / "best") == ["two"]

    def test_only_the_owner_can_read_private_files(self, tmp_path: Path) -> None:
        assert mode(private_folder(tmp_path / "runs" / "first")) == 0o700
        append_line(tmp_path / "lines", b"text\n")
        assert mode(tmp_path / "lines") == 0o600

    def test_the_error_names_a_folder_that_cannot_be_created(self, tmp_path: Path) -> None:
        write_text(tmp_path / "a", "")
        with pytest.raises(OutputError, match="cannot be created"):
            private_folder(tmp_path / "a" / "b")

    def test_the_environment_sets_the_cache_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROMPTMII_CACHE", str(tmp_path))
        assert cache_folder() == tmp_path
        monkeypatch.delenv("PROMPTMII_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_folder().name == "promptmii"


class TestLines:
    def test_a_truncated_line_does_not_swallow_the_next(self, tmp_path: Path) -> None:
        path = tmp_path / "lines"
        path.write_bytes(b"whole\ncut sho")
        append_line(path, b"next\n")
        assert path.read_bytes() == b"whole\ncut sho\nnext\n"

    @pytest.mark.parametrize("size", [20, 20_000])
    def test_a_full_disk_leaves_nothing_of_the_new_line(self, tmp_path: Path, size: int) -> None:
        path = tmp_path / "lines"
        append_line(path, b"whole\n")
        with disk_of(10 + size // 2), pytest.raises(OutputError, match="lines cannot be written: File too large"):
            append_line(path, b"x" * size + b"\n")
        assert path.read_bytes() == b"whole\n"


class TestFullDisks:
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
    def test_a_cause_is_found_behind_the_error_of_a_library(self, number: int) -> None:
        error = ValueError("a table cannot be generated")
        error.__cause__ = OSError(number, os.strerror(number))
        assert no_room(error) == os.strerror(number)
        with pytest.raises(OutputError, match=f"data cannot be stored: {os.strerror(number)}"):
            refuse_full_disk(error, "data")

    def test_other_errors_are_left_to_the_caller(self) -> None:
        refuse_full_disk(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), "data")

    def test_weights_that_do_not_fit_leave_the_old_folder(self, tmp_path: Path) -> None:
        numpy = pytest.importorskip("safetensors.numpy")
        with atomic_folder(tmp_path / "best") as new:
            (new / "old").touch()
        with (
            pytest.raises(OutputError, match=r"best cannot be written: .*File too large"),
            atomic_folder(tmp_path / "best") as new,
            disk_of(1000),
        ):
            numpy.save_file({"weights": np.zeros(10_000)}, new / "model.safetensors")
        assert os.listdir(tmp_path / "best") == ["old"]


class TestLocks:
    def test_a_locked_folder_is_refused_until_its_release(self, tmp_path: Path) -> None:
        with locked(tmp_path), pytest.raises(OutputError, match="Another process"), locked(tmp_path):
            pass
        with locked(tmp_path):
            pass

    def test_a_lock_file_that_is_a_link_does_not_truncate_its_target(self, tmp_path: Path) -> None:
        target = write_text(tmp_path / "target", "precious")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / ".lock").symlink_to(target)
        with pytest.raises(OutputError, match="cannot be locked"), locked(tmp_path / "run"):
            pass
        assert target.read_text() == "precious"

    def test_other_programs_can_hold_the_lock(self, tmp_path: Path) -> None:
        with FileLock(tmp_path / ".lock"), pytest.raises(OutputError, match="Another process"), locked(tmp_path):
            pass
