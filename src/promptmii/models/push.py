"""Uploading a folder to the hub: only what is named, private unless it is asked otherwise."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from promptmii.errors import ArtefactError, EndpointError, MissingDependencyError

WEIGHTS = ("README.md", "*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
"""Of a folder of weights: card, configuration, tokenizer and weights, without checkpoints and logs."""


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
    except (
        HfHubHTTPError,
        HFValidationError,
        OSError,
        ValueError,
    ) as error:  # ValueError: an answer that is none of the hub's
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EndpointError(
            f"{folder} cannot be uploaded to {repository}: {reason} Expected owner/name, and a token in HF_TOKEN."
        ) from error
    return str(address)


def push_weights(folder: Path, repository: str, *, private: bool = True) -> str:
    """Upload trained weights (`RUN/best`, `RUN/checkpoint-N`); returns the reference that loads them from there.

    Raises `ArtefactError` for a folder without weights, `EndpointError`.
    """
    if not list(folder.glob("*.safetensors")):
        raise ArtefactError(
            f"{folder} holds no weights; expected a folder with .safetensors files, such as runs/mine/best."
        )
    reference = f"hf:{repository}"
    config = folder / "adapter_config.json"
    if config.exists():
        try:
            known: dict[str, Any] = json.loads(config.read_text("utf-8"))
            base = str(known["base_model_name_or_path"])
        except (ValueError, KeyError) as error:
            raise ArtefactError(f"{config} does not name the model that the adapter belongs to: {error}.") from error
        reference = f"{base if base.split('+')[0] == 'smol' or base.startswith('hf:') else f'hf:{base}'}+{repository}"
    upload(folder, repository, kind="model", patterns=WEIGHTS, private=private, message="Weights")
    return reference
