"""Settings of low-rank adapters."""

from pydantic import Field

from promptmii.schema import Settings


class LoraSettings(Settings):
    """Train low-rank adapters rather than all weights."""

    rank: int = Field(default=16, ge=1)
    alpha: int | None = Field(default=None, ge=1)
    """`None`: twice the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    modules: str | tuple[str, ...] = "all-linear"
