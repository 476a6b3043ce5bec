"""The model card of an adapter that a warm-up stage made."""

from collections.abc import Mapping, Sequence

from promptmii.task import Task
from promptmii.version import VERSION

KNOWN = {"smol": " (SmolLM2-135M-Instruct, Apache-2.0)"}


def adapter_card(
    title: str, purpose: Sequence[str], base: str, tasks: Mapping[str, Task], recipe: Mapping[str, object], measured: Mapping[str, float]
) -> str:
    """For people who find the weights: `purpose` are its paragraphs, `recipe` the settings, `measured` the validation."""
    model = base.removeprefix("hf:")
    rows = [
        f"| {name} | {task.source.get('group', 'unstated')} | {task.source.get('licence', 'unstated')} |" for name, task in tasks.items()
    ]
    return "\n".join(
        [
            "---",
            "library_name: peft",
            *([f"base_model: {model}"] if base.startswith("hf:") else []),
            "tags: [promptmii, text-classification]",
            "---",
            f"# {title}",
            "",
            *(line for paragraph in purpose for line in (paragraph, "")),
            f"A LoRA adapter of `{base}`{KNOWN.get(base, '')}, made by promptmii {VERSION}. Load it as `{base}+<this folder>`.",
            "",
            "## Recipe",
            "",
            *(f"- {name}: {value}" for name, value in recipe.items()),
            "",
            *(["## Validation", "", *(f"- {name}: {value:.3f}" for name, value in measured.items()), ""] if measured else []),
            *(["## Data", "", "| task | source | licence |", "| --- | --- | --- |", *rows, ""] if rows else []),
        ]
    )
