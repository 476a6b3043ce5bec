"""The model cards of trained weights."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptmii.markup import markdown_table
from promptmii.messages import counted
from promptmii.models.embedded import EMBEDDED
from promptmii.models.references import ServerReference
from promptmii.task import Task
from promptmii.train.settings import SftSettings, TrainSettings
from promptmii.version import VERSION

PRIVATE: Mapping[str, Any] = {
    **dict.fromkeys(
        ("stage", "model", "tasks", "only", "train", "bank", "pairs", "template", "endpoint", "plan"), True
    ),
    "reward": {"followers", "serve"},
    "trl": {"vllm_server_base_url", "vllm_server_host"},
}
"""Settings that a card omits: paths, addresses, and values that it gives elsewhere."""


def model_card(
    settings: SftSettings | TrainSettings,
    title: str,
    paragraphs: Sequence[str],
    base: str,
    tasks: Mapping[str, Task],
    step: int,
    measured: Mapping[str, float],
) -> str:
    """A model card in Markdown. `paragraphs` introduce the model."""
    adapter = settings.lora is not None
    name = base.removeprefix("hf:")
    embedded = EMBEDDED.get(name)
    base_note = f" ({embedded.title}, {embedded.licence})" if embedded else ""
    repository = embedded.repository if embedded else None if Path(name).exists() else name
    recipe = {"step": step, **settings.model_dump(mode="json", exclude=dict(PRIVATE))}
    rows = [
        (name, task.source.get("group", "unstated"), task.source.get("licence", "unstated"))
        for name, task in tasks.items()
    ]
    licences = Counter(task.source.get("licence") or "unstated" for task in tasks.values())
    lines = [
        "---",
        f"library_name: {'peft' if adapter else 'transformers'}",
        *([f"base_model: {repository}"] if repository else []),
        "tags: [promptmii, text-classification]",
        "---",
        f"# {title}",
        "",
        *(line for paragraph in paragraphs for line in (paragraph, "")),
        f"{'A LoRA adapter of' if adapter else 'Trained from'} `{base}`{base_note}, made by promptmii "
        f"{VERSION}. Load it as `{base + '+' if adapter else 'hf:'}<this folder>`.",
        "",
        *_section("Recipe", [f"- {name}: {value}" for name, value in recipe.items()]),
        *_section("Validation", [f"- {name}: {value:.3f}" for name, value in measured.items()]),
        *_section("Data", [markdown_table(("task", "source", "licence"), rows)] if rows else []),
        *_section("Licences of the data", [f"- {licence}: {counted(n, 'task')}" for licence, n in licences.items()]),
    ]
    return "\n".join(lines)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def generator_card(
    settings: TrainSettings, base: str, tasks: Mapping[str, Task], step: int, measured: Mapping[str, float]
) -> str:
    """The model card of a reinforced generator."""
    reward = settings.reward
    servers = {name: ServerReference.parse(name) for name in reward.followers}
    followers = ", ".join(f"`openai:{server.model}`" if server else f"`{name}`" for name, server in servers.items())
    paragraphs = (
        "Reads labelled examples of a text-classification task and writes an instruction for it. Trained from "
        f"`{settings.model}` with reinforcement learning (GRPO): the reward is how well a frozen model ({followers}, "
        f"mode `{reward.mode}`) labels other examples under the instruction.",
        "Limits: it guesses the rule behind the examples. It may be wrong, and it may repeat texts it was shown. Check "
        "an instruction before you rely on it. Validation is macro-F1 on tasks from other sources.",
    )
    return model_card(settings, "An instruction generator", paragraphs, base, tasks, step, measured)
