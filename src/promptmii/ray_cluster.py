"""Starts worker actors on a Ray cluster."""

from collections.abc import Callable
from typing import Any, TypeVar

from promptmii.config import RayOptions
from promptmii.errors import ConfigError, PromptMIIError, required_by

T = TypeVar("T")


def unwrapped(result: T | PromptMIIError) -> T:
    """The result of an actor call. Actors return errors, because Ray buries a raised one in a long traceback."""
    if isinstance(result, PromptMIIError):
        raise result
    return result


class RayActors:
    """`options.workers` actors of one class, on a running cluster or on one started on this machine."""

    def __init__(self, options: RayOptions, actor_class: type, *arguments: Any, **resources: Any) -> None:
        """Start the actors. Raises `ConfigError` if no cluster answers or it is too small, `MissingDependencyError`."""
        self.ray, self._disconnect = _connect(options)
        shortage = _shortage(self.ray, options)
        if shortage:
            self._disconnect()
            raise ConfigError(shortage)
        remote: Any = self.ray.remote(num_cpus=options.cpus, num_gpus=options.gpus, **resources)(actor_class)
        self.actors: list[Any] = [remote.remote(*arguments) for _ in range(options.workers)]

    def close(self) -> None:
        """Stop the actors, and the cluster if it was started here."""
        for actor in self.actors:
            self.ray.kill(actor)
        self._disconnect()


def _shortage(ray: Any, options: RayOptions) -> str | None:
    """An error message if the cluster is too small for the workers, even when idle; else None."""
    resources = ray.cluster_resources()
    cores, gpus = float(resources.get("CPU", 0)), float(resources.get("GPU", 0))
    largest = max((float(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]), default=0.0)
    if cores < options.workers * options.cpus:
        return (
            f"{options.workers} workers of {options.cpus:g} cores need more than the {cores:g} of the Ray cluster. "
            "Lower `workers` or `cpus` in the table [ray]."
        )
    if largest < options.gpus:
        return f"A worker needs {options.gpus:g} GPUs on one machine; the largest of the Ray cluster has {largest:g}."
    if gpus < options.workers * options.gpus:
        return (
            f"{options.workers} workers of {options.gpus:g} GPUs need more than the {gpus:g} of the Ray cluster. Lower "
            "`workers` in the table [ray], or `copies` in the table [serve]."
        )
    return None


def _connect(options: RayOptions) -> tuple[Any, Callable[[], None]]:
    """The connected `ray` module, and a function that disconnects it unless it was connected before."""
    with required_by("--ray", "ray"):
        import ray
    module: Any = ray
    if module.is_initialized():
        return module, lambda: None
    try:
        module.init(address=options.address, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    except ConnectionError as error:
        raise ConfigError(
            f"No Ray cluster answers at {options.address!r}: {error}. Start one with: ray start --head"
        ) from error
    return module, module.shutdown
