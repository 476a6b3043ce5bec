"""Settings become a plan here, once. Below this module values travel, not settings."""

from dataclasses import dataclass

from promptmii.config import Endpoint, LoraSettings
from promptmii.styles import read_style, style_for
from promptmii.train.settings import RewardSettings, TrainSettings, ValidationSettings
from promptmii.train.tasks import Selection
from promptmii.train.visits import Draws, Prompting


@dataclass(frozen=True)
class Plan:
    """What every way of learning from drafts needs: which tasks, how they are shown and asked, and who judges."""

    model: str
    lora: LoraSettings | None
    seed: int
    selection: Selection
    draws: Draws
    prompting: Prompting
    reward: RewardSettings
    validation: ValidationSettings
    stuck: int
    endpoint: Endpoint


def plan_of(settings: TrainSettings) -> Plan:
    """The plan that the settings describe."""
    return Plan(
        model=settings.model,
        lora=settings.lora,
        seed=settings.seed,
        selection=Selection(
            sources=settings.tasks,
            only=settings.only,
            most_labels=settings.most_labels,
            train_rows=min(settings.schedule),
            test_rows=settings.query,
            validation=settings.validation,
            seed=settings.seed,
        ),
        draws=Draws(
            settings.schedule,
            settings.query,
            settings.few_labels,
            settings.nameless,
            settings.seed,
            spread=settings.draw == "spread",
            fixed=settings.fixed,
            whole=settings.overlong == "drop",
        ),
        prompting=Prompting(
            style=read_style(settings.style) if settings.style else style_for("", settings.template),
            budget=settings.budget,
            longest=int(settings.trl.get("max_completion_length", 1024)),
            longest_prompt=settings.longest_prompt,
        ),
        reward=settings.reward,
        validation=settings.validation,
        stuck=settings.stuck,
        endpoint=settings.endpoint,
    )
