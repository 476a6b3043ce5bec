"""What a report needs to know about methods, taken from the registry, so that a new method needs no change here."""

from promptmii.inducers import METHODS, Role, WrittenBy


def position(method: str) -> int:
    """Place in tables, legends and colours: that of the registry, unknown methods last."""
    return list(METHODS).index(method) if method in METHODS else len(METHODS)


def summary(method: str) -> str:
    """One line of explanation."""
    return METHODS[method].summary if method in METHODS else "a method of your own"


def baselines() -> list[str]:
    """Methods that the headline compares with, the strongest rival first."""
    listed = [name for name, method in METHODS.items() if method.by_default]
    return [name for name in reversed(listed) if name not in _written_by(WrittenBy.GENERATOR)]


def planned_rivals() -> list[str]:
    """The baselines of the planned comparisons: those for which no model writes."""
    return [name for name in baselines() if is_unwritten(name)]


def role(method: str) -> Role:
    """The role of a method in a comparison."""
    return METHODS[method].role if method in METHODS else Role.METHOD


def is_known(method: str) -> bool:
    """It is in the registry; records may hold others."""
    return method in METHODS


def is_unwritten(method: str) -> bool:
    """No model writes an instruction, as far as is known."""
    return is_known(method) and METHODS[method].written_by is WrittenBy.NOBODY


def under_test() -> list[str]:
    """Methods that the headline may be about, in order of preference."""
    return [*_written_by(WrittenBy.GENERATOR), *_written_by(WrittenBy.UNTRAINED), *_human()]


def compared() -> tuple[list[str], list[str]]:
    """Methods with which the side-by-side view may open, left and right, in order of preference."""
    searches, untrained = _written_by(WrittenBy.SEARCHER), _written_by(WrittenBy.UNTRAINED)
    plain = [name for name in baselines() if name not in untrained]
    return [*untrained, *_human(), *searches, *plain], [*_written_by(WrittenBy.GENERATOR), *searches, *_human()]


def single_call() -> list[str]:
    """Methods in which one call writes the instruction; a transfer matrix compares their generators."""
    return [name for name, method in METHODS.items() if role(name) is Role.METHOD and method().expected(2).written == 1]


def shows_examples(method: str) -> bool:
    """The examples stand in every prompt."""
    return method in METHODS and METHODS[method].prompt == "examples" and role(method) is Role.METHOD


def takes_what_fits(method: str) -> bool:
    """The method reads as many of the n examples as fit; others take a part on purpose, or none."""
    return method in single_call() or shows_examples(method)


def _written_by(writer: WrittenBy) -> list[str]:
    return [name for name, method in METHODS.items() if method.written_by is writer and method.role is Role.METHOD]


def _human() -> list[str]:
    return [name for name, method in METHODS.items() if method.needs_human]
