"""Lists hub datasets, classifies hub errors, and retries while the hub is busy."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

import tenacity

from promptmii.corpus.journal import Entry
from promptmii.corpus.listing import Candidate, configurations, licence_and_languages, rejection
from promptmii.corpus.settings import ListSettings
from promptmii.data.columnar import hub_parts
from promptmii.errors import EndpointError, required_by
from promptmii.messages import first_line
from promptmii.models.http.refusals import retry_after

Result = TypeVar("Result")
Wait = Callable[[float], None]
"""A callback that gets the seconds of each wait for the hub."""
BUSY = (408, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT = 30.0
LISTING_PATIENCE = 300.0
HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2")
"""huggingface_hub lets errors of its HTTP library through. Which library it uses depends on its version."""


def list_hub(settings: ListSettings, listed: Collection[str]) -> Iterator[Entry]:
    """An entry for each configuration on the hub, without the repositories `listed` before.

    Raises `EndpointError` if the hub is down or refuses to list.
    """
    if settings.repositories:
        for address in settings.repositories:
            if hub_parts(address)[0] not in listed:
                yield from _named(address, settings)
        return
    for info in _list(settings):
        if info.id not in listed:
            yield from _entries(info, settings)


def _api() -> Any:
    with required_by("--hub", "corpus"):
        from huggingface_hub import HfApi
    return HfApi()


def _named(address: str, settings: ListSettings) -> Iterator[Entry]:
    """An entry for each configuration of a repository, or only for the one in the address."""
    repository, config, commit = hub_parts(address)
    info, reason = _look_up(repository, commit, LISTING_PATIENCE)
    if info:
        yield from _entries(info, settings, config or None)
        return
    name = address.partition("@")[0]
    missing = Candidate(name=name, repository=repository, config=config or None, revision=commit)
    yield missing.entry(reason, temporary=True)


def _entries(info: Any, settings: ListSettings, only: str | None = None) -> Iterator[Entry]:
    card = info.card_data.to_dict() if info.card_data else {}
    for config in [only] if only else configurations(card):
        name = info.id if config in (None, "default") else f"{info.id}:{config}"
        candidate = Candidate(
            name=name, repository=info.id, config=config, revision=info.sha or "", **licence_and_languages(card)
        )
        if info.disabled or not info.sha:
            yield candidate.entry("disabled on the hub" if info.disabled else "has no commit yet")
        else:
            yield candidate.entry(rejection(candidate, info.tags or (), settings))


def _list(settings: ListSettings) -> list[Any]:
    api = _api()
    from huggingface_hub.errors import HfHubHTTPError

    def list_once() -> list[Any]:
        return list(
            api.list_datasets(
                filter=list(settings.tags),
                author=settings.author,
                search=settings.search,
                sort="downloads",
                limit=settings.most,
                expand=["sha", "cardData", "tags", "gated", "disabled", "downloads"],
            )
        )

    try:
        return with_patience(list_once, LISTING_PATIENCE)
    except HfHubHTTPError as error:
        raise EndpointError(
            f"The hub refuses to list datasets: {first_line(error)}. Check HF_TOKEN and the table [list]."
        ) from error


def with_patience(action: Callable[[], Result], patience: float, on_wait: Wait = lambda _: None) -> Result:
    """Call `action`, and retry while the hub is down or busy. Raises `EndpointError` after `patience` seconds."""
    backoff = tenacity.wait_exponential(multiplier=0.5, max=LONGEST_WAIT) + tenacity.wait_random(0, 0.5)

    def wait(state: tenacity.RetryCallState) -> float:
        response = getattr(state.outcome.exception() if state.outcome else None, "response", None)
        headers: Mapping[str, str] = getattr(response, "headers", None) or {}
        named = [rate_limit_reset(headers), retry_after(headers.get("Retry-After", ""))] if headers else []
        return max([backoff(state), *filter(None, named)])

    def give_up(state: tenacity.RetryCallState) -> Result:
        error = state.outcome.exception() if state.outcome else None
        raise EndpointError(
            f"The hub has been down or refusing requests for {patience:.0f} s: {first_line(error)}. "
            "Run the same command again later to continue."
        ) from error

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_outage),
        wait=wait,
        stop=tenacity.stop_before_delay(patience),
        before_sleep=lambda state: on_wait(state.upcoming_sleep),
        retry_error_callback=give_up,
    )
    return retrying(action)


def rate_limit_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until the hub's rate limit resets, if it is used up."""
    from huggingface_hub.utils import parse_ratelimit_headers

    limit = parse_ratelimit_headers(headers)
    return limit.reset_in_seconds + 1.0 if limit and not limit.remaining else None


def is_outage(error: BaseException | None) -> bool:
    """True if the hub, rather than the dataset, caused the error."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return status in BUSY
        if isinstance(error, ConnectionError) or type(error).__module__.split(".")[0] in HTTP_LIBRARIES:
            return True
        error = error.__cause__ or error.__context__
    return False


def unavailability(repository: str, revision: str, patience: float, on_wait: Wait) -> str | None:
    """The reason why a repository is unavailable, perhaps temporarily, or None. Raises `EndpointError`."""
    info, reason = _look_up(repository, revision, patience, on_wait)
    return _gated(repository) if info and info.gated else reason


def _look_up(repository: str, revision: str, patience: float, on_wait: Wait = lambda _: None) -> tuple[Any, str | None]:
    """What the hub says about a repository, or the reason why it says nothing. Raises `EndpointError`."""
    api = _api()
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = with_patience(
            lambda: api.dataset_info(repository, revision=revision or None, timeout=30.0), patience, on_wait
        )
    except GatedRepoError:
        return None, _gated(repository)
    except RevisionNotFoundError:
        return None, f"the commit {revision[:12]} is not on the hub, or no longer"
    except (RepositoryNotFoundError, HFValidationError) as error:
        return None, f"it is not on the hub, or no longer, or is private: {first_line(error)}"
    except DisabledRepoError:
        return None, "disabled on the hub"
    except HfHubHTTPError as error:  # for instance, a token without the right to read it
        return None, f"the hub refuses it: {first_line(error)}"
    return info, None


def _gated(repository: str) -> str:
    return f"gated: ask for access on the page of {repository}, set HF_TOKEN, and run again with --retry"
