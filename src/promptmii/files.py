"""Atomic writes, durable appends and folder locks.

Caches and run folders hold texts and answers, so only their owner can read them. A replaced file keeps its mode.
"""

import errno
import os
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path

from promptmii.errors import OutputError, PromptMIIError
from promptmii.messages import first_line

LOCK = ".lock"
_NO_ROOM = (*map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)), "Not enough disk space")


def no_room(error: BaseException | None) -> str | None:
    """The reason if an error, or its cause, is a full disk, an exhausted quota or a limit on the size of files.

    It is sought in the messages, because libraries in Rust raise errors of their own for it, and so does `datasets`.
    """
    while error is not None:
        if reason := next((reason for reason in _NO_ROOM if reason in str(error)), None):
            return reason
        error = error.__cause__ or error.__context__
    return None


def refuse_full_disk(error: Exception, subject: str) -> None:
    """Raise `OutputError` if `subject` failed for lack of room, so that the caller does not blame what it read."""
    if reason := no_room(error):
        raise OutputError(f"{subject} cannot be stored: {reason}. Make room, then run it again.") from error


def quoted(word: str | Path) -> str:
    """A word, such as a path that may hold spaces, as it is typed in a command."""
    return subprocess.list2cmdline([str(word)]) if os.name == "nt" else shlex.quote(str(word))


def cache_folder() -> Path:
    """The folder for downloaded and derived files: PROMPTMII_CACHE, or the platform's cache folder."""
    from platformdirs import user_cache_path

    configured = os.environ.get("PROMPTMII_CACHE")
    return Path(configured) if configured else user_cache_path("promptmii", appauthor=False)


def private_folder(folder: Path) -> Path:
    """Create a folder that only its owner can read; an existing one keeps its mode. Raises `OutputError`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be created: {error.strerror or error}.") from error
    return folder


def private_file(path: Path) -> Path:
    """Create an empty file that only its owner can read; an existing one keeps its mode. Raises `OSError`.

    Never opens an existing file: on POSIX, closing it would release the locks that SQLite holds in this process.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    return path


def check_writable(path: Path, *, force: bool = False) -> None:
    """Raise `OutputError` if `write_text` would. Call it before paid work starts."""
    folder = path.absolute().parent
    if "\0" in str(path):
        raise OutputError(f"{str(path)!r} is not a valid file name.")
    if os.path.isdir(path):  # unlike Path.is_dir, it does not raise if permission is denied
        raise OutputError(f"{path} is a folder; expected the name of a file to write.")
    exists = os.path.lexists(path)
    if exists and not force:
        raise OutputError(f"{path} exists already. Choose another name, or replace it with --force.")
    if not os.path.isdir(folder):
        raise OutputError(f"The folder {folder} does not exist. Create it first.")
    # The new file is written beside the old one and replaces it, so its folder must be writable too.
    if not os.access(folder, os.W_OK) or (os.path.exists(path) and not os.access(path, os.W_OK)):
        raise OutputError(f"{path} cannot be written: permission denied.")


def write_text(path: Path, content: str, *, force: bool = False) -> Path:
    """Write a text file atomically. Raises `OutputError`, also if the file exists and `force` is not set."""
    check_writable(path, force=force)
    with atomic_file(path, force=force) as temporary:
        temporary.write_text(content, encoding="utf-8", newline="")
    return path


@contextmanager
def atomic_file(path: Path, *, force: bool = True) -> Generator[Path]:
    """Yield a temporary file to write, then rename it to `path`.

    An error, a kill or a full disk leaves the old file in place. Without `force` an existing file is never replaced,
    even if it appeared in the meantime. Raises `OutputError`.
    """
    temporary = path.absolute().parent / f".{secrets.token_hex(8)}.tmp"
    with _output_errors(path, "Make room or choose another path, then run it again."):
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            yield temporary
            _sync(temporary)
            if path.is_file():
                shutil.copymode(path, temporary)
            if not force:
                _claim(temporary, path)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _output_errors(path: Path, advice: str) -> Generator[None]:
    """Convert errors of writing `path` to an `OutputError`; a library may report a full disk as an error of its own."""
    try:
        yield
    except PromptMIIError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not no_room(error):
            raise
        reason = getattr(error, "strerror", None) or first_line(error)
        raise OutputError(f"{path} cannot be written: {reason}. {advice}") from error


def _claim(temporary: Path, path: Path) -> None:
    """Create `path` unless it exists: by a hard link, which is atomic, if the file system supports links."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise OutputError(f"{path} exists already. Choose another name, or replace it with --force.") from error
    except OSError:
        check_writable(path)


def free_name(path: Path) -> Path:
    """`path`, or the first of `name-2.json`, `name-3.json`, ... that does not exist."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(candidate for candidate in chain([path], numbered) if not os.path.lexists(candidate))


def remove_temporary(folder: Path) -> None:
    """Remove the temporary files of killed processes from a folder and its subfolders. Call it under `locked`."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Generator[Path]:
    """Yield a new folder to fill, then replace `folder` with it. An error leaves the old one. Raises `OutputError`."""
    new = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(new, ignore_errors=True)
    try:
        with _output_errors(folder, "The previous version is still valid."):
            new.mkdir(parents=True)
            yield new
            for path in new.rglob("*"):
                if path.is_file():
                    _sync(path)
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def append_line(path: Path, line: bytes) -> None:
    """Append a line and flush it to disk. Raises `OutputError`; the lines before it stay intact."""
    with _output_errors(path, "Make room, then run it again to continue."):
        end = private_file(path).stat().st_size
        try:
            with path.open("a+b") as file:
                file.seek(max(end - 1, 0))
                separator = b"\n" if file.read(1) not in (b"", b"\n") else b""  # after a line that a kill cut short
                file.write(separator + line)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.truncate(path, end)  # only once the file is closed, because closing writes what its buffer holds
            raise


@contextmanager
def locked(folder: Path, wait: Callable[[], None] | None = None) -> Generator[None]:
    """Lock a folder against other processes. Raises `OutputError`.

    Creates a missing folder as private, and removes it again if nothing was written to it. If another process holds
    the lock, calls `wait` and then waits for the lock; without `wait` this is an error.
    """
    from filelock import FileLock, Timeout

    new = not folder.exists()
    lock = FileLock(private_folder(folder) / LOCK, timeout=0)
    try:
        try:
            lock.acquire()
        except Timeout:
            if wait is None:
                raise
            wait()
            lock.acquire(timeout=-1)
    except Timeout as error:
        raise OutputError(
            f"Another process is writing to {folder}. Wait for it, or name another output with -o."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise OutputError(f"The folder {folder} cannot be locked: {error}. Name another output with -o.") from error
    try:
        yield
    finally:
        lock.release()
        if new and set(os.listdir(folder)) <= {LOCK}:  # on some systems, filelock removes the file itself
            shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
