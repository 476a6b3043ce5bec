"""Settings shared by several commands."""

from contextlib import AbstractAsyncContextManager
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from promptmii.calibration_kinds import CalibrationKind
from promptmii.errors import ConfigError
from promptmii.instruction import Mode, ShortlistKind
from promptmii.models import WRITER, LanguageModel, load_model
from promptmii.models.base import Price
from promptmii.models.http.config import HttpConfig, addresses
from promptmii.models.references import ServerReference
from promptmii.schema import Settings

if TYPE_CHECKING:
    from promptmii.models.http.deferred import Deferred
    from promptmii.models.spending import SpendingLimit


class Columns(Settings):
    """Text and label columns of a table, detected by default."""

    text: tuple[str, ...] | str | None = None
    """One column, several, or a template such as `"{premise} || {hypothesis}"`."""
    label: str | None = None
    labels: tuple[str, ...] | None = None
    """The labels in order; rows with other labels are dropped and counted."""


class Endpoint(Settings):
    """How to reach an OpenAI-compatible server, for `openai:` references. The key (OPENAI_API_KEY) is never stored."""

    base_url: str | None = None
    """Comma-separated server addresses that share the work; prompts with the same prefix go to the same server.
    Default: OPENAI_BASE_URL, or the hosted API if it is not set."""
    concurrency: int = Field(default=16, ge=1)
    """Concurrent requests, over all servers."""
    patience: float = Field(default=300.0, ge=0)
    """Seconds that a call waits for a server that is down, busy or failing, before the call fails."""
    context_length: int | None = Field(default=None, ge=1)
    """Context length in tokens; default: as the server reports."""
    cache: str | None = None
    """Folder of the answer cache; default: no cache."""
    prices: dict[str, Price] = Field(default_factory=dict[str, Price])
    """Money per million prompt and completion tokens, by model reference; `*` covers all other models."""
    max_cost: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Spending limit of a run, in the currency of `prices`; requires a price for every model."""
    servers: dict[str, str] = Field(default_factory=dict[str, str])
    """Addresses by model reference, which override `base_url`. Set by `serve`; they get no key."""
    served_by: str = ""
    """The engine behind `servers`, which identifies cached answers instead of addresses."""

    @field_validator("base_url")
    @classmethod
    def _check_addresses(cls, base_url: str | None) -> str | None:
        return None if base_url is None else ",".join(addresses(base_url))

    @field_validator("prices")
    @classmethod
    def _check_prices(cls, prices: dict[str, Price]) -> dict[str, Price]:
        for reference, price in prices.items():
            if not all(term is None or 0 <= term < inf for term in price):  # a limit stops no call of such a price
                raise ConfigError(f"The price of {reference} is {tuple(price)}; expected finite numbers from 0 on.")
        return prices

    def loader(self, **options: Any) -> partial[LanguageModel]:
        """`load` for all models of a run, which share its spending limit. Takes the other options of `load`."""
        return partial(self.load, limit=self._limit(), **options)

    def _limit(self) -> "SpendingLimit | None":
        from promptmii.models.spending import SpendingLimit

        return None if self.max_cost is None else SpendingLimit(self.max_cost)

    def price(self, reference: str) -> Price | None:
        return self.prices.get(reference, self.prices.get("*"))

    def load(
        self,
        reference: str,
        *,
        keyless: bool = False,
        limit: "SpendingLimit | None" = None,
        deferred: "Deferred | None" = None,
        slots: AbstractAsyncContextManager[None] | None = None,
    ) -> LanguageModel:
        """Load a model. With `keyless`, its server gets no API key.

        `limit` is a spending limit shared with other models, `deferred` collects requests for the Batch API, `slots`
        limits requests across processes. Raises `ConfigError` for a limit without a price.
        """
        from promptmii.models.cache import Cached
        from promptmii.models.spending import Limited
        from promptmii.models.wrappers import Priced

        address = self.servers.get(reference)
        http = HttpConfig(
            base_url=address or self.base_url,
            api_key="" if keyless or address else None,
            served_by=self.served_by if address else "",
            concurrency=self.concurrency,
            patience=self.patience,
            context_length=self.context_length,
            deferred=deferred,
            slots=slots,
        )
        price, limit = self.price(reference), limit or self._limit()
        if limit and not price:
            raise ConfigError(f"--max-cost needs the price of {reference}: give --price {reference}=PROMPT,COMPLETION.")
        model = load_model(reference, http)
        if price:
            model = Limited(model, price, limit) if limit else Priced(model, price)
        return Cached(model, Path(self.cache)).open() if self.cache and ServerReference.parse(reference) else model


class InduceSettings(Settings):
    """How to write and measure an instruction."""

    n: int = Field(default=20, ge=1)
    """Examples the generator reads. Unless it is set, a small table lowers it to its training part."""
    generator: str = WRITER
    follower: str | None = None
    """Default: the generator without its adapters (`models.default_follower`)."""
    mode: Mode = "choose"
    calibration: Literal["auto", CalibrationKind] = "auto"
    """`auto`: `support` in `choose` mode if the follower gives likelihoods, else `none` (docs/models.md)."""
    shortlist: ShortlistKind = "auto"
    """How to preselect labels if there are more than 30. Needs `choose` mode with likelihoods."""
    best_of: int = Field(default=1, ge=1)
    """Drafts to write. The best one on an inner split of the support is used."""
    budget: int | None = Field(default=None, ge=8)
    """Maximum length of the instruction, in tokens."""
    template: str | None = None
    """File with your own prompt template for the generator."""
    start: str | None = None
    """A prompt for the generator to improve: the text itself, an instruction file, or a text file."""
    keep: tuple[str, ...] = ()
    """Lines of `start` that contain any of these words stay unchanged."""
    evaluate: int = Field(default=200, ge=0)
    """Held-back rows to measure on; 0 skips the measurement."""
    test: str | None = None
    """A table to measure on, instead of held-back rows."""
    seed: int = 0
    columns: Columns = Columns()
    endpoint: Endpoint = Endpoint()

    @field_validator("generator", "follower", mode="before")
    @classmethod
    def _check_reference(cls, model: object) -> object:
        if model is None or isinstance(model, str):
            return model
        raise ConfigError(
            f"The model is a {type(model).__name__}; expected a reference such as 'smol'. "
            "MetaInducer(Writer(model)) and PromptClassifier(model) write with a model object."
        )


class ServeSettings(Settings):
    """Servers that promptmii starts, watches and stops, for models `openai:<model>` without an address."""

    engine: str = "vllm"
    """`vllm`, `llama.cpp` (GGUF files, also on CPUs), or the command line of another OpenAI-compatible server, with
    the placeholders `{model}`, `{host}`, `{port}` and `{gpus}`. Short form: `serve = "vllm"`."""
    copies: int = Field(default=1, ge=1)
    """Servers of each model, which share the work."""
    gpus: int | dict[str, int] | None = None
    """GPUs per server, all on one machine; or a table by model reference, with `*` for all others.
    Default: one for vLLM, else none."""
    devices: tuple[int | str, ...] | None = None
    """CUDA devices for the servers, such as [4, 5, 6, 7]; default: those visible to this process."""
    options: tuple[str, ...] = ()
    """Extra command-line arguments, such as ["--max-model-len", "8192"]."""
    startup: float = Field(default=1800.0, gt=0)
    """Seconds that a server may take to start, weight loading included."""
    silence: float = Field(default=60.0, gt=0)
    """Seconds without an answer before a server is restarted."""

    @model_validator(mode="before")
    @classmethod
    def _expand_engine(cls, value: Any) -> Any:
        return {"engine": value} if isinstance(value, str) else value

    def needs(self, reference: str) -> int:
        """GPUs per server of a model."""
        default = 1 if self.engine == "vllm" else 0
        if isinstance(self.gpus, dict):
            return self.gpus.get(reference, self.gpus.get("*", default))
        return default if self.gpus is None else self.gpus


class RayOptions(Settings):
    """How to spread work over a Ray cluster."""

    address: str | None = None
    """Address of a running cluster (`auto` finds it); default: start one on this machine."""
    workers: int = Field(default=2, ge=1)
    """Worker processes, each with its own copy of the models."""
    cpus: float = Field(default=1, gt=0)
    """CPU cores per worker."""
    gpus: float = Field(default=0, ge=0)
    """GPUs per worker."""


class LoraSettings(Settings):
    """Train low-rank adapters instead of all weights."""

    rank: int = Field(default=16, ge=1)
    alpha: int | None = Field(default=None, ge=1)
    """Default: twice the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    modules: str | tuple[str, ...] = "all-linear"
    first_layer: int = Field(default=0, ge=0)
    """Layers below this one are not trained. No gradient flows through them, which saves compute."""
