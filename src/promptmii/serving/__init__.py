"""Model servers that promptmii starts, watches and ends: on this machine, or on the nodes of a Ray cluster."""

from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from pathlib import Path

from promptmii.config import Endpoint, RayOptions, ServeSettings
from promptmii.errors import ConfigError
from promptmii.models.http.config import ServerReference
from promptmii.models.http.likelihoods import FIRST_TOKENS
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
    """Yield the endpoint of the models: `endpoint` itself, or with `settings` servers that run as long as the context.

    Starts a server for each `openai:<model>` without an address. It listens at `host`, an address of this machine, or
    with `ray` at the address of its node. Its log is in the folder `logs`, by default a temporary one. Raises
    `ConfigError` if no model is of this kind or `endpoint` has an address too, `ModelError` if a server does not start.
    """
    if settings is None:
        yield endpoint
        return
    models = {reference: name for reference in references if (name := name_without_address(reference))}
    if not models:
        raise ConfigError("serve starts servers for models named openai:<model> without an address; there are none.")
    if endpoint.base_url:
        raise ConfigError(f"serve starts its own servers, but endpoint.base_url is {endpoint.base_url!r}. Remove one.")
    with closing(
        ClusterServers(models, settings, ray, progress) if ray else LocalServers(models, settings, progress, logs, host)
    ) as servers:
        yield endpoint.model_copy(update={"servers": dict(servers.addresses), "served_by": settings.engine})


def name_without_address(reference: str) -> str | None:
    """The name in a reference `openai:<model>` without an address; `None` for any other reference."""
    parsed = ServerReference.parse(reference)
    return parsed.model.removesuffix(FIRST_TOKENS) if parsed and parsed.address is None else None
