"""The model card of what training made, for people who find the weights."""

from collections import Counter
from collections.abc import Mapping, Sequence

from promptmii.errors import counted
from promptmii.schema import Settings
from promptmii.task import Task
from promptmii.train.settings import TrainSettings
from promptmii.version import VERSION

KNOWN = {"smol": " (SmolLM2-135M-Instruct, Apache-2.0)"}
PRIVATE = {"stage", "model", "tasks", "only", "train", "bank", "pairs", "endpoint", "plan"}
"""Settings that a card leaves out: places on a machine, and what the card says elsewhere."""


def model_card(
    settings: Settings,
    title: str,
    purpose: Sequence[str],
    base: str,
    tasks: Mapping[str, Task],
    step: int,
    measured: Mapping[str, float],
    *,
    adapter: bool = True,
) -> str:
    """`purpose` are paragraphs; the weights are an `adapter` of `base`, or all weights trained from it."""
    recipe = {"step": step, **settings.model_dump(mode="json", exclude=PRIVATE)}
    rows = [
        f"| {name} | {task.source.get('group', 'unstated')} | {task.source.get('licence', 'unstated')} |"
        for name, task in tasks.items()
    ]
    licences = Counter(task.source.get("licence") or "unstated" for task in tasks.values())
    lines = [
        "---",
        f"library_name: {'peft' if adapter else 'transformers'}",
        *([f"base_model: {base.removeprefix('hf:')}"] if base.startswith("hf:") else []),
        "tags: [promptmii, text-classification]",
        "---",
        f"# {title}",
        "",
        *(line for paragraph in purpose for line in (paragraph, "")),
        f"{'A LoRA adapter of' if adapter else 'Trained from'} `{base}`{KNOWN.get(base, '')}, made by promptmii "
        f"{VERSION}. Load it as `{base + '+' if adapter else 'hf:'}<this folder>`.",
        "",
        *_section("Recipe", [f"- {name}: {value}" for name, value in recipe.items()]),
        *_section("Validation", [f"- {name}: {value:.3f}" for name, value in measured.items()]),
        *_section("Data", ["| task | source | licence |", "| --- | --- | --- |", *rows] if rows else []),
        *_section("Licences of the data", [f"- {licence}: {counted(n, 'task')}" for licence, n in licences.items()]),
    ]
    return "\n".join(lines)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def generator_card(
    settings: TrainSettings, base: str, tasks: Mapping[str, Task], step: int, measured: Mapping[str, float]
) -> str:
    """The card of a generator that reinforcement made."""
    reward = settings.reward
    followers = ", ".join(f"`{name}`" for name in reward.followers)
    purpose = (
        "Reads labelled examples of a text-classification task and writes an instruction for it. Trained from "
        f"`{settings.model}` with reinforcement learning (GRPO): the reward is how well a frozen model ({followers}, "
        f"mode `{reward.mode}`) labels other examples by the instruction.",
        "Limits: it writes what it takes for the rule behind the examples. It may be wrong, and it may repeat texts it "
        "was shown. Check an instruction before you rely on it. Validation is macro-F1 on tasks of other sources.",
    )
    adapter = settings.lora is not None
    return model_card(settings, "An instruction generator", purpose, base, tasks, step, measured, adapter=adapter)
