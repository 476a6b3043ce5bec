"""The version, read from the installed package: `pyproject.toml` is its one home."""

from importlib.metadata import version

VERSION = version("promptmii")
