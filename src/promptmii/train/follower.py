"""The stage that meta-tunes a small model to follow: labels, examples and instructions, also where the labels' names say nothing.

The loss is the K-way cross-entropy over the label likelihoods, which is what `choose` compares (docs/decisions/0003): plain
language-model loss on the label's tokens teaches a small model the label words rather than the choice. Afterwards the model is frozen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from promptmii.errors import ConfigError, MissingDependencyError, ModelError
from promptmii.files import atomic_folder
from promptmii.progress import QUIET, Progress
from promptmii.prompts import defuse, follower_frame
from promptmii.task import Task, content_key
from promptmii.train.bank import Guide, read_bank
from promptmii.train.card import adapter_card
from promptmii.train.config import LoraSettings
from promptmii.train.folder import RunFolder, brief, open_run
from promptmii.train.follower_check import check
from promptmii.train.follower_episodes import Deck, Rendered
from promptmii.train.follower_settings import FollowerSettings
from promptmii.train.source import named_tasks

try:
    import torch

    from promptmii.models.packing import IMPLEMENTATION
    from promptmii.train.follower_state import load_state, save_state
    from promptmii.train.lora import save_adapter
    from promptmii.train.packing import Row, label_scores, lay_out
    from promptmii.train.tuning import Tunable
except ImportError as error:
    raise MissingDependencyError("Training", "train") from error


BEST = "best"
PURPOSE = (
    "Reads an instruction, examples or bare label names, and labels a text by the likelihood of each label (`choose`). Tuned on short "
    "texts of the tasks below, also with names that say nothing, so that what is said about a label counts for more than its name.",
    "Limits: short texts in English, up to {labels} labels at a time in training; entailment, acceptability and the like were not trained. "
    "It is a measuring instrument for instructions rather than a classifier to rely on. Validation is macro-F1 on tasks of other "
    "sources, `batch` calibration.",
)
FREE = ("steps", "tasks", "bank", "check_every", "save_every")
"""Settings that may be others when a run goes on."""


@dataclass(frozen=True)
class Laid:
    """An episode ready for a forward pass."""

    kind: str
    row: Row
    gold: torch.Tensor
    """(Q) index of each query's label."""


def train_follower(
    settings: FollowerSettings,
    folder: Path,
    *,
    given: Path | None = None,
    resume: bool = False,
    progress: Progress = QUIET,
) -> Path:
    """Tune into a run folder (`given` is the configuration file): `best/` holds the best weights in bfloat16; returned is its path.

    With `resume` it goes on from the newest checkpoint, exactly as if it had never stopped. Raises `ConfigError`, `DataError`,
    `ModelError` (also when the loss is no number: the last checkpoint stays), `OutputError`.
    """
    stage = Stage(settings.checked(), progress)
    with open_run(folder, settings, given, resume=resume, free=FREE) as run:
        run.describe(stage.facts())
        stage.open(run)
        while stage.step < settings.steps:
            stage.advance(run)
    return folder / BEST


class Stage:
    """One training run in this process."""

    def __init__(self, settings: FollowerSettings, progress: Progress) -> None:
        self._settings = settings
        self._bank: Mapping[str, Guide] = read_bank(Path(settings.bank)) if settings.bank else {}
        self._watched: Mapping[str, Task] = named_tasks(settings.tasks, settings.validate_on)
        self._learned: Mapping[str, Task] = named_tasks(settings.tasks, settings.train)
        self._tunable = Tunable.load(settings.model, LoraSettings(rank=settings.rank), settings.seed)
        self._model = self._tunable.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._local = self._tunable.local(0)
        if self._model.config._attn_implementation != IMPLEMENTATION:
            raise ConfigError(
                f"{settings.model} attends in a way that packed rows do not know (sliding windows, soft caps); choose another model."
            )
        self._deck = Deck(self._learned, self._bank, self._local, settings)
        self._parameters = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
        )
        self._best = -math.inf
        self._progress = progress
        self.step = 0

    def facts(self) -> dict[str, Any]:
        """What the run is made with: hashes of tasks, templates and guides, and the sources and licences of the tasks."""
        return {
            "stage": self._settings.stage,
            "model": self._local.card.reference,
            "frame": follower_frame().key,
            "bank": content_key(
                [[name, guide.sentence, dict(guide.descriptions)] for name, guide in self._bank.items()]
            ),
            "train": {name: {**task.source, "key": task.key} for name, task in self._learned.items()},
            "validate_on": {name: {**task.source, "key": task.key} for name, task in self._watched.items()},
        }

    def open(self, run: RunFolder) -> None:
        """Go on from the newest checkpoint, or measure the untuned model."""
        found = load_state(run.path, self._parameters, self._optimizer)
        if found:
            self.step, self._best = found
        else:
            self._validate(run, {})
        self._progress.step("Training", self._settings.steps - self.step, "steps")

    def advance(self, run: RunFolder) -> None:
        """One step of the optimiser, with what is due after it: a line of the curves, a validation, a checkpoint."""
        settings, started = self._settings, perf_counter()
        rate = learning_rate(settings, self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        laid = [self._lay(self._deck.draw(self.step, index)) for index in range(settings.episodes)]
        line = {"train/lr": rate, **self._update(laid)}
        spent = perf_counter() - started
        line |= {"train/tokens": float(sum(one.row.size for one in laid)), "seconds/step": spent}
        line["train/tokens_per_second"] = line["train/tokens"] / spent
        self.step += 1
        last = self.step == settings.steps
        if last or self.step % settings.check_every == 0:
            self._validate(run, line)
        else:
            self._write(run, line)
        if last or self.step % settings.save_every == 0:
            save_state(run.path, self.step, self._parameters, self._optimizer, self._best)

    def _lay(self, drawn: Rendered) -> Laid:
        instruction = drawn.instruction
        prompts = self._tunable.form.prompts([instruction.messages(example.text) for example in drawn.query])
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        options = self._tunable.form.options([defuse(label) for label in instruction.labels])
        row = lay_out([prompts[i] for i in order], options, self._tunable.form.ends[0], self._model.device)
        gold = torch.tensor([instruction.labels.index(drawn.query[i].label) for i in order], device=self._model.device)
        return Laid(drawn.kind, row, gold)

    def _update(self, laid: list[Laid]) -> dict[str, float]:
        """Losses and accuracies, before the step that is taken here."""
        total, right, kinds = 0.0, 0.0, dict[str, list[float]]()
        self._optimizer.zero_grad(set_to_none=True)
        for one in laid:
            scores = label_scores(self._model, one.row)
            choice = torch.nn.functional.cross_entropy(scores, one.gold)
            loss = choice - self._settings.likelihood * scores.gather(1, one.gold[:, None]).mean()
            (loss / len(laid)).backward()
            hits = (scores.argmax(1) == one.gold).float().mean().item()
            total, right = total + choice.item() / len(laid), right + hits / len(laid)
            kinds.setdefault(f"train/accuracy/{one.kind}", []).append(hits)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
        if not math.isfinite(total + norm.item()):
            raise ModelError(
                f"At step {self.step} the loss is {total} and the gradient's norm {norm.item()}. The weights were left as they were; "
                "the last checkpoint is valid. Start again with a lower learning_rate."
            )
        self._optimizer.step()
        means = {name: sum(values) / len(values) for name, values in kinds.items()}
        return {"train/loss": total, "train/accuracy": right, "train/gradient": norm.item(), **means}

    def _validate(self, run: RunFolder, line: Mapping[str, float]) -> None:
        """Write the line with the validation in it, and the adapter where it is the best so far; without watched tasks, always."""
        started = perf_counter()
        found = check(self._tunable.local(self.step), self._watched, self._bank, self._settings)
        self._write(run, {**line, **found, "seconds/validation": perf_counter() - started})
        reward = found.get("validation/reward", math.inf)
        if self.step and reward >= self._best:
            self._best = reward
            with atomic_folder(run.path / BEST) as half:
                save_adapter(self._tunable.trained, half, self._tunable.below.named)
                means = {name: value for name, value in found.items() if name.count("/") == 1}
                (half / "README.md").write_text(self._card(means), encoding="utf-8")

    def _card(self, measured: Mapping[str, float]) -> str:
        recipe = {
            "step": self.step,
            **self._settings.model_dump(mode="json", exclude={"stage", "model", "tasks", "bank", "train"}),
        }
        purpose = [paragraph.format(labels=self._settings.labels[1]) for paragraph in PURPOSE]
        return adapter_card("A follower", purpose, self._tunable.below.reference, self._learned, recipe, measured)

    def _write(self, run: RunFolder, line: Mapping[str, float]) -> None:
        run.metrics(self.step, line)
        self._progress.advance(int("train/loss" in line), brief(self.step, line))


def learning_rate(settings: FollowerSettings, step: int) -> float:
    """Rising over the warm-up, then falling along a cosine to a tenth."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
