"""Facts about methods that a report needs. All come from the registry, so a new method needs no change here."""

from promptmii.inducers import METHODS, Role, WrittenBy


def position(method: str) -> int:
    """Position in tables, legends and palettes: registry order, unknown methods last."""
    return list(METHODS).index(method) if method in METHODS else len(METHODS)


def summary(method: str) -> str:
    """A one-line description."""
    return METHODS[method].summary if method in METHODS else "a method of your own"


def baselines() -> list[str]:
    """The default methods other than those under test, the strongest rival first."""
    defaults = [name for name, method in METHODS.items() if method.by_default]
    return [name for name in reversed(defaults) if name not in _written_by(WrittenBy.GENERATOR)]


def planned_rivals() -> list[str]:
    """The baselines of the planned comparisons: those without a model-written instruction."""
    return [name for name in baselines() if is_unwritten(name)]


def role(method: str) -> Role:
    """The method's role in a comparison."""
    return METHODS[method].role if method in METHODS else Role.METHOD


def is_known(method: str) -> bool:
    """The method is in the registry; records may name others."""
    return method in METHODS


def is_unwritten(method: str) -> bool:
    """The method is known to use no model-written instruction."""
    return is_known(method) and METHODS[method].written_by is WrittenBy.NOBODY


def under_test() -> list[str]:
    """Methods that can be the subject of the headline, in order of preference."""
    return [*_written_by(WrittenBy.GENERATOR), *_written_by(WrittenBy.UNTRAINED), *_written_by_human()]


def side_by_side() -> tuple[list[str], list[str]]:
    """Methods that the side-by-side view can open with, left and right, each in order of preference."""
    generator, searches = _written_by(WrittenBy.GENERATOR), _written_by(WrittenBy.SEARCHER)
    untrained, human = _written_by(WrittenBy.UNTRAINED), _written_by_human()
    other_baselines = [name for name in baselines() if name not in untrained]
    return [*untrained, *human, *searches, *other_baselines], [*generator, *searches, *human]


def single_call() -> list[str]:
    """Methods that write the instruction in one call; a transfer matrix compares their generators."""
    return [name for name, method in METHODS.items() if method.single_call]


def shows_examples(method: str) -> bool:
    """The method puts the examples into every prompt."""
    return method in METHODS and METHODS[method].prompt == "examples" and role(method) is Role.METHOD


def takes_what_fits(method: str) -> bool:
    """The method reads as many of the n examples as fit; others deliberately read fewer, or none."""
    return method in single_call() or shows_examples(method)


def _written_by(writer: WrittenBy) -> list[str]:
    return [name for name, method in METHODS.items() if method.written_by is writer and method.role is Role.METHOD]


def _written_by_human() -> list[str]:
    return [name for name, method in METHODS.items() if method.needs_human]
