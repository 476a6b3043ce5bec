"""How each kind of server is started."""

import shlex
import shutil
import sys
from dataclasses import dataclass

from promptmii.config import ServeSettings
from promptmii.errors import ConfigError

LOOPBACK = "127.0.0.1"
PLACES = ("model", "host", "port", "gpus")
"""What a command line of one's own may name in braces."""


@dataclass(frozen=True)
class Place:
    """Where a server listens, and the GPUs that it has."""

    port: int
    host: str = LOOPBACK
    gpus: int = 0


def command_line(settings: ServeSettings, model: str, place: Place) -> list[str]:
    """The words that start a server. Raises `ConfigError` where the program is not on this machine."""
    where = ["--host", place.host, "--port", str(place.port)]
    match settings.engine:
        case "vllm":
            # Sampling parameters come with each request, not from the model's repository.
            words = ["vllm", "serve", model, *where, "--generation-config", "vllm"]
            words += ["--tensor-parallel-size", str(place.gpus)] if place.gpus > 1 else []
        case "llama.cpp":
            words = [sys.executable, "-P", "-m", "promptmii.models.llama.serve", model, *where]
        case own:
            given = {"model": model, "host": place.host, "port": place.port, "gpus": place.gpus}
            words = [_filled(word, given) for word in shlex.split(own)]
    if shutil.which(words[0]) is None:
        raise ConfigError(
            f"serve: there is no program {words[0]!r} on this machine. Install it; or start the server yourself, and "
            "give endpoint.base_url; or set serve to vllm, llama.cpp or a command line with {model} and {port}."
        )
    return [*words, *settings.options]


def _filled(word: str, given: dict[str, str | int]) -> str:
    for name in PLACES:
        word = word.replace(f"{{{name}}}", str(given[name]))
    return word
