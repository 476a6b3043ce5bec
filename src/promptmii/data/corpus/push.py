"""A corpus on the hub: the Parquet files and the card, nothing of how they were made."""

from pathlib import Path

from promptmii.data.corpus.format import read_corpus
from promptmii.errors import EndpointError, MissingDependencyError


def push_corpus(folder: Path, repository: str, *, private: bool = True) -> str:
    """Upload to `owner/name`, which is made where it is not there; returns its address. Raises `EndpointError`, `ArtefactError`."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise MissingDependencyError("--push", "corpus") from error
    read_corpus(folder)
    api = HfApi()
    try:
        address = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        patterns = ["README.md", "data/*.parquet", "figures/*.png"]
        api.upload_folder(folder_path=folder, repo_id=repository, repo_type="dataset", allow_patterns=patterns, commit_message="Corpus")
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:  # ValueError: an answer that is none of the hub's
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EndpointError(
            f"{folder} cannot be uploaded to {repository}: {reason} Expected owner/name, and a token in HF_TOKEN."
        ) from error
    return str(address)
