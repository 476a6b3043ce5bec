"""Each option has one spelling, and the command line and TOML files cover the same settings."""

from collections.abc import Iterator

from tests.command_line import promptmii
from tests.test_docs import COMMANDS

from promptmii.cli.options import settings_of
from promptmii.evaluation.plan import EvaluateSettings
from promptmii.schema import Settings
from promptmii.train.settings import TrainSettings

RUN_ONLY = {"recipe", "output", "set_", "retry_failed", "forget_answers", "dry_run", "json", "_list"}
"""Options about one run, which are not settings."""
SETTING_NAMES = {"generator": "generators", "follower": "followers", "price": "endpoint.prices"}


def fields(kind: type[Settings], prefix: str = "") -> Iterator[str]:
    for name, field in kind.model_fields.items():
        default = field.get_default(call_default_factory=True)
        yield f"{prefix}{name}"
        if isinstance(default, Settings):
            yield from fields(type(default), f"{prefix}{name}.")


def test_every_option_of_evaluate_is_a_setting_and_every_setting_an_option() -> None:
    known = set(fields(EvaluateSettings))
    options = {parameter.name or "" for parameter in COMMANDS[("evaluate",)].params} - RUN_ONLY
    named = {SETTING_NAMES.get(name, name if name in known else f"endpoint.{name}") for name in options}
    assert named <= known
    for name in known:
        (top,) = settings_of([f"{name}=1"])
        assert top == name.partition(".")[0]


def test_help_shows_the_defaults_of_settings() -> None:
    def words(command: str) -> str:
        help_text = " ".join(promptmii(command, "--help").stdout.split())
        return help_text.replace("- ", "-")  # help breaks lines after hyphens

    grid, train = EvaluateSettings.of(tasks=["suite"]), TrainSettings()
    shown = words("evaluate")
    assert f"Comma-separated; listed below. [default: ({', '.join(grid.methods)})]" in shown
    assert f"[default: ({', '.join(map(str, grid.n))})]" in shown
    for value in (grid.seeds, grid.evaluate, grid.mode, grid.followers[0], grid.generators[0], grid.workers):
        assert f"[default: ({value})]" in shown
    for command in ("train", "launch"):
        assert f"[default: ({train.model})]" in words(command)
        assert f"Random seed. [default: ({train.seed})]" in words(command)


def test_an_option_is_spelled_the_same_everywhere() -> None:
    spelled: dict[str, set[tuple[str, ...]]] = {}
    for command in COMMANDS.values():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                long = max(parameter.opts, key=len)
                spelled.setdefault(long, set()).add(tuple(sorted(parameter.opts)))
    assert {name: forms for name, forms in spelled.items() if len(forms) > 1} == {}
