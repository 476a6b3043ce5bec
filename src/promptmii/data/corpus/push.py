"""A corpus on the hub: the Parquet files and the card, nothing of how they were made."""

from pathlib import Path

from promptmii.data.corpus_files import read_corpus
from promptmii.models.push import upload

FILES = ("README.md", "data/*.parquet", "figures/*.png")


def push_corpus(folder: Path, repository: str, *, private: bool = True) -> str:
    """Upload to `owner/name`, which is made where it is not there; returns its address. Raises `EndpointError`, `ArtefactError`."""
    read_corpus(folder)
    return upload(folder, repository, kind="dataset", patterns=FILES, private=private, message="Corpus")
