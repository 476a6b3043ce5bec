"""From an instruction to the follower that answers under it."""

from collections.abc import Callable

from promptmii.config import Endpoint
from promptmii.errors import ConfigError
from promptmii.follower import Follower
from promptmii.instruction import Instruction
from promptmii.models.http.config import Served, addresses
from promptmii.models.wrappers import watched
from promptmii.progress import QUIET, Progress

Confirm = Callable[[str], bool]
"""Asks the user a question; true for yes."""


def refuse(_: str) -> bool:
    """The default answer to a question: no."""
    return False


def bind(
    instruction: Instruction,
    follower: str | None,
    endpoint: Endpoint,
    progress: Progress = QUIET,
    confirm: Confirm = refuse,
) -> Follower:
    """The follower that an instruction was made for, or another one.

    `confirm` is asked before texts go to a server that only the instruction names. Raises `ConfigError` if it declines,
    or if neither `follower` nor the instruction names a model.
    """
    reference, keyless = (follower, False) if follower else _named_follower(instruction, endpoint, confirm)
    progress.step(f"Loading {reference}")
    return Follower(
        watched(endpoint.load(reference, keyless=keyless, limit=endpoint.limit()), progress),
        instruction.mode or "choose",
    )


def _named_follower(instruction: Instruction, endpoint: Endpoint, confirm: Confirm) -> tuple[str, bool]:
    """The follower that an instruction names, and whether to keep the API key from it.

    An instruction comes from a file that anybody may have written. A server named there is used only after a yes, and
    never gets the key; a server that the user names replaces it.
    """
    named = instruction.follower
    if named is None:
        raise ConfigError("The instruction names no follower; give one with --follower.")
    served = Served.parse(named)
    if served is None or served.address is None or served.address in addresses(endpoint.base_url):
        return named, False
    if endpoint.base_url:
        return f"openai:{served.model}", False
    if confirm(f"The instruction names the server {served.address}. Send your texts there, without your API key?"):
        return named, True
    raise ConfigError(
        f"The instruction names the server {served.address}, and no text is sent there unless you say so. "
        f"If you trust it: --follower {named}. To use another server: --base-url."
    )
