"""Servers on the nodes of a Ray cluster: an actor holds each, so that Ray finds a node with the GPUs it needs."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from promptmii.config import RayOptions, ServeSettings
from promptmii.errors import ModelError, PromptMIIError
from promptmii.progress import QUIET, Progress
from promptmii.ray_cluster import RayActors, unwrapped
from promptmii.serving.local import LocalServers


class Host:
    """One server on the node where this actor runs. It ends with the actor, however that ends."""

    def __init__(self, settings: str, reference: str, model: str) -> None:
        """Settings come as JSON, so that the worker validates them."""
        # Ray shows the actor its own GPUs alone.
        self._settings = ServeSettings.model_validate_json(settings).model_copy(update={"copies": 1, "devices": None})
        self._models = {reference: model}
        self._servers: LocalServers | None = None

    def start(self) -> str | PromptMIIError:
        """The server's address once it answers, or why there is none: not every error survives being raised here."""
        from ray.util import get_node_ip_address

        try:
            self._servers = LocalServers(self._models, self._settings, host=get_node_ip_address())
        except PromptMIIError as error:
            return error
        (address,) = self._servers.addresses.values()
        return address

    def close(self) -> None:
        """End the server. Without this call it ends a moment after the actor."""
        if self._servers:
            self._servers.close()


class ClusterServers:
    """`copies` servers of each model, each on a node with its GPUs. One that ends is started again where it was."""

    def __init__(
        self, models: Mapping[str, str], settings: ServeSettings, options: RayOptions, progress: Progress = QUIET
    ) -> None:
        """`models` are their names by reference. Returns once all answer.

        Raises `ConfigError` if no cluster answers or no node is large enough, `ModelError` if a server does not start.
        """
        progress.step("Starting servers: " + ", ".join(models.values()))
        self.addresses: dict[str, str] = {}
        """By reference; several copies are separated by commas."""
        with ExitStack() as undo:
            starting: dict[str, list[Any]] = {}
            ray: Any = None
            for reference, name in models.items():
                gpus = settings.needs(reference)
                # A server on a GPU is counted by it alone, lest the workers of a grid take its processor.
                needs = {"workers": settings.copies, "gpus": gpus, "cpus": 0 if gpus else options.cpus}
                wanted = (settings.model_dump_json(), reference, name)
                each = RayActors(options.model_copy(update=needs), Host, *wanted, scheduling_strategy="SPREAD")
                undo.callback(_end, each, settings.silence)
                starting[reference], ray = [actor.start.remote() for actor in each.actors], each.ray
            try:
                for reference, answers in starting.items():
                    known = ray.get(answers, timeout=settings.startup)
                    self.addresses[reference] = ",".join(map(unwrapped, known))
            except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError) as error:
                raise ModelError(
                    f"A server of {', '.join(models.values())} did not start on the cluster within "
                    f"{settings.startup:.0f} s: {error}. Its nodes may be busy: see `ray status`."
                ) from error
            self._open = undo.pop_all()

    def close(self) -> None:
        """End the servers, and the cluster if it was started here."""
        self._open.close()


def _end(hosts: RayActors, patience: float) -> None:
    hosts.ray.wait([actor.close.remote() for actor in hosts.actors], num_returns=len(hosts.actors), timeout=patience)
    hosts.close()
