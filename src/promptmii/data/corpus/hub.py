"""The hub: what it lists, and what its errors mean. Waiting for rate limits is `huggingface_hub`'s own; what it gives up on waits here."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from promptmii.data.corpus.journal import Entry
from promptmii.data.corpus.listing import Candidate, configurations, described, refused
from promptmii.data.corpus.settings import ListSettings
from promptmii.errors import EndpointError, MissingDependencyError

Result = TypeVar("Result")
BUSY = (408, 425, 429, 500, 502, 503, 504)
LONGEST_PAUSE = 30.0
LISTING_PATIENCE = 300.0
"""Seconds."""


class UnavailableError(Exception):
    """A dataset that cannot be had now, and perhaps later: gated, vanished, withdrawn."""


def list_hub(settings: ListSettings) -> Iterator[Entry]:
    """A line for each configuration on the hub. Raises `EndpointError` where the hub is away."""
    for info in patiently(lambda: _listed(settings), LISTING_PATIENCE):
        card = info.card_data.to_dict() if info.card_data else {}
        for config in configurations(card):
            candidate = Candidate(
                name=info.id if config in (None, "default") else f"{info.id}:{config}",
                repository=info.id,
                config=config,
                revision=info.sha or "",
                **described(card),
            )
            fault = (
                "it was withdrawn (disabled on the hub)"
                if info.disabled
                else None
                if info.sha
                else "it has no commit yet"
            )
            yield candidate.entry(fault or refused(candidate, info.tags or (), settings))


def _listed(settings: ListSettings) -> list[Any]:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise MissingDependencyError("--hub", "corpus") from error
    found = HfApi().list_datasets(
        filter=list(settings.tags),
        author=settings.author,
        search=settings.search,
        sort="downloads",
        limit=settings.most,
        expand=["sha", "cardData", "tags", "gated", "disabled", "downloads"],
    )
    return list(found)


def patiently(
    action: Callable[[], Result], patience: float, waiting: Callable[[float], None] = lambda _: None
) -> Result:
    """The result of `action`, tried again while the hub is down or busy; `waiting` hears of every pause, in seconds.

    Raises `EndpointError` when patience ends.
    """
    began, pause = time.monotonic(), 1.0
    while True:
        try:
            return action()
        except Exception as error:
            if not is_trouble(error):
                raise
            wait = max(pause, _retry_after(error))
            if time.monotonic() - began + wait > patience:
                raise EndpointError(
                    f"The hub does not answer, or refuses more requests, for {patience:.0f} s: {_first_line(error)}. Run the same command "
                    "again later: it goes on where it stopped."
                ) from error
            waiting(wait)
            time.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)


def is_trouble(error: BaseException | None) -> bool:
    """Whether an error says that the hub, rather than a dataset, is the matter."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return status in BUSY
        # huggingface_hub passes on the transport's own errors, of whichever HTTP library it is built on.
        if isinstance(error, ConnectionError) or type(error).__module__.split(".")[0] in (
            "httpx",
            "httpx2",
            "httpcore",
            "httpcore2",
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _retry_after(error: BaseException) -> float:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return float(headers.get("Retry-After", 0))
    except ValueError:
        return 0.0


def explain(repository: str, revision: str, patience: float, waiting: Callable[[float], None] = lambda _: None) -> None:
    """After a fetch that failed, ask the hub: raises `UnavailableError` or `EndpointError`; returns where the dataset is at fault."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = patiently(lambda: HfApi().dataset_info(repository, revision=revision, timeout=30.0), patience, waiting)
    except GatedRepoError as error:
        raise UnavailableError(_gated(repository)) from error
    except RevisionNotFoundError as error:
        raise UnavailableError(f"the pinned commit {revision[:12]} has vanished") from error
    except RepositoryNotFoundError as error:
        raise UnavailableError("it has vanished from the hub, or is private") from error
    except DisabledRepoError as error:
        raise UnavailableError("it was withdrawn (disabled on the hub)") from error
    if info.gated:
        raise UnavailableError(_gated(repository))


def _gated(repository: str) -> str:
    return f"gated: ask for access on its page, set HF_TOKEN, and run again with --retry ({repository})"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
