"""One way to a Ray cluster, for whatever is spread over it."""

from typing import Any

from promptmii.config import RayOptions
from promptmii.errors import ConfigError


def connect(ray: Any, options: RayOptions) -> None:
    """Join a running cluster, or start one on this machine. Raises `ConfigError` where none answers."""
    try:
        ray.init(address=options.address, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    except ConnectionError as error:
        raise ConfigError(f"No Ray cluster answers at {options.address!r}: {error}. Start one with: ray start --head") from error
