"""The recipes that ship, by command: `promptmii train smol-cpu` reads `train/smol-cpu.toml`.

A module of its own, so that the command line can list recipes without loading any settings.
"""

from pathlib import Path

from promptmii.errors import ConfigError
from promptmii.messages import nearest

FOLDER = Path(__file__).parent


def recipes(command: str) -> dict[str, Path]:
    """The command's recipes by name."""
    return {path.stem: path for path in sorted((FOLDER / command).glob("*.toml"))}


def summary(recipe: Path) -> str:
    """The first sentence of the comment that opens a recipe."""
    lines = recipe.read_text("utf-8").split("\n\n")[0].split("\n#\n")[0].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines).split(". ")[0].removesuffix(".") + "."


def config_path(command: str, path_or_name: str) -> Path:
    """The file for a path or a recipe's name; the user's own file takes precedence. Raises `ConfigError`."""
    path, available = Path(path_or_name), recipes(command)
    if path.is_file():
        return path
    if path_or_name in available:
        return available[path_or_name]
    raise ConfigError(f"{path_or_name!r} is neither a TOML file nor a recipe. {nearest(path_or_name, available)}")
