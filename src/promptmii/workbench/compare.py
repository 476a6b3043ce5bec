"""Compare prompts on the same rows: instructions, texts, and methods that write nothing."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias
from xml.etree import ElementTree

from promptmii import metrics
from promptmii.config import Columns
from promptmii.data import Source
from promptmii.errors import ConfigError
from promptmii.follower import Follower, Predictor, resolve_calibration
from promptmii.inducers import METHODS, Kit, Method, SFTMethod, Writer, WrittenBy, method_named
from promptmii.inputs import (
    Prompt,
    RowSplit,
    instruction_from_text,
    load_task_for,
    prompt_name,
    read_prompt,
    split_rows,
)
from promptmii.instruction import EDITED, Instruction
from promptmii.measured import Measured, differences, measure, measured_html
from promptmii.messages import counted, listed, nearest
from promptmii.progress import QUIET, Progress
from promptmii.scoring import caveats
from promptmii.task import Support
from promptmii.workbench.followers import FollowerLike, open_followers
from promptmii.workbench.formats import csv_text
from promptmii.workbench.measure import bind, fit_calibration

COMPARABLE = [
    name
    for name, kind in METHODS.items()
    if kind.written_by is WrittenBy.NOBODY and not (kind.needs_human or kind.reads_all or kind is SFTMethod)
]
"""Methods that need nothing but examples and a follower."""
ROW_COLUMNS = ("text", "label")
"""Columns of a disagreement before those of the prompts, which therefore cannot have these names."""
EXAMPLES = 20
"""Examples to draw for a comparison, unless a prompt was made from more."""


class Check(NamedTuple):
    """A condition that a comparison must meet, for continuous integration."""

    name: str
    failure: str | None
    """Why the check failed, or `None` if it passed."""


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`. The first prompt is the candidate."""

    rows: tuple[Measured, ...]
    differences: dict[str, metrics.Difference]
    """The candidate minus each other prompt, by its name. The p-values are Holm-adjusted."""
    notes: tuple[str, ...]

    @cached_property
    def disagreements(self) -> list[dict[str, str]]:
        """The rows on which the prompts disagree: text, label, and the label under each prompt."""
        answers = {row.name: row.scored.labels for row in self.rows}
        return [
            {"text": row.text, "label": row.label} | {name: labels[i] or "" for name, labels in answers.items()}
            for i, row in enumerate(self.rows[0].scored.query)
            if len({labels[i] for labels in answers.values()}) > 1
        ]

    def checks(self, *, at_least: float | None = None, not_worse: bool = False) -> list[Check]:
        """Check that the candidate's macro-F1 is `at_least` this, and not significantly worse than any other."""
        candidate = self.rows[0]
        checks: list[Check] = []
        if at_least is not None:
            f1 = candidate.macro_f1 or 0.0
            failure = None if f1 >= at_least else f"macro-F1 is {f1:.3f} on {candidate.scored.n} rows"
            checks.append(Check(f"{candidate.name}: macro-F1 is at least {at_least:g}", failure))
        if not_worse:
            for name, d in self.differences.items():
                failure = str(d) if d.mean < 0 and d.beyond_noise else None
                checks.append(Check(f"{candidate.name}: not worse than {name}", failure))
        return checks

    def __repr__(self) -> str:
        scores = ", ".join(f"{row.name} {row.macro_f1:.3f}" for row in self.rows)
        return f"<Comparison on {counted(self.rows[0].scored.n, 'row')}: {scores}>"

    def _repr_html_(self) -> str:
        return measured_html(self.rows, self.differences)

    def as_json(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "rows": [
                {
                    "name": row.name,
                    "method": row.instruction.method,
                    "follower": row.instruction.follower,
                    "mode": row.instruction.mode,
                    "measured": row.scored.measurement().model_dump(),
                    "spent": row.spent.model_dump(),
                }
                for row in self.rows
            ],
            "differences": {name: asdict(difference) for name, difference in self.differences.items()},
            "disagreements": self.disagreements,
            "notes": self.notes,
        }

    def csv(self) -> str:
        """The disagreements as CSV with a header."""
        return csv_text([*ROW_COLUMNS, *(row.name for row in self.rows)], self.disagreements)


def junit(checks: Sequence[Check]) -> str:
    """The checks as a JUnit report."""
    failed = str(sum(check.failure is not None for check in checks))
    counts = {"tests": str(len(checks)), "failures": failed, "errors": "0", "skipped": "0"}
    suite = ElementTree.Element("testsuite", {"name": "promptmii compare"} | counts)
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname="promptmii.compare", name=check.name)
        if check.failure is not None:
            ElementTree.SubElement(case, "failure", message=check.failure).text = check.failure
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def compare(
    prompts: Prompt | Sequence[Prompt] | Mapping[str, Prompt],
    source: Source,
    follower: FollowerLike = None,
    columns: Columns | None = None,
    *,
    examples: Source | None = None,
    n: int | None = None,
    progress: Progress = QUIET,
) -> Comparison:
    """Measure one or several instructions, texts or methods (`naive`, `icl`, ...) on the same rows of `source`.

    A mapping names the prompts. ICL shows examples, and texts and edited instructions are calibrated on them: the rows
    of `examples`, or the rows of `source` that a prompt was made from, or else `n` drawn rows if a prompt needs any. No
    example is a test row. Raises `ScoreRefusedError` if a call fails.
    """
    if n is not None and n < 1:
        raise ConfigError(f"n is {n}; expected at least one example.")
    entries = _entries(prompts)
    instructions = [entry for entry in entries.values() if isinstance(entry, Instruction)]
    first = instructions[0] if instructions else None
    columns = columns or Columns()
    known = tuple(dict.fromkeys(label for instruction in instructions for label in instruction.labels))
    loaded = load_task_for(first, source, columns, known)
    labels = loaded.task.labels
    columns = columns.model_copy(update={"labels": labels})
    rows = split_rows(
        loaded,
        {key for instruction in instructions for key in instruction.provenance.support_rows},
        n or max([EXAMPLES, *(instruction.provenance.n for instruction in instructions)]),
        examples=() if examples is None else load_task_for(first, examples, columns).task.rows,
        draw=any(_needs_examples(entry) for entry in entries.values()),
    )
    results: list[Measured] = []
    with open_followers(follower, progress) as followers:
        for name, entry in entries.items():
            instruction = _initial_instruction(entry, labels, first)
            bound = followers.of(instruction)
            if rows.examples and bound.mode == "choose":
                followers.progress.step(f"Calibrating {name}", len(rows.examples))
            predictor, prepared = _prepare(entry, instruction, bound, rows)
            followers.progress.step(f"Scoring {name}", len(rows.query))
            result = measure(name, predictor, prepared, rows.query, bound.model.card.price)
            result.refuse_failures()
            results.append(result)
    notes = (*rows.notes, *_notes(results, labels), *caveats({row.name: row.scored for row in results}))
    return Comparison(tuple(results), differences(results), notes)


_Entry: TypeAlias = Instruction | str | Method


def _entries(prompts: Prompt | Sequence[Prompt] | Mapping[str, Prompt]) -> dict[str, _Entry]:
    """The prompts by name. Raises `ConfigError`."""
    if isinstance(prompts, Instruction | str | os.PathLike):
        prompts = (prompts,)
    if not prompts:
        raise ConfigError(
            f"Nothing is given to compare; expected instruction files, texts, or {', '.join(COMPARABLE)}."
        )
    if isinstance(prompts, Mapping):
        if reserved := [name for name in prompts if name in ROW_COLUMNS]:
            raise ConfigError(f"A prompt cannot be named {reserved[0]!r}: a column of the results has that name.")
        return {name: _entry(prompt) for name, prompt in prompts.items()}
    entries: dict[str, _Entry] = {}
    for prompt in prompts:
        name, entry = prompt_name(prompt), _entry(prompt)
        while name in entries or name in ROW_COLUMNS:
            if entries.get(name) == entry and not isinstance(prompt, Instruction):
                raise ConfigError(f"{prompt_name(prompt)!r} is given twice; name each once.")
            name += "'"
        entries[name] = entry
    return entries


def _entry(prompt: Prompt) -> _Entry:
    return _method(prompt) if isinstance(prompt, str) and prompt in METHODS else read_prompt(prompt)


def _method(name: str) -> Method:
    if name not in COMPARABLE:
        raise ConfigError(
            f"The method {name!r} is written or trained first: make a file with promptmii induce, or run promptmii "
            f"evaluate. {nearest(name, COMPARABLE)}"
        )
    return method_named(name)


def _needs_examples(entry: _Entry) -> bool:
    """Whether to draw examples for a prompt. Rows are worth more for measuring than for calibrating a text."""
    if isinstance(entry, Method):
        return entry.reads_examples
    return isinstance(entry, Instruction) and _is_edited(entry) and entry.mode != "generate"


def _is_edited(entry: Instruction) -> bool:
    return EDITED in entry.provenance.notes or (entry.calibration is not None and not entry.is_calibrated)


def _initial_instruction(entry: _Entry, labels: Sequence[str], first: Instruction | None) -> Instruction:
    """The instruction of an entry, not yet calibrated. A text or method gets the follower of the first instruction."""
    if isinstance(entry, Instruction):
        return entry
    if isinstance(entry, str):
        instruction = instruction_from_text(entry, labels)
    else:
        instruction = Instruction(text="", labels=tuple(labels), method=entry.name)
    return instruction.model_copy(update={"follower": first.follower, "mode": first.mode}) if first else instruction


def _prepare(
    entry: _Entry, instruction: Instruction, follower: Follower, rows: RowSplit
) -> tuple[Predictor, Instruction]:
    """The predictor and its instruction, calibrated on the examples unless its own calibration applies."""
    kind = resolve_calibration("auto", follower.mode, follower.model.card) if rows.examples else "none"
    if isinstance(entry, Method):
        support = Support(instruction.labels, rows.examples)
        kit = Kit(Writer(follower.model), replace(follower, calibration=kind))
        predictor = entry.predictor(kit, support, 0)
        return predictor, predictor.prepare(entry.inducer(kit).induce(support), support)
    is_foreign = follower.own_calibration(instruction) is not instruction.calibration
    if kind != "none" and (isinstance(entry, str) or _is_edited(instruction) or is_foreign):
        kind = instruction.calibration.kind if instruction.calibration else kind
        return follower, fit_calibration(instruction, replace(follower, calibration=kind), rows.examples)
    return follower, bind(follower, instruction)


def _notes(rows: Sequence[Measured], labels: Sequence[str]) -> tuple[str, ...]:
    """Notes on anything that makes the comparison unfair."""
    notes: list[str] = []
    for row in rows:
        unknown = [label for label in labels if label not in row.instruction.labels]
        if unknown:
            notes.append(f"{row.name} does not know {listed(unknown, 4)}, so such rows are misses")
    followers = {row.name: row.instruction.follower for row in rows if row.instruction.follower}
    modes = {row.name: row.instruction.mode for row in rows if row.instruction.mode}
    for title, by_row in (("followers", followers), ("modes", modes)):
        if len(set(by_row.values())) > 1:
            notes.append(f"different {title}: {', '.join(f'{name}: {value}' for name, value in by_row.items())}")
    calibratable = [row for row in rows if row.scored.uncalibrated_macro_f1 is not None]
    uncalibrated = [row.name for row in calibratable if row.instruction.calibration is None]
    if uncalibrated and len(uncalibrated) < len(calibratable):
        remedy = "promptmii compare --examples ROWS calibrates them"
        notes.append(f"not calibrated, as others are: {', '.join(uncalibrated)} ({remedy})")
    return tuple(notes)
