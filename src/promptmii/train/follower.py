"""The stage that meta-tunes a small model to follow: labels, examples and instructions, also where the labels' names say nothing.

The loss is the K-way cross-entropy over the label likelihoods, which is what `choose` compares (docs/decisions/0003): plain
language-model loss on the label's tokens teaches a small model the label words rather than the choice. Afterwards the model is frozen.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from promptmii.errors import ArtefactError, ConfigError, MissingDependencyError, ModelError, OutputError
from promptmii.instruction import write_text
from promptmii.models import base_weights
from promptmii.prompts import defuse
from promptmii.task import Task
from promptmii.train.bank import Guide, read_bank
from promptmii.train.follower_check import check
from promptmii.train.follower_episodes import Deck, Rendered, named_tasks
from promptmii.train.follower_settings import FollowerSettings
from promptmii.version import VERSION

try:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from promptmii.models.local import LocalModel, best_dtype, quiet
    from promptmii.models.packing import IMPLEMENTATION
    from promptmii.models.rendering import ChatFormat
    from promptmii.train.follower_state import load_state, save_state
    from promptmii.train.lora import add_adapter, save_adapter
    from promptmii.train.packing import Row, label_scores, lay_out
except ImportError as error:
    raise MissingDependencyError("Training", "train") from error

Report = Callable[[Mapping[str, float]], None]
"""Told of each line of the curves."""


def unheard(_line: Mapping[str, float]) -> None:
    """The default report."""


@dataclass(frozen=True)
class Laid:
    """An episode ready for a forward pass."""

    kind: str
    row: Row
    gold: torch.Tensor
    """(Q) index of each query's label."""


def train_follower(settings: FollowerSettings, folder: Path, *, resume: bool = False, report: Report = unheard) -> Path:
    """Tune into a run folder: `adapter/` holds the best weights (bfloat16), `metrics.jsonl` the curves. Returns the adapter's folder.

    With `resume` it goes on from the newest checkpoint, exactly as if it had never stopped. Raises `ConfigError`, `DataError`,
    `ModelError` (also when the loss is no number: the last checkpoint stays), `OutputError`.
    """
    stage = Stage(settings.checked(), folder, report)
    stage.open(resume)
    while stage.step < settings.steps:
        stage.advance()
    return folder / "adapter"


class Stage:
    """One training run in this process."""

    def __init__(self, settings: FollowerSettings, folder: Path, report: Report) -> None:
        self._settings = settings
        self._folder = folder
        self._report = report
        self._bank: Mapping[str, Guide] = read_bank(Path(settings.bank)) if settings.bank else {}
        self._watched: Mapping[str, Task] = named_tasks(Path(settings.tasks), settings.validate_on)
        learned = named_tasks(Path(settings.tasks), settings.train)
        self._local = _load(settings.model)
        self._format = ChatFormat(self._local.tokenizer, self._local.model.generation_config.eos_token_id)
        self._deck = Deck(learned, self._bank, self._local, settings)
        torch.manual_seed(settings.seed)  # the adapter's first values
        self._tuned = add_adapter(self._local.model, settings.rank)
        self._parameters = {name: p for name, p in self._local.model.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(self._parameters.values(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self._best = -math.inf
        self._torn = False
        self.step = 0

    def open(self, resume: bool) -> None:
        """Make the run folder, or go on in it. Raises `OutputError` where another run lies there and `resume` is not set."""
        if not resume and (self._folder / "config.json").exists():
            raise OutputError(f"{self._folder} holds a run already. Go on with it with --resume, or give another folder.")
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._settings.model_dump(mode="json")
        if resume and (self._folder / "config.json").exists():
            self._same(config)
            self._torn = (self._folder / "metrics.jsonl").exists()
        found = load_state(self._folder, self._parameters, self._optimizer) if resume else None
        if found:
            self.step, self._best = found
        write_text(self._folder / "config.json", json.dumps({"version": VERSION, "follower": config}, indent=2) + "\n", force=True)
        if not found:
            self._validate({})

    def advance(self) -> None:
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
            self._validate(line)
        else:
            self._write(line)
        if last or self.step % settings.save_every == 0:
            save_state(self._folder, self.step, self._parameters, self._optimizer, self._best)

    def _same(self, config: Mapping[str, Any]) -> None:
        """Raise `ConfigError` where the run was started with other settings than `config`; more steps are allowed."""
        try:
            before = json.loads((self._folder / "config.json").read_text("utf-8"))["follower"]
        except (OSError, ValueError, KeyError) as error:
            raise ArtefactError(f"{self._folder} is no run folder of this stage: {error}. Give another folder.") from error
        free = ("steps", "tasks", "bank", "check_every", "save_every")
        changed = [name for name in config if name not in free and before.get(name) != config[name]]
        if changed:
            raise ConfigError(
                f"This run was started with other values of: {', '.join(changed)}. Resume with the same, or give another folder."
            )

    def _lay(self, drawn: Rendered) -> Laid:
        instruction = drawn.instruction
        prompts = self._format.prompts([instruction.messages(example.text) for example in drawn.query])
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        options = self._format.options([defuse(label) for label in instruction.labels])
        row = lay_out([prompts[i] for i in order], options, self._format.ends[0], self._local.model.device)
        gold = torch.tensor([instruction.labels.index(drawn.query[i].label) for i in order], device=self._local.model.device)
        return Laid(drawn.kind, row, gold)

    def _update(self, laid: list[Laid]) -> dict[str, float]:
        """Losses and accuracies, before the step that is taken here."""
        total, right, kinds = 0.0, 0.0, dict[str, list[float]]()
        self._optimizer.zero_grad(set_to_none=True)
        for one in laid:
            scores = label_scores(self._local.model, one.row)
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

    def _validate(self, line: Mapping[str, float]) -> None:
        """Write the line with the validation in it, and the adapter where it is the best so far; without watched tasks, always."""
        started = perf_counter()
        model = self._local.model
        # A new wrapper each time: the old one remembers keys and values of other weights.
        fresh = LocalModel(self._settings.model, model, self._local.tokenizer, revision=f"step-{self.step}")
        found = check(fresh, self._watched, self._bank, self._settings)
        self._write({**line, **found, "seconds/validation": perf_counter() - started})
        reward = found.get("validation/reward", math.inf)
        if self.step and reward >= self._best:
            self._best = reward
            save_adapter(self._tuned, self._folder / "adapter", self._settings.model)

    def _write(self, line: Mapping[str, float]) -> None:
        row = {"step": self.step, **{name: round(value, 6) for name, value in line.items()}}
        with (self._folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            # What a kill left of a line is closed first, or it would spoil this one.
            file.write(("\n" if self._torn else "") + json.dumps(row) + "\n")
        self._torn = False
        self._report(row)


def learning_rate(settings: FollowerSettings, step: int) -> float:
    """Rising over the warm-up, then falling along a cosine to a tenth."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def _load(reference: str) -> LocalModel:
    """The model, in a number format that can be trained here, with its own weights frozen. Raises `ModelError`."""
    source = base_weights(reference)
    if source is None or "+" in reference:
        raise ConfigError(f"The follower to tune is {reference!r}; expected a model on this machine without an adapter: smol, or hf:...")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with quiet():
        tokenizer: Any = AutoTokenizer.from_pretrained(source)
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=best_dtype(device))
    local = LocalModel(reference, model.to(device), tokenizer, revision="untuned")
    if model.config._attn_implementation != IMPLEMENTATION:
        raise ConfigError(f"{reference} attends in a way that packed rows do not know (sliding windows, soft caps); choose another model.")
    return local
