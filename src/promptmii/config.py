"""Settings of the commands, as frozen values that refuse unknown names. What the command line offers is what is here."""

from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from promptmii.errors import ConfigError, nearest
from promptmii.instruction import CalibrationKind, Frozen, Mode
from promptmii.models import LanguageModel, load_model


class Settings(Frozen):
    """Base: builds from keywords and turns pydantic's complaints into one sentence."""

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Validated settings. Raises `ConfigError` that names the nearest known field or the value that was refused."""
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise ConfigError(f"Unknown setting {name!r}. {nearest(name, cls.model_fields)}") from error
            raise ConfigError(f"The setting {name} = {first['input']!r} is refused: {first['msg']}.") from error


class Columns(Settings):
    """Which columns of a table are the text and the label; what is not named is detected."""

    text: tuple[str, ...] | str | None = None
    """One column, several, or a template such as `"{premise} || {hypothesis}"`."""
    label: str | None = None
    labels: tuple[str, ...] | None = None
    """The label set and its order; rows with other labels are dropped and counted."""


class Endpoint(Settings):
    """How to reach an OpenAI-compatible server, for `openai:` references. The key comes from OPENAI_API_KEY and is never stored."""

    base_url: str | None = None
    """Several, comma-separated, are used in turn. `None` means OPENAI_BASE_URL, or the hosted API."""
    concurrency: int = Field(default=16, ge=1)
    """Requests under way at once, over all servers."""
    context_length: int | None = None
    """Tokens; `None` asks the server."""
    cache: str | None = None
    """Folder of the answer cache; `None` means none."""

    def load(self, reference: str) -> LanguageModel:
        """The model behind a reference, reached this way."""
        from promptmii.models.http import HttpConfig

        http = HttpConfig(base_url=self.base_url, concurrency=self.concurrency, context_length=self.context_length)
        return load_model(reference, http, cache=self.cache)


class Price(Settings):
    """Money per million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)


class InduceSettings(Settings):
    """How to make an instruction and how to measure it."""

    n: int = Field(default=20, ge=1)
    """Examples the generator reads."""
    generator: str = "smol"
    follower: str | None = None
    """`None`: the generator also follows."""
    mode: Mode = "choose"
    calibration: CalibrationKind | Literal["auto"] = "auto"
    """`auto`: `support` where the follower gives likelihoods in `choose` mode, else `none` (docs/models.md has the measurements)."""
    best_of: int = Field(default=1, ge=1)
    """Drafts to choose from, on an inner split of the support."""
    budget: int | None = Field(default=None, ge=8)
    """Most tokens of the instruction."""
    template: str | None = None
    """File with the generator's own template."""
    evaluate: int = Field(default=200, ge=0)
    """Held-back rows to measure on; 0 measures nothing."""
    seed: int = 0
    columns: Columns = Columns()
    endpoint: Endpoint = Endpoint()
    price: Price | None = None
