"""Compare prompts on the same rows: instructions, texts, and methods that need no writer."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias
from xml.etree import ElementTree

from promptmii import metrics
from promptmii.config import Columns
from promptmii.data import Source
from promptmii.errors import ConfigError, counted, listed, nearest
from promptmii.follower import Follower, Predictor, resolve_calibration
from promptmii.inducers import METHODS, Kit, Method, SFTMethod, Writer, WrittenBy, method_named
from promptmii.instruction import EDITED, Instruction
from promptmii.progress import QUIET, Progress
from promptmii.task import Support
from promptmii.workbench.followers import Answering, answering
from promptmii.workbench.formats import csv_text
from promptmii.workbench.given import Prompt, Rows, divided, name_of, read, table_of, written
from promptmii.workbench.measure import Measured, answered_by, fitted, measured, measured_html, refuse_failures

FIXED = [
    name
    for name, kind in METHODS.items()
    if kind.written_by is WrittenBy.NOBODY and not (kind.needs_human or kind.reads_all or kind is SFTMethod)
]
"""Methods that need at most examples and a follower."""
EXAMPLES = 20


class Check(NamedTuple):
    """One condition that a comparison must meet, for continuous integration."""

    name: str
    failure: str | None
    """Why the check failed; `None` if it passed."""


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`. The first prompt is the candidate."""

    rows: tuple[Measured, ...]
    differences: dict[str, metrics.Difference]
    """The first minus each other on the same rows; p-values are adjusted for their number (Holm)."""
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
        """Check that the first has a macro-F1 of `at_least`, and is not worse, beyond noise, than any of the others."""
        first, checks = self.rows[0], list[Check]()
        if at_least is not None:
            f1 = first.macro_f1 or 0.0
            failure = None if f1 >= at_least else f"macro-F1 is {f1:.3f} on {first.scored.n} rows"
            checks.append(Check(f"{first.name}: macro-F1 is at least {at_least:g}", failure))
        for name, d in self.differences.items() if not_worse else ():
            worse = d.mean < 0 and d.beyond_noise
            failure = f"macro-F1 {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}], p = {d.p:.3f}" if worse else None
            checks.append(Check(f"{first.name}: not worse than {name}", failure))
        return checks

    def __repr__(self) -> str:
        scores = ", ".join(f"{row.name} {row.macro_f1:.3f}" for row in self.rows)
        return f"<Comparison on {counted(self.rows[0].scored.n, 'row')}: {scores}>"

    def _repr_html_(self) -> str:
        return measured_html(self.rows, self.differences)

    def as_json(self) -> dict[str, Any]:
        """The whole comparison, for other programs."""
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
        return csv_text(["text", "label", *(row.name for row in self.rows)], self.disagreements)


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
    given: Sequence[Prompt] | Mapping[str, Prompt],
    source: Source,
    follower: Answering = None,
    columns: Columns | None = None,
    *,
    examples: Source | None = None,
    n: int | None = None,
    progress: Progress = QUIET,
) -> Comparison:
    """Measure instructions, texts and methods (`naive`, `icl`, ...) on the same rows of `source`.

    A mapping names them. Rows that any of them was made from measure none; they serve as examples, which ICL shows and
    which calibrate texts and edited instructions. Without such rows, `examples` serve, or `n` rows drawn if needed.
    Raises `ScoreRefusedError` if a call fails.
    """
    entries = _entries(given)
    instructions = [entry for entry in entries.values() if isinstance(entry, Instruction)]
    first = instructions[0] if instructions else None
    columns = columns or Columns()
    labels = columns.labels or tuple(dict.fromkeys(label for made in instructions for label in made.labels)) or None
    loaded = table_of(first, source, columns.model_copy(update={"labels": labels}))
    known = columns.model_copy(update={"labels": loaded.task.labels})
    shown = None if examples is None else table_of(first, examples, known)
    rows = divided(
        loaded,
        {key for made in instructions for key in made.provenance.support_rows},
        n or max([EXAMPLES, *(made.provenance.n for made in instructions)]),
        given=shown.task.rows if shown else (),
        draw=any(map(_needs_examples, entries.values())),
    )
    results: list[Measured] = []
    with answering(follower, progress) as followers:
        for name, entry in entries.items():
            plain = _plain(entry, loaded.task.labels, first)
            bound = followers.of(plain)
            if rows.examples and bound.mode == "choose":
                followers.progress.step(f"Calibrating {name}", len(rows.examples))
            predictor, prepared = _prepared(entry, plain, bound, rows)
            followers.progress.step(f"Scoring {name}", len(rows.query))
            result = measured(name, predictor, prepared, rows.query, bound.model.card.price)
            results.append(refuse_failures(result))
    return Comparison(tuple(results), differences(results), (*rows.notes, *_notes(results, loaded.task.labels)))


def differences(rows: Sequence[Measured]) -> dict[str, metrics.Difference]:
    """The first minus each other, p-values adjusted for their number."""
    first, *others = [row.scored for row in rows]
    unadjusted = [metrics.paired_difference(first.gold, first.labels, other.labels) for other in others]
    adjusted = metrics.holm([difference.p for difference in unadjusted])
    named = zip(rows[1:], unadjusted, adjusted, strict=True)
    return {row.name: replace(difference, p=p) for row, difference, p in named}


_Entry: TypeAlias = Instruction | str | Method


def _entries(given: Sequence[Prompt] | Mapping[str, Prompt]) -> dict[str, _Entry]:
    """The prompts to compare, by name. Raises `ConfigError`."""
    if not given:
        raise ConfigError(f"Nothing is given to compare; expected instruction files, texts, or {', '.join(FIXED)}.")
    if isinstance(given, Mapping):
        return {name: _entry(prompt) for name, prompt in given.items()}
    entries: dict[str, _Entry] = {}
    for prompt in given:
        name = name_of(prompt)
        if name in entries and not isinstance(prompt, Instruction):
            raise ConfigError(f"{name!r} is given twice; name each once.")
        while name in entries:
            name += "'"
        entries[name] = _entry(prompt)
    return entries


def _entry(given: Prompt) -> _Entry:
    return _method(given) if isinstance(given, str) and given in METHODS else read(given)


def _method(name: str) -> Method:
    if name not in FIXED:
        raise ConfigError(
            f"The method {name!r} is written or trained first: make a file with promptmii induce, or run promptmii "
            f"evaluate. {nearest(name, FIXED)}"
        )
    return method_named(name)


def _needs_examples(entry: _Entry) -> bool:
    """No rows are drawn just to calibrate a text: they are worth more as measurements."""
    if isinstance(entry, Method):
        return entry.reads_examples
    return isinstance(entry, Instruction) and _is_edited(entry) and entry.mode != "generate"


def _is_edited(entry: Instruction) -> bool:
    return EDITED in entry.provenance.notes or (entry.calibration is not None and not entry.calibrates)


def _plain(entry: _Entry, labels: Sequence[str], first: Instruction | None) -> Instruction:
    """The instruction before anything is fitted. If it names no follower, it gets that of the first instruction."""
    if isinstance(entry, Instruction):
        return entry
    if isinstance(entry, str):
        plain = written(entry, labels)
    else:
        plain = Instruction(text="", labels=tuple(labels), method=entry.name)
    return plain.model_copy(update={"follower": first.follower, "mode": first.mode}) if first else plain


def _prepared(entry: _Entry, plain: Instruction, bound: Follower, rows: Rows) -> tuple[Predictor, Instruction]:
    """The predictor and its instruction, calibrated on the examples unless it already has a calibration."""
    kind = resolve_calibration("auto", bound.mode, bound.model.card) if rows.examples else "none"
    fitting = replace(bound, calibration=kind)
    if isinstance(entry, Method):
        support = Support(plain.labels, rows.examples)
        kit = Kit(Writer(bound.model), fitting)
        predictor = entry.predictor(kit, support, 0)
        return predictor, predictor.prepare(entry.inducer(kit).induce(support), support)
    if kind != "none" and (isinstance(entry, str) or _is_edited(plain) or bound.own(plain) is not plain):
        again = plain.calibration.kind if plain.calibration else kind
        return bound, fitted(plain, replace(bound, calibration=again), rows.examples)
    return bound, answered_by(bound, plain)


def _notes(rows: Sequence[Measured], labels: Sequence[str]) -> tuple[str, ...]:
    """Notes on what makes the comparison less than fair."""
    notes: list[str] = []
    for row in rows:
        if lacking := [label for label in labels if label not in row.instruction.labels]:
            notes.append(f"{row.name} does not know {listed(lacking, 4)}: rows with these labels are misses")
    followers = {row.name: row.instruction.follower for row in rows if row.instruction.follower}
    modes = {row.name: row.instruction.mode for row in rows if row.instruction.mode}
    for what, used in (("followers", followers), ("modes", modes)):
        if len(set(used.values())) > 1:
            notes.append(f"different {what}: {', '.join(f'{name}: {value}' for name, value in used.items())}")
    scored = [row for row in rows if row.scored.uncalibrated_macro_f1 is not None]
    without = [row.name for row in scored if row.instruction.calibration is None]
    if without and len(without) < len(scored):
        cure = "promptmii compare --examples ROWS calibrates them"
        notes.append(f"not calibrated, as others are: {', '.join(without)} ({cure})")
    return tuple(notes)
