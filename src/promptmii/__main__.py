"""`python -m promptmii` is `promptmii`."""

from promptmii.cli import app

app()
