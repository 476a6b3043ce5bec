"""What a comparison must show to pass, for continuous integration."""

from typing import NamedTuple
from xml.etree import ElementTree

from promptmii.workbench.compare import Comparison


class Condition(NamedTuple):
    """One thing that must hold."""

    name: str
    failure: str | None
    """Why it does not; `None`: it holds."""


def checks(found: Comparison, *, at_least: float | None = None, not_worse: bool = False) -> list[Condition]:
    """The first has a macro-F1 of `at_least`; it is not worse, beyond noise, than any of the others."""
    first = found.rows[0]
    made: list[Condition] = []
    if at_least is not None:
        f1 = first.macro_f1 or 0.0
        made.append(
            Condition(
                f"{first.name}: macro-F1 is at least {at_least:g}",
                None if f1 >= at_least else f"macro-F1 is {f1:.3f} on {first.scored.n} rows",
            )
        )
    for name, d in found.differences.items() if not_worse else ():
        worse = d.mean < 0 and d.beyond_noise
        made.append(
            Condition(
                f"{first.name}: not worse than {name}",
                f"macro-F1 {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}], p = {d.p:.3f}" if worse else None,
            )
        )
    return made


def junit(made: list[Condition]) -> str:
    """The checks as a JUnit report."""
    failures = sum(check.failure is not None for check in made)
    suite = ElementTree.Element(
        "testsuite", name="promptmii compare", tests=str(len(made)), failures=str(failures), errors="0", skipped="0"
    )
    for check in made:
        case = ElementTree.SubElement(suite, "testcase", classname="promptmii.compare", name=check.name)
        if check.failure is not None:
            ElementTree.SubElement(case, "failure", message=check.failure).text = check.failure
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
