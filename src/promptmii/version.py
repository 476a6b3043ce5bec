"""The version of the installed package. It is defined only in `pyproject.toml`."""

from importlib.metadata import version

VERSION = version("promptmii")
