"""The result of promptmii: an instruction, and everything one needs to use it, to check it and to know what it cost.

It is a frozen value that saves to one readable JSON file. The file holds the frame and the calibration with
which it was measured, so it labels texts the same way next year, with another version of this package, or
with no promptmii at all (`messages` is plain text substitution).
"""

import json
import os
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from pydantic import Field, FiniteFloat, ValidationError, field_validator, model_validator

from promptmii.calibration_kinds import CalibrationKind
from promptmii.errors import ArtefactError, ConfigError, counted
from promptmii.exports import Prompt, rendered
from promptmii.files import write_text
from promptmii.models.base import Message, Price, Usage, known_sum
from promptmii.notebook import brief, facts_html, text_html
from promptmii.prompts import FRAME_SLOTS, Template, follower_frame, frame_parts
from promptmii.schema import Frozen
from promptmii.task import Support, check_labels, content_key, row_key

Mode = Literal["choose", "generate"]
EDITED = (
    "edited after it was measured: the score and the calibration of the old text are left out; "
    "fit it again with: promptmii calibrate"
)


class Cost(Frozen):
    """What it took to make something. Cached tokens are part of `prompt_tokens`; `None` is unknown, never zero."""

    calls: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    cached_tokens: int = 0
    seconds: float = 0.0
    money: float | None = None
    """In the currency of the price given; `None` where the price or the tokens are unknown."""

    @classmethod
    def of(cls, usage: Usage, price: Price | None = None) -> "Cost":
        """The cost of what a model consumed."""
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
        """Read and written."""
        return known_sum(self.prompt_tokens, self.completion_tokens)

    @property
    def unpriced(self) -> bool:
        """Something was spent, and nobody knows what it costs."""
        return self.money is None and self.calls > 0


class Calibration(Frozen):
    """Corrects label scores: `z_k = scale_k * logp_k + offset_k`, with `logp` normalised over the K labels."""

    kind: CalibrationKind
    scale: tuple[FiniteFloat, ...]
    offset: tuple[FiniteFloat, ...]
    belongs_to: str = ""
    """`text_key` of the instruction that it was fitted to; empty in files of format 1."""


Similarity = Literal["embedding", "tfidf"]
ShortlistKind = Literal["auto", "embedding", "tfidf", "none"]
"""`auto` is `embedding` where minilm is installed, else `tfidf`; `none` compares all labels, however many."""


class Shortlist(Frozen):
    """Only the `size` labels whose own lines are most like a text are compared for it (`promptmii.shortlist`)."""

    by: Similarity
    size: int = Field(ge=2)
    recall: float
    """Share of the rows it was chosen on whose label was among them."""
    rows: int
    belongs_to: str
    """`text_key` of the instruction whose lines it was chosen for."""

    def __str__(self) -> str:
        """What it is, in a line."""
        return (
            f"a shortlist of {self.size} labels by {self.by}, recall {self.recall:.3f} on {counted(self.rows, 'row')}"
        )


class Measurement(Frozen):
    """A score with its interval and its counts. There is no number without the counts."""

    macro_f1: float
    low: float
    high: float
    """95 % bootstrap interval over the query rows."""
    accuracy: float
    uncalibrated_macro_f1: float | None = None
    """From the same answers without the calibration; `None` if there were no likelihoods."""
    n: int
    n_unparsed: int
    n_truncated: int
    prompt_tokens_per_query: float | None
    """`None` if the server did not say."""
    shortlist_recall: float | None = None
    """Share of rows whose label was on their shortlist; `None` if there was none."""
    data_key: str
    """Content hash of the rows it was measured on."""
    belongs_to: str = ""
    """`key` of the instruction that was measured; empty in files of format 1."""

    def __str__(self) -> str:
        """The score in a line."""
        return f"macro-F1 {self.macro_f1:.3f} [{self.low:.3f}, {self.high:.3f}] on {counted(self.n, 'row')}"


class Provenance(Frozen):
    """Where the instruction comes from, enough to make it again."""

    n: int = 0
    """Support examples that went in."""
    seed: int = 0
    support_key: str = ""
    """Content hash of labels and examples."""
    support_rows: tuple[str, ...] = ()
    """Hashes of the texts that the instruction was made from or calibrated on; they must not measure it."""
    source: str = ""
    text_template: str | None = None
    """How several columns were joined to one text; `None` for a single column."""
    text_columns: tuple[str, ...] = ()
    label_column: str | None = None
    meta_template: str | None = None
    """Key of the generator's template."""
    style: str | None = None
    """Key of the style; `None`: promptmii's own."""
    notes: tuple[str, ...] = ()
    """What a user should know: examples that did not fit, a trimmed text, copied phrases."""
    version: str = ""
    """Of promptmii."""


class Instruction(Frozen):
    """A reusable instruction for one classification task."""

    format: Literal[2] = 2
    """1 lacks `calibration_cost`, `support_rows` and `belongs_to`. It can be read."""
    text: str
    """The instruction itself; empty for the naive method, the examples for ICL."""
    labels: tuple[str, ...]
    method: str
    frame: str = Field(default_factory=lambda: follower_frame().text)
    """The template that puts instruction, labels and text together."""
    answer: int | None = Field(default=None, ge=1)
    """Most tokens of a generated answer; one that is cut there names no label. `None`: as the labels need."""
    generator: str | None = None
    """Reference of the model that wrote it."""
    follower: str | None = None
    """Reference of the model that it was calibrated and measured with."""
    mode: Mode | None = None
    calibration: Calibration | None = None
    shortlist: Shortlist | None = None
    """`None`: all labels are compared for each text."""
    cost: Cost = Cost()
    """Of making the text."""
    calibration_cost: Cost = Cost()
    """Of fitting the calibration; files of format 1 count it in `cost`."""
    provenance: Provenance = Provenance()
    measured: Measurement | None = None

    def __repr__(self) -> str:
        score = f", {self.measured}" if self.measured else ""
        return f"<Instruction {self.method}, {len(self.labels)} labels{score}: {brief(self.text)!r}>"

    def _repr_html_(self) -> str:
        facts = {"labels": ", ".join(self.labels), "method": self.method, "measured": self._measured_with}
        return text_html(self.text or "(empty)") + facts_html(facts)

    @property
    def template(self) -> Template:
        """The frame as a template."""
        return _frame(self.frame)

    @field_validator("format", mode="before")
    @classmethod
    def _read_format_1(cls, given: object) -> object:
        return 2 if given == 1 else given

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        check_labels(self.labels, "The instruction")
        if self.calibration and {len(self.calibration.scale), len(self.calibration.offset)} != {len(self.labels)}:
            raise ValueError(
                f"the calibration must have one scale and one offset for each of {len(self.labels)} labels"
            )
        return self

    @property
    def key(self) -> str:
        """Content hash of what a follower's answers depend on."""
        calibration = self.calibration.model_dump(exclude={"belongs_to"}) if self.calibration else None
        limit = [] if self.answer is None else [self.answer]
        listed = [self.shortlist.by, self.shortlist.size] if self.shortlist and self.shortlists else []
        return content_key([self.text, self.labels, self.frame, calibration, *limit, *listed])

    @property
    def text_key(self) -> str:
        """Content hash of what a calibration depends on: text, labels and frame."""
        return content_key([self.text, self.labels, self.frame])

    @property
    def calibrates(self) -> bool:
        """There is a calibration, and it was fitted to this text."""
        return self.calibration is not None and self.calibration.belongs_to in ("", self.text_key)

    @property
    def shortlists(self) -> bool:
        """There is a shortlist, and it was chosen for this text."""
        return self.shortlist is not None and self.shortlist.belongs_to == self.text_key

    def measured_as(self, measurement: Measurement) -> Self:
        """The same with its score."""
        return self.model_copy(update={"measured": measurement.model_copy(update={"belongs_to": self.key})})

    def fitted_on(self, support: Support) -> Self:
        """The same with hashes of the support's texts, which must not measure it."""
        rows = (*self.provenance.support_rows, *(row_key(example.text) for example in support.examples))
        made = self.provenance.model_copy(update={"support_rows": tuple(dict.fromkeys(rows))})
        return self.model_copy(update={"provenance": made})

    def noted(self, *notes: str) -> Self:
        """The same with more notes."""
        made = self.provenance.model_copy(update={"notes": tuple(dict.fromkeys((*self.provenance.notes, *notes)))})
        return self.model_copy(update={"provenance": made})

    def _honest(self) -> Self:
        """Without a calibration, a shortlist or a score that belongs to another text."""
        foreign = {
            "measured": self.measured and self.measured.belongs_to not in ("", self.key),
            "calibration": self.calibration and not self.calibrates,
            "shortlist": self.shortlist and not self.shortlists,
        }
        lost = [name for name, is_foreign in foreign.items() if is_foreign]
        return self.model_copy(update=dict.fromkeys(lost)).noted(EDITED) if lost else self

    @property
    def text_source(self) -> str | tuple[str, ...] | None:
        """The template, or else the columns, that a text was made from; `None` where nobody said."""
        return self.provenance.text_template or self.provenance.text_columns or None

    def prompt(self, text: str) -> str:
        """The whole prompt for one text."""
        before, after = _parts(self.frame, self.text, self.labels)
        return before + _frame(self.frame).written(text) + after

    @property
    def longest_prompt(self) -> str:
        """The longest prompt that there can be, without the text."""
        return self.prompt("")

    def messages(self, text: str) -> list[Message]:
        """The chat to send to any OpenAI-compatible client in order to label `text`."""
        return [{"role": "user", "content": self.prompt(text)}]

    def export(self, to: str, path: str | os.PathLike[str] | None = None, *, force: bool = False) -> str:
        """The prompt as code for another tool, one of `promptmii.exports.TARGETS`; written to `path` if there is one.

        It sends what `messages` gives, byte for byte. Raises `ConfigError` for an unknown tool, `OutputError` if the
        file exists (unless `force`).
        """
        if self.template.layout("text"):
            raise ConfigError("The frame of this instruction shows texts unquoted, but exported code quotes them.")
        before, after = _parts(self.frame, self.text, self.labels)
        calibration = self.calibration if self.calibrates and self.calibration else None
        code = rendered(
            to,
            Prompt(
                before,
                after,
                self.labels,
                model=(self.follower or "").partition("@http")[0].removeprefix("openai:").removeprefix("hf:"),
                measured=self._measured_with,
                scale=calibration.scale if calibration else (1.0,) * len(self.labels),
                offset=calibration.offset if calibration else (0.0,) * len(self.labels),
            ),
        )
        if path is not None:
            write_text(Path(path), code, force=force)
        return code

    @property
    def _measured_with(self) -> str:
        how = f"{self.follower}, {self.mode}, calibration {self.calibration.kind if self.calibration else 'none'}"
        how += f", {self.shortlist}" if self.shortlist and self.shortlists else ""
        return f"{self.measured}, by {how}" if self.measured else "not measured"

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write to one JSON file, whole or not at all. Raises `OutputError` if it exists (unless `force`)."""
        return write_text(
            Path(path), json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=2) + "\n", force=force
        )

    @classmethod
    def of(cls, given: "Instruction | str | os.PathLike[str]") -> "Instruction":
        """The instruction, or that of its file. Raises as `load` does."""
        return given if isinstance(given, Instruction) else cls.load(given)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Instruction":
        """Read what `save` wrote. A score or calibration that belongs to another text is left out, with a note.

        Raises `ArtefactError` with the first thing that is wrong.
        """
        try:
            fields = json.loads(Path(path).read_bytes().decode("utf-8"), object_pairs_hook=_unique)
            return cls.model_validate(fields)._honest()
        except OSError as error:
            raise ArtefactError(f"The instruction file {path} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            wrong = f"{where}: {first['msg'].rstrip('.')}"
        except json.JSONDecodeError as error:
            wrong = f"it is not JSON ({error})"
        except (ValueError, RecursionError) as error:
            wrong = f"the file: {error}"
        raise ArtefactError(f"{path} is not an instruction file of format 2: {wrong}. Make one with: promptmii induce")


@lru_cache(maxsize=32)
def _parts(frame: str, text: str, labels: tuple[str, ...]) -> tuple[str, str]:
    """Of a prompt, before and after the text. No cached property: a copy with another text would keep the old parts."""
    return frame_parts(_frame(frame), text, labels)


@lru_cache(maxsize=32)
def _frame(frame: str) -> Template:
    return Template(frame, FRAME_SLOTS)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises `ValueError` on a key that occurs twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return fields


def export(
    instruction: Instruction | str | os.PathLike[str],
    to: str,
    path: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
) -> str:
    """`Instruction.export`, also of an instruction's file."""
    return Instruction.of(instruction).export(to, path, force=force)


class Inducer(Protocol):
    """A method that turns examples into an instruction. The evaluation treats all of them alike.

    Contract, checked for every implementation: the labels are the support's, in order; equal support and seed give an
    equal text; the cost covers every model call; a failed call raises and never becomes an empty instruction.
    """

    @property
    def name(self) -> str:
        """The method's name in tables and records."""
        ...

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """Make an instruction from the support alone. Raises `EndpointError` when the model gives no answer."""
        ...
