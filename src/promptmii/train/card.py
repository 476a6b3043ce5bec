"""The model card of what training made."""

from collections.abc import Mapping, Sequence

from promptmii.task import Task
from promptmii.version import VERSION

KNOWN = {"smol": " (SmolLM2-135M-Instruct, Apache-2.0)"}


def adapter_card(
    title: str,
    purpose: Sequence[str],
    base: str,
    tasks: Mapping[str, Task],
    recipe: Mapping[str, object],
    measured: Mapping[str, float],
    *,
    adapter: bool = True,
) -> str:
    """For people who find the weights: `purpose` are its paragraphs, `recipe` the settings, `measured` the validation.

    Without `adapter` they are all the weights, trained from `base`.
    """
    model = base.removeprefix("hf:")
    rows = [
        f"| {name} | {task.source.get('group', 'unstated')} | {task.source.get('licence', 'unstated')} |"
        for name, task in tasks.items()
    ]
    return "\n".join(
        [
            "---",
            f"library_name: {'peft' if adapter else 'transformers'}",
            *([f"base_model: {model}"] if base.startswith("hf:") else []),
            "tags: [promptmii, text-classification]",
            "---",
            f"# {title}",
            "",
            *(line for paragraph in purpose for line in (paragraph, "")),
            f"{'A LoRA adapter of' if adapter else 'Trained from'} `{base}`{KNOWN.get(base, '')}, made by promptmii {VERSION}. "
            f"Load it as `{base + '+' if adapter else 'hf:'}<this folder>`.",
            "",
            "## Recipe",
            "",
            *(f"- {name}: {value}" for name, value in recipe.items()),
            "",
            *(
                ["## Validation", "", *(f"- {name}: {value:.3f}" for name, value in measured.items()), ""]
                if measured
                else []
            ),
            *(["## Data", "", "| task | source | licence |", "| --- | --- | --- |", *rows, ""] if rows else []),
        ]
    )
