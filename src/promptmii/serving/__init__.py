"""Model servers that promptmii starts, watches and ends: on this machine, or on the nodes of a Ray cluster."""

from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from pathlib import Path

from promptmii.config import Endpoint, RayOptions, ServeSettings
from promptmii.errors import ConfigError
from promptmii.models.http.config import Served
from promptmii.models.http.likelihoods import FIRST_TOKENS
from promptmii.progress import QUIET, Progress
from promptmii.serving.cluster import ClusterServers
from promptmii.serving.local import LOOPBACK, LocalServers


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
    """How the models are reached: as `endpoint` says, or through servers that live as long as the context.

    One is started for each `openai:<model>` without an address of its own. It listens at `host`, an address of this
    machine, or with `ray` at that of its node. What it says goes to the folder `logs`, or to a temporary one. Raises
    `ConfigError` if there is no such model or if an address is given as well, `ModelError` if a server does not start.
    """
    if settings is None:
        yield endpoint
        return
    models = {reference: name for reference in references if (name := unplaced(reference))}
    if not models:
        raise ConfigError("serve starts servers for models named openai:<model> without an address; there are none.")
    if endpoint.base_url:
        raise ConfigError(f"serve starts its own servers, but endpoint.base_url is {endpoint.base_url!r}. Remove one.")
    made = (
        ClusterServers(models, settings, ray, progress) if ray else LocalServers(models, settings, progress, logs, host)
    )
    with closing(made) as servers:
        yield endpoint.model_copy(update={"servers": dict(servers.addresses), "served_by": settings.engine})


def unplaced(reference: str) -> str | None:
    """What its server calls a model that is named `openai:<model>` without an address; `None` for any other."""
    parsed = Served.parse(reference)
    return parsed.model.removesuffix(FIRST_TOKENS) if parsed and parsed.address is None else None
