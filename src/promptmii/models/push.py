"""Uploading a folder to the hub: only what is named, private unless it is asked otherwise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from promptmii.errors import EndpointError, MissingDependencyError, first_line


def upload(
    folder: Path,
    repository: str,
    *,
    kind: Literal["model", "dataset"],
    patterns: Sequence[str],
    private: bool,
    message: str,
) -> str:
    """Upload the files that match `patterns` to `owner/name`, created if missing; return its address.

    Raises `EndpointError`.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise MissingDependencyError("Uploading", "hf") from error
    api = HfApi()
    try:
        address = api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(
            folder_path=folder,
            repo_id=repository,
            repo_type=kind,
            allow_patterns=list(patterns),
            commit_message=message,
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:  # ValueError: no answer of the hub's
        message = f"{folder} cannot be uploaded to {repository}: {first_line(error)}"
        raise EndpointError(f"{message} Expected owner/name, and a token in HF_TOKEN.") from error
    return str(address)
