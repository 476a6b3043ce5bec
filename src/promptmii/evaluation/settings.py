"""Settings of an evaluation. Those of single methods are tables of their own, defined where the method is."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from promptmii.config import Columns, Endpoint, RayOptions
from promptmii.inducers import METHODS, Method, method
from promptmii.instruction import CalibrationKind, Mode
from promptmii.models import DEFAULT
from promptmii.schema import Settings


def default_methods() -> tuple[str, ...]:
    """The methods of a grid that names none."""
    return tuple(name for name, method in METHODS.items() if method.by_default)


class EvaluateSettings(Settings):
    """The grid: every task x method x n x seed x generator x follower."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """Task files, folders of them, `hub:...`, `suite`, or a corpus (held-out split, or `FOLDER:validation`)."""
    methods: tuple[str, ...] = Field(default_factory=default_methods, min_length=1)
    n: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(5, 10, 20, 50, 100), min_length=1)
    seeds: int = Field(default=3, ge=1, le=1000)
    """Draws of the support, from seed 0 up. All of them share one query."""
    evaluate: int = Field(default=200, ge=1)
    """Test rows of each task."""
    nameless: bool = False
    """Replace label names by meaningless ones (A, 7, class 3), to see what an instruction carries by itself."""
    generators: tuple[str, ...] = Field(default=(DEFAULT,), min_length=1)
    """Models under test: they write for the methods that are `WrittenBy.GENERATOR`."""
    followers: tuple[str, ...] = Field(default=(DEFAULT,), min_length=1)
    untrained: tuple[str, ...] = ()
    """Models as they were published, for `WrittenBy.UNTRAINED`; without any, each follower writes for itself."""
    searcher: str | None = None
    """Model that proposes in searches, for `WrittenBy.SEARCHER`; `None`: each follower proposes for itself."""
    mode: Mode = "choose"
    calibration: CalibrationKind | Literal["auto"] = "auto"
    budget: int | None = Field(default=None, ge=8)
    """Most tokens of an instruction."""
    template: str | None = None
    """File with a template for the generators."""
    workers: int = Field(default=16, ge=1)
    """Cells under way at once. Local models then write for several cells in one batch."""
    options: dict[str, dict[str, Any]] = Field(default_factory=dict[str, dict[str, Any]])
    """Options of single methods by their names: `{"ape": {"calls": 500}}`."""
    columns: Columns = Columns()
    endpoint: Endpoint = Endpoint()
    ray: RayOptions | None = None

    @model_validator(mode="after")
    def _check_methods(self) -> Self:
        for name in (*self.methods, *self.options):
            self.method(name)
        return self

    def method(self, name: str) -> Method:
        """A method with its options. Raises `ConfigError`."""
        return method(name, self.options.get(name))
