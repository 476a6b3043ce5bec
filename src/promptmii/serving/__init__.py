"""Model servers that promptmii starts, watches and ends: on this machine, or on the nodes of a Ray cluster."""

from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from pathlib import Path

from promptmii.config import Endpoint, RayOptions, ServeSettings
from promptmii.errors import ConfigError
from promptmii.models.references import FIRST_TOKENS, ServerReference
from promptmii.progress import QUIET, Progress
from promptmii.serving.cluster import ClusterServers
from promptmii.serving.local import LocalServers
from promptmii.serving.process import LOOPBACK


@contextmanager
def served(
    references: Iterable[str],
    settings: ServeSettings | None,
    endpoint: Endpoint,
    logs: Path | None = None,
    progress: Progress = QUIET,
    *,
    host: str = LOOPBACK,
    ray: RayOptions | None = None,
) -> Generator[Endpoint]:
    """Start servers for the models, and end them with the context. Yields the endpoint that reaches them.

    Without `settings`, starts nothing and yields `endpoint` itself. Each `openai:<model>` without an address gets a
    server. It listens at `host`, an address of this machine, or with `ray` at the address of its node. The logs are in
    the folder `logs`, by default a temporary one. Raises `ConfigError` if there is no such model or `endpoint` already
    has an address, `ModelError` if a server does not start.
    """
    if settings is None:
        yield endpoint
        return
    names = {reference: model_to_serve(reference) for reference in references}
    models = {reference: name for reference, name in names.items() if name}
    if not models:
        raise ConfigError("serve starts servers for models named openai:<model> without an address; there are none.")
    if endpoint.base_url:
        raise ConfigError(f"serve starts its own servers, but endpoint.base_url is {endpoint.base_url!r}. Remove one.")
    if ray:
        servers = ClusterServers(models, settings, ray, progress)
    else:
        servers = LocalServers(models, settings, progress, logs, host)
    with closing(servers):
        yield endpoint.model_copy(update={"servers": dict(servers.addresses), "served_by": settings.engine})


def model_to_serve(reference: str) -> str | None:
    """The model in a reference `openai:<model>` without an address; `None` for any other reference."""
    parsed = ServerReference.parse(reference)
    return parsed.model.removesuffix(FIRST_TOKENS) if parsed and parsed.address is None else None
