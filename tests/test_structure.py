"""The structure of the package: imports point upward, public names are exact, importing is light."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import promptmii

# A module may import those above it. A new module gets its place here.
ORDER = [
    *[
        "version",
        "extras",
        "messages",
        "errors",
        "configs",
        "task",
        "words",
        "denial",
        "parse",
        "files",
        "schema",
        "markup",
        "progress",
        "models.base",
        "prompts",
        "models",
        "styles",
        "exports",
        "calibration_kinds",
        "table_formats",
        "instruction",
        "config",
        "ray_cluster",
        "serving",
        "metrics",
    ],
    *[
        "calibrate",
        "shortlist",
        "follower",
        "scoring",
        "measured",
        "break_even",
        "data",
        "tuning",
        "inducers",
        "inputs",
        "pipeline",
        "workbench",
        "mcp_server",
        "estimator",
        "doctor",
        "records",
        "publish",
        "corpus",
        "evaluation",
        "train",
        "report",
        "ui",
        "cli",
        "__main__",
    ],
]
SOURCE = Path(promptmii.__file__).parent


@cache
def place(module: str) -> int:
    name = module.removeprefix("promptmii.")
    known = next((known for known in sorted(ORDER, key=len, reverse=True) if f"{name}.".startswith(f"{known}.")), name)
    assert known in ORDER, f"{module} has no place yet: add it to ORDER in {__file__}"
    return ORDER.index(known)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules() -> list[tuple[str, Path]]:
    """Every module: its dotted name and its path."""
    modules_found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        modules_found.append((".".join(parts).removesuffix(".__init__"), path))
    return modules_found


def imports(path: Path, *, for_types: bool = True) -> Iterator[str]:
    """The modules and names that code imports, also inside functions; `for_types`: also for type checkers alone."""
    for node in statements(tree(path), for_types=for_types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def statements(node: ast.AST, *, for_types: bool) -> Iterator[ast.AST]:
    """The statements inside a node, at any depth."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING" and not for_types:
            continue
        yield child
        yield from statements(child, for_types=for_types)


def test_imports_point_upward() -> None:
    for name, path in modules():
        for target in imports(path):
            if name != "promptmii" and target.startswith("promptmii."):
                assert place(target) <= place(name), f"{name} imports {target}, which stands below it"


def test_no_modules_import_each_other() -> None:
    paths = dict(modules())
    graph: dict[str, set[str]] = {}
    for name, path in paths.items():
        targets = {
            target if target in paths else target.rpartition(".")[0] for target in imports(path, for_types=False)
        }
        graph[name] = {target for target in targets & paths.keys() if not name.startswith(target)}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_public_names_are_sorted_and_exist() -> None:
    assert promptmii.__all__ == sorted(promptmii.__all__) == sorted(promptmii._MODULE_OF)
    assert all(getattr(promptmii, name) is not None for name in promptmii.__all__)


def test_no_submodule_shadows_a_name_that_its_package_imports() -> None:
    """Importing the submodule would replace that name."""
    for package in SOURCE.rglob("__init__.py"):
        inside = {path.stem for path in package.parent.glob("*.py")} | {path.name for path in package.parent.iterdir()}
        taken: set[str] = set()
        for node in tree(package).body:
            match node:
                case ast.ImportFrom(module=str(module)):
                    names = {alias.asname or alias.name for alias in node.names}
                    taken |= {
                        name for name in names if not f".{module}".endswith(f".{name}")
                    }  # its own may have its name
                case ast.FunctionDef() | ast.ClassDef():
                    taken.add(node.name)
                case _:
                    pass
        assert inside.isdisjoint(taken), f"{package} has a module and another thing called {inside & taken}"


def test_importing_is_light() -> None:
    code = (
        "import sys, time; start = time.process_time(); import promptmii; seconds = time.process_time() - start;"
        "heavy = {'torch', 'transformers', 'pandas', 'sklearn', 'scipy', 'openai', 'pydantic'} & set(sys.modules);"
        "print(seconds, *heavy)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    ]
    assert all(len(run) == 1 for run in runs), runs
    assert min(float(run[0]) for run in runs) < 0.3


@pytest.mark.slow
def test_it_imports_without_posix() -> None:
    """As on Windows. Skips modules on torch, whose packages need POSIX modules, and those of the page, an extra."""
    light = [
        name
        for name, path in modules()
        if not re.search("torch|starlette", path.read_text("utf-8"))
        and not name.startswith(("promptmii.train.", "promptmii.__main__"))
    ]
    assert len(light) > 60
    code = (
        "import importlib, sys\n"
        "for name in ('fcntl', 'grp', 'pwd', 'resource', 'syslog', 'termios', 'tty', 'pty', 'readline', 'curses'):\n"
        "    sys.modules[name] = None\n"
        f"for name in ['promptmii.cli', *{light!r}]:\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_modules_and_functions_are_short() -> None:
    """Only commands and scikit-learn estimators may take many parameters. For commands, only the body counts."""
    for name, path in modules():
        source = path.read_text(encoding="utf-8")
        assert len(source.splitlines()) <= 400, f"{name} has more than 400 lines: split it"
        for node in statements(tree(path), for_types=True):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            command = name.startswith("promptmii.cli.") and node.decorator_list
            assert node.end_lineno is not None
            length = node.end_lineno - (node.body[0] if command else node).lineno + 1
            assert length <= 60, f"{name}.{node.name} has {length} lines; at most 60"
            arguments = node.args
            parameters = len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])
            free = command or name == "promptmii.estimator"
            assert free or parameters <= 8, f"{name}.{node.name} has {parameters} parameters; at most 8"
