"""The result of promptmii: an instruction, with everything needed to use and check it, and its cost.

An instruction is a frozen value that saves to one readable JSON file. The file holds the frame and the calibration
that it was measured with, so it labels texts the same way next year, with another version of this package, or
without promptmii (`messages` is plain text substitution).
"""

import json
import os
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AliasChoices, Field, FiniteFloat, ValidationError, field_validator, model_validator

from promptmii.calibration_kinds import CalibrationKind
from promptmii.errors import ArtefactError, ConfigError
from promptmii.exports import Prompt, rendered
from promptmii.files import write_text
from promptmii.markup import brief, table_html, text_html
from promptmii.messages import counted
from promptmii.models.base import Message, Price, Usage, known_sum
from promptmii.models.references import without_address
from promptmii.prompts import Template, follower_frame, frame_parts, frame_template
from promptmii.schema import Frozen, first_problem, storable
from promptmii.task import Support, check_labels, content_key, row_key

Mode = Literal["choose", "generate"]
EDITED = (
    "edited after it was measured: the score and the calibration of the old text are left out; "
    "fit it again with: promptmii calibrate"
)
BATCH_NOTE = "the batch calibration depends on the texts labelled together, so the instruction file does not hold it"


class Cost(Frozen):
    """Calls, tokens, seconds and money spent. `prompt_tokens` include cached ones; `None` means unknown, never zero."""

    calls: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    cached_tokens: int = 0
    seconds: float = 0.0
    money: float | None = None
    """In the currency of the price; `None` if the price or the tokens are unknown."""

    @classmethod
    def of(cls, usage: Usage, price: Price | None = None) -> "Cost":
        return cls(**asdict(usage), money=price.of(usage) if price else None)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            calls=self.calls + other.calls,
            prompt_tokens=known_sum(self.prompt_tokens, other.prompt_tokens),
            completion_tokens=known_sum(self.completion_tokens, other.completion_tokens),
            cached_tokens=self.cached_tokens + other.cached_tokens,
            seconds=self.seconds + other.seconds,
            money=None if self.unpriced or other.unpriced else (self.money or 0.0) + (other.money or 0.0),
        )

    @property
    def tokens(self) -> int | None:
        """Prompt and completion tokens together."""
        return known_sum(self.prompt_tokens, self.completion_tokens)

    @property
    def unpriced(self) -> bool:
        """True if there were calls whose price is unknown."""
        return self.money is None and self.calls > 0


class Calibration(Frozen):
    """Corrects label scores: `z_k = scale_k * logp_k + offset_k`, with `logp` normalised over the K labels."""

    kind: CalibrationKind
    scale: tuple[FiniteFloat, ...]
    offset: tuple[FiniteFloat, ...]
    belongs_to: str = ""
    """`text_key` of the instruction it was fitted to; empty in files of format 1."""


Similarity = Literal["embedding", "tfidf"]
ShortlistKind = Literal["auto", "embedding", "tfidf", "none"]
"""`auto` is `embedding` if minilm is installed, else `tfidf`; `none` always compares all labels."""


class Shortlist(Frozen):
    """Compares only the `size` labels whose lines in the instruction are most similar to a text (`shortlist.py`)."""

    by: Similarity
    size: int = Field(ge=2)
    recall: float
    """Share of the rows it was chosen on whose label it lists."""
    rows: int
    """Number of rows it was chosen on."""
    belongs_to: str
    """`text_key` of the instruction it was chosen for."""

    def __str__(self) -> str:
        return (
            f"a shortlist of {self.size} labels by {self.by}, recall {self.recall:.3f} on {counted(self.rows, 'row')}"
        )


class Measurement(Frozen):
    """A score with its interval and its counts."""

    macro_f1: float
    low: float
    high: float
    """95 % bootstrap interval over the query rows."""
    accuracy: float
    uncalibrated_macro_f1: float | None = None
    """Macro-F1 of the same answers without the calibration; `None` if there were no likelihoods."""
    n: int
    n_unparsed: int
    n_truncated: int
    prompt_tokens_per_query: float | None
    """`None` if the server did not report it."""
    shortlist_recall: float | None = None
    """Share of rows whose label was on their shortlist; `None` without a shortlist."""
    data_key: str
    """Content hash of the rows it was measured on."""
    belongs_to: str = ""
    """`key` of the instruction that was measured; empty in files of format 1."""

    def __str__(self) -> str:
        return f"macro-F1 {self.macro_f1:.3f} [{self.low:.3f}, {self.high:.3f}] on {counted(self.n, 'row')}"


class Provenance(Frozen):
    """The origin of an instruction, in enough detail to reproduce it."""

    n: int = 0
    """Number of support examples learned from; those that only helped to choose between drafts do not count."""
    seed: int = 0
    support_key: str = ""
    """Content hash of labels and examples."""
    support_rows: tuple[str, ...] = ()
    """Hashes of the texts it was made from or calibrated on, which must never measure it."""
    source: str = ""
    text_template: str | None = None
    """The template that joined several columns into a text; `None` for a single column."""
    text_columns: tuple[str, ...] = ()
    label_column: str | None = None
    meta_template: str | None = None
    """Key of the generator's template."""
    style: str | None = None
    """Key of the style; `None` means promptmii's own."""
    notes: tuple[str, ...] = ()
    """Notes for the user: examples that did not fit, a trimmed text, copied phrases."""
    version: str = ""
    """Version of promptmii."""


class Instruction(Frozen):
    """A reusable instruction for one classification task."""

    format: Literal[2] = 2
    """Format 1, which lacks `calibration_cost`, `support_rows` and `belongs_to`, can still be read."""
    text: str
    """The instruction itself; empty for the naive method, the examples for ICL."""
    labels: tuple[str, ...]
    method: str
    frame: str = Field(default_factory=lambda: follower_frame().text)
    """The template that combines instruction, labels and text."""
    longest_answer: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices("longest_answer", "answer"),  # the name in older files
    )
    """Token limit of generated answers; a truncated answer names no label. `None` allows the longest label."""
    generator: str | None = None
    """The model that wrote it."""
    follower: str | None = None
    """The model that it was calibrated and measured with."""
    mode: Mode | None = None
    calibration: Calibration | None = None
    shortlist: Shortlist | None = None
    """`None` compares all labels for each text."""
    cost: Cost = Cost()
    """Cost of making the text."""
    calibration_cost: Cost = Cost()
    """Cost of fitting the calibration; files of format 1 include it in `cost`."""
    provenance: Provenance = Provenance()
    measured: Measurement | None = None

    def __repr__(self) -> str:
        score = f", {self.measured}" if self.measured else ""
        return f"<Instruction {self.method}, {len(self.labels)} labels{score}: {brief(self.text)!r}>"

    def _repr_html_(self) -> str:
        facts = [("labels", ", ".join(self.labels)), ("method", self.method), ("measured", self._measured_with)]
        return text_html(self.text or "(empty)") + table_html((), facts)

    @property
    def template(self) -> Template:
        """The frame as a template."""
        return frame_template(self.frame)

    @field_validator("format", mode="before")
    @classmethod
    def _read_format_1(cls, value: object) -> object:
        return 2 if value == 1 else value

    @field_validator("text", "frame")
    @classmethod
    def _without_surrogates(cls, text: str) -> str:
        """The text as `save` can write it: JSON may name half of a character, but UTF-8 cannot hold it."""
        return storable(text)

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        check_labels(self.labels, "The instruction")
        _ = self.template  # raises `ConfigError` unless it has each slot once
        if self.calibration and {len(self.calibration.scale), len(self.calibration.offset)} != {len(self.labels)}:
            raise ValueError(
                f"the calibration must have one scale and one offset for each of {len(self.labels)} labels"
            )
        return self

    @property
    def key(self) -> str:
        """Content hash of everything that a follower's answers depend on."""
        calibration = self.calibration.model_dump(exclude={"belongs_to"}) if self.calibration else None
        limit = [] if self.longest_answer is None else [self.longest_answer]
        shortlist = [own.by, own.size] if (own := self.own_shortlist) else []
        return content_key([self.text, self.labels, self.frame, calibration, *limit, *shortlist])

    @property
    def text_key(self) -> str:
        """Content hash of everything that a calibration depends on: text, labels and frame."""
        return content_key([self.text, self.labels, self.frame])

    @property
    def calibration_kind(self) -> CalibrationKind:
        """The kind of calibration that it was measured with; a `batch` one leaves only its note."""
        if BATCH_NOTE in self.provenance.notes:
            return "batch"
        return self.calibration.kind if self.calibration else "none"

    @property
    def is_calibrated(self) -> bool:
        """True if it has a calibration that was fitted to this text."""
        return self.calibration is not None and self.calibration.belongs_to in ("", self.text_key)

    @property
    def own_shortlist(self) -> Shortlist | None:
        """The shortlist, unless it was chosen for another text."""
        return self.shortlist if self.shortlist and self.shortlist.belongs_to == self.text_key else None

    def measured_as(self, measurement: Measurement) -> Self:
        """A copy with this score."""
        return self.model_copy(update={"measured": measurement.model_copy(update={"belongs_to": self.key})})

    def fitted_on(self, support: Support) -> Self:
        """A copy whose `support_rows` include the support's texts."""
        hashes = (*self.provenance.support_rows, *(row_key(example.text) for example in support.examples))
        return self.with_provenance(support_rows=tuple(dict.fromkeys(hashes)))

    def noted(self, *notes: str) -> Self:
        return self.with_provenance(notes=tuple(dict.fromkeys((*self.provenance.notes, *notes))))

    def without_notes(self, *notes: str) -> Self:
        return self.with_provenance(notes=tuple(note for note in self.provenance.notes if note not in notes))

    def with_provenance(self, **changes: Any) -> Self:
        return self.model_copy(update={"provenance": self.provenance.model_copy(update=changes)})

    def _without_stale(self) -> Self:
        """A copy without a score, a calibration or a shortlist that belongs to another text."""
        is_stale = {
            "measured": self.measured and self.measured.belongs_to not in ("", self.key),
            "calibration": self.calibration and not self.is_calibrated,
            "shortlist": self.shortlist and not self.own_shortlist,
        }
        stale = [name for name, outdated in is_stale.items() if outdated]
        return self.model_copy(update=dict.fromkeys(stale)).noted(EDITED) if stale else self

    @property
    def text_source(self) -> str | tuple[str, ...] | None:
        """The template or the columns that texts were made from; `None` if unknown."""
        return self.provenance.text_template or self.provenance.text_columns or None

    def prompt(self, text: str) -> str:
        """The whole prompt for one text."""
        before, after = _parts(self.frame, self.text, self.labels)
        return before + self.template.format_text(text) + after

    def messages(self, text: str) -> list[Message]:
        """The chat that labels `text`, for any OpenAI-compatible client."""
        return [{"role": "user", "content": self.prompt(text)}]

    def export(self, to: str, path: str | os.PathLike[str] | None = None, *, force: bool = False) -> str:
        """The prompt as code for another tool, one of `promptmii.exports.TARGETS`; also written to `path` if given.

        It sends exactly what `messages` returns. Raises `ConfigError` for an unknown tool, `OutputError` if the
        file exists (unless `force`).
        """
        if self.template.is_raw:
            raise ConfigError("This instruction's prompt template shows texts unquoted, but exported code quotes them.")
        if to == "llama.cpp" and self.is_calibrated and self.own_shortlist:
            raise ConfigError(
                "The calibration is for shortlists of labels, which exported code does not make. Use promptmii "
                "predict, or make the instruction with: promptmii induce --shortlist none"
            )
        before, after = _parts(self.frame, self.text, self.labels)
        scale, offset = (1.0,) * len(self.labels), (0.0,) * len(self.labels)
        if self.calibration and self.is_calibrated:
            scale, offset = self.calibration.scale, self.calibration.offset
        prompt = Prompt(before, after, self.labels, self.follower or "", self._measured_with, scale, offset)
        code = rendered(to, prompt)
        if path is not None:
            write_text(Path(path), code, force=force)
        return code

    @property
    def _measured_with(self) -> str:
        if not self.measured:
            return "not measured"
        shortlist = f", {own}" if (own := self.own_shortlist) else ""
        follower = without_address(str(self.follower))
        return f"{self.measured}, by {follower}, {self.mode}, calibration {self.calibration_kind}{shortlist}"

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write to one JSON file, atomically. Raises `OutputError` if it exists (unless `force`)."""
        content = json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=2) + "\n"
        return write_text(Path(path), storable(content), force=force)  # a model's path need not be valid Unicode

    @classmethod
    def of(cls, source: "Instruction | str | os.PathLike[str]") -> "Instruction":
        """The instruction itself, or the one loaded from its file. Raises like `load`."""
        return source if isinstance(source, Instruction) else cls.load(source)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Instruction":
        """Read a file written by `save`. If its text was edited, drops the old score and calibration, with a note.

        Raises `ArtefactError` with the first problem in the file.
        """
        try:
            fields = json.loads(Path(path).read_bytes().decode("utf-8-sig"), object_pairs_hook=_unique)
            return cls.model_validate(fields)._without_stale()
        except OSError as error:
            raise ArtefactError(f"The instruction file {path} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            problem = first_problem(error, "the file")
        except json.JSONDecodeError as error:
            problem = f"it is not JSON ({error})"
        except (ValueError, RecursionError) as error:
            problem = f"the file: {error}"
        raise ArtefactError(
            f"{path} is not an instruction file of format 2: {problem}. Make one with: promptmii induce"
        )


@lru_cache(maxsize=32)
def _parts(frame: str, text: str, labels: tuple[str, ...]) -> tuple[str, str]:
    """The prompt before and after the text. No cached property: a copy with another text would keep the old parts."""
    return frame_parts(frame_template(frame), text, labels)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises `ValueError` on a key that occurs twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated!r} occurs twice")
    return fields
