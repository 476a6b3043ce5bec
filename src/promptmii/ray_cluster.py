"""One way to a Ray cluster, for whatever is spread over it."""

from collections.abc import Callable
from typing import Any

from promptmii.config import RayOptions
from promptmii.errors import ConfigError, MissingDependencyError


def connect(options: RayOptions) -> tuple[Any, Callable[[], None]]:
    """`ray`, joined to a running cluster or with one started on this machine, and how to leave: a cluster that was there stays.

    Raises `ConfigError` where none answers, `MissingDependencyError`.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("--ray", "ray") from error
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
