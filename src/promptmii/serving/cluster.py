"""Servers on the nodes of a Ray cluster. An actor runs each of them on a node where Ray finds enough GPUs."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from promptmii.config import RayOptions, ServeSettings
from promptmii.errors import ModelError, PromptMIIError
from promptmii.progress import Progress
from promptmii.ray_cluster import RayActors, unwrapped
from promptmii.serving.local import LocalServers


class Host:
    """An actor that runs one server on its node. The server ends with the actor, even if that is killed."""

    def __init__(self, settings: str, reference: str, model: str) -> None:
        """`settings` is JSON, which the actor validates."""
        # Ray shows the actor only its own GPUs.
        self._settings = ServeSettings.model_validate_json(settings).model_copy(update={"copies": 1, "devices": None})
        self._models = {reference: model}
        self._servers: LocalServers | None = None

    def start(self) -> str | PromptMIIError:
        """The server's address once it answers, or the error, because Ray cannot pass on every raised exception."""
        from ray.util import get_node_ip_address

        try:
            self._servers = LocalServers(self._models, self._settings, host=get_node_ip_address())
        except PromptMIIError as error:
            return error
        (address,) = self._servers.addresses.values()
        return address

    def close(self) -> None:
        """End the server now, rather than shortly after the actor."""
        if self._servers:
            self._servers.close()


class ClusterServers:
    """`copies` servers of each model, each on a node with enough GPUs. A server that ends is restarted on its node."""

    def __init__(
        self, models: Mapping[str, str], settings: ServeSettings, options: RayOptions, progress: Progress
    ) -> None:
        """Start the servers and wait until all answer. `models` maps references to names.

        Raises `ConfigError` if no cluster answers or no node is large enough, `ModelError` if a server does not start.
        """
        progress.step("Starting servers: " + ", ".join(models.values()))
        self.addresses: dict[str, str] = {}
        """By reference; a comma-separated list if there are several copies."""
        with ExitStack() as undo:
            starting: dict[str, list[Any]] = {}
            ray: Any = None
            for reference, name in models.items():
                gpus = settings.needs(reference)
                # A server on a GPU claims no CPU core, because the workers of a grid may have claimed them all.
                needs = {"workers": settings.copies, "gpus": gpus, "cpus": 0 if gpus else options.cpus}
                arguments = (settings.model_dump_json(), reference, name)
                hosts = RayActors(options.model_copy(update=needs), Host, *arguments, scheduling_strategy="SPREAD")
                undo.callback(_close, hosts, settings.silence)
                starting[reference] = [actor.start.remote() for actor in hosts.actors]
                ray = hosts.ray
            try:
                for reference, pending in starting.items():
                    results = ray.get(pending, timeout=settings.startup)
                    self.addresses[reference] = ",".join(map(unwrapped, results))
            except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError) as error:
                raise ModelError(
                    f"A server of {', '.join(models.values())} did not start on the cluster within "
                    f"{settings.startup:.0f} s: {error}. Its nodes may be busy: see `ray status`."
                ) from error
            self._open = undo.pop_all()

    def close(self) -> None:
        """End the servers, and the cluster if it was started here."""
        self._open.close()


def _close(hosts: RayActors, timeout: float) -> None:
    hosts.ray.wait([actor.close.remote() for actor in hosts.actors], num_returns=len(hosts.actors), timeout=timeout)
    hosts.close()
