"""What the page's jobs do: write, edit, label."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from promptmii import metrics, pipeline
from promptmii.data import draw_support
from promptmii.follower import Follower, Prediction
from promptmii.instruction import Instruction
from promptmii.scoring import Scored, score
from promptmii.task import Example
from promptmii.ui.jobs import Cancelled, Job, failure_message
from promptmii.ui.store import Answers, Store, Trial
from promptmii.workbench.edit import with_text
from promptmii.workbench.followers import ModelPool
from promptmii.workbench.formats import batches
from promptmii.workbench.measure import fit_calibration

NAMES = {"naive": "Label list alone", "icl": "Examples in the prompt", "start": "Your own prompt"}
"""The page's names for the prompts that an instruction is compared with."""
INSTRUCTION_NAME = "The instruction"
BATCH = 8
"""Rows of an edit to label between updates of the page."""


@dataclass(frozen=True)
class Change:
    """A row whose label an edit changed."""

    row: Example
    before: str | None
    after: str | None

    @property
    def verdict(self) -> str:
        """`right` or `wrong` if the edit made it so, `other` if the label was and is wrong."""
        if self.after == self.row.label:
            return "right"
        return "wrong" if self.before == self.row.label else "other"


@dataclass(frozen=True)
class Work:
    """Does the work of jobs with the history and a pool of models. Serves one thread at a time."""

    store: Store
    models: ModelPool

    def induce(self, trial: Trial, job: Job) -> Trial:
        """Write an instruction, and measure it beside the label list and the examples."""
        with self._saving_failure(trial):
            models = self.models.at(trial.settings.endpoint)
            path = self.store.folder(trial.key) / "instruction.json"
            loaded = self.store.loaded(trial)
            induced = pipeline.induce(loaded, trial.settings, output=path, progress=job, models=models)
            answers = tuple(
                Answers.of(NAMES.get(row.instruction.method, INSTRUCTION_NAME), row.instruction, row.scored)
                for row in induced.rows
            )
            changes = {
                "query": induced.rows[-1].scored.query if induced.rows else (),
                "answers": answers,
                "differences": tuple(induced.differences.values()),
                "break_even": induced.break_even,
                "notes": (*induced.notes, *induced.instruction.provenance.notes),
            }
            done = trial.model_copy(update=changes)
            self.store.save(done)
            return done

    def edit(self, trial: Trial, parent: Trial, text: str, job: Job) -> Trial:
        """Measure an edited text on its parent's rows, the least certain first."""
        settings, before = trial.settings, parent.answers[-1]
        task = self.store.loaded(parent).task
        follower = pipeline.make_follower(settings, self.models.at(settings.endpoint), job)
        unfitted = with_text(before.instruction, text)
        if follower.calibration != "none":
            job.step("Calibrating the edit", settings.n)
        instruction = fit_calibration(unfitted, follower, draw_support(task, settings.n, settings.seed).examples)
        job.step("Labelling the rows again", len(parent.query))
        scored = _score_again(follower, instruction, parent, job)
        instruction = instruction.measured_as(scored.measurement())
        others = (
            *(answers for answers in parent.answers if answers.name in NAMES.values()),
            before.model_copy(update={"name": "Before the edit"}),
        )
        changes = {
            "query": parent.query,
            "answers": (*others, Answers.of("After the edit", instruction, scored)),
            "differences": tuple(
                metrics.paired_differences(scored.gold, scored.labels, [old.labels for old in others])
            ),
        }
        done = trial.model_copy(update=changes)
        self.store.save(done)
        instruction.save(self.store.folder(trial.key) / "instruction.json", force=True)
        return done

    def label(self, trial: Trial, instruction: Instruction, text: str) -> Prediction:
        """The follower's answer for one text."""
        follower = pipeline.make_follower(trial.settings, self.models.at(trial.settings.endpoint))
        return follower.predict(instruction, [text])[0]

    @contextmanager
    def _saving_failure(self, trial: Trial) -> Generator[None]:
        """Save the reason in the trial if it is stopped or fails."""
        try:
            yield
        except Cancelled:
            self.store.save(trial.model_copy(update={"failure": "You stopped this run."}))
            raise
        except Exception as error:
            self.store.save(trial.model_copy(update={"failure": failure_message(error)}))
            raise


def _score_again(follower: Follower, instruction: Instruction, parent: Trial, job: Job) -> Scored:
    """The score on the parent's rows. The least certain rows come first, as their labels are likeliest to change."""
    before = parent.answers[-1]
    order = sorted(range(len(parent.query)), key=lambda i: before.probabilities[i] or 0.0)
    predictions: dict[int, Prediction] = {}
    for batch in batches(order, BATCH):
        part = score(follower, instruction, [parent.query[i] for i in batch])
        predictions |= zip(batch, part.predictions, strict=True)
        changes = [Change(parent.query[i], before.labels[i], predictions[i].label) for i in batch]
        job.show(*(change for change in changes if change.before != change.after))
    return Scored(parent.query, tuple(predictions[i] for i in range(len(parent.query))))
