"""GEPA, reflective prompt evolution (Agrawal et al. 2025, arXiv 2507.19457), through the `gepa` package.

The package runs the search as its authors recommend: Pareto selection of parents, minibatches of three, a reflection
model that reads the mistakes. It sees the support alone: one part to learn on, the other to validate. Its metric is
right or wrong per row; promptmii keeps the candidate with the best macro-F1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from promptmii.errors import EndpointError, MissingDependencyError
from promptmii.follower import Follower, Prediction
from promptmii.inducers.method import Expected, Kit, Method, WrittenBy
from promptmii.inducers.search import Search, held_back
from promptmii.inducers.writing import Writer
from promptmii.instruction import Instruction
from promptmii.models.base import Sampling
from promptmii.styles import Style
from promptmii.task import Example, Support

COMPONENT = "instruction"
SEED = "Read the input and decide which of the labels describes it best."


@dataclass(frozen=True)
class GEPA:
    """Search by reflection, within a number of metric calls."""

    writer: Writer
    """The reflection model; its style is not used."""
    follower: Follower
    calls: int = 150
    name: str = "gepa"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The best instruction.

        Raises `EndpointError`, `ScoreRefusedError`, and `ConfigError` if the support is too small to split.
        """
        try:
            from gepa.api import optimize
        except ImportError as error:
            raise MissingDependencyError("GEPA", "gepa") from error
        search = Search(replace(self.writer, style=Style()), self.follower, support)
        adapter: Any = _Adapter(search)
        reflection = _Reflection(search, seed)
        outcome: Any = optimize(
            seed_candidate={COMPONENT: SEED},
            trainset=list(search.shown.examples),
            valset=list(search.held.examples),
            adapter=adapter,
            reflection_lm=reflection,
            max_metric_calls=self.calls,
            seed=seed,
            logger=_Silent(),
        )
        if reflection.error:
            raise reflection.error
        candidates: list[str] = list(dict.fromkeys(candidate[COMPONENT].strip() for candidate in outcome.candidates))
        texts = [search.trim(text) for text in candidates if text]
        best = max(sorted(texts, key=lambda text: (len(text), text)), key=search.macro_f1)
        note = f"best of {len(texts)} candidates"
        return search.result(best, self.name, n=len(support.examples), seed=seed, notes=(note,))


class _Adapter:
    """The interface of the package: outputs, a score per row, and what the reflection model reads."""

    propose_new_texts: None = None

    def __init__(self, search: Search) -> None:
        self._search = search

    def evaluate(self, batch: list[Example], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        from gepa.core.adapter import EvaluationBatch

        scored = self._search.predict(candidate[COMPONENT], batch)
        rows = list(zip(batch, scored.predictions, strict=True))
        scores = [float(prediction.label == example.label) for example, prediction in rows]
        return EvaluationBatch([prediction.label for _, prediction in rows], scores, rows if capture_traces else None)

    def make_reflective_dataset(
        self,
        candidate: dict[str, str],  # noqa: ARG002
        eval_batch: Any,
        components_to_update: list[str],
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        traces: list[tuple[Example, Prediction]] = eval_batch.trajectories
        read = [
            {"Inputs": e.text, "Generated Outputs": p.label or p.answer or "", "Feedback": _feedback(e, p)}
            for e, p in traces
        ]
        return dict.fromkeys(components_to_update, read)


def _feedback(example: Example, prediction: Prediction) -> str:
    if prediction.label == example.label:
        return f"Right: the label is {example.label!r}."
    given = f"{prediction.label!r}" if prediction.label else "no label of the task"
    return f"Wrong: the label is {example.label!r}, and the answer was {given}."


class _Reflection:
    """The reflection model as the package calls it. It samples, so that a parent chosen twice changes in two ways."""

    def __init__(self, search: Search, seed: int) -> None:
        self._search = search
        self._seed = seed * 1000
        self.error: EndpointError | None = None
        """A call that failed. The package would go on without it and return the text it started from."""

    def __call__(self, prompt: str | list[dict[str, Any]]) -> str:
        self._seed += 1
        content = prompt if isinstance(prompt, str) else str(prompt)
        room = self._search.writer.room(self._search.support.labels)
        sampling = Sampling(room, temperature=1.0, seed=self._seed)
        answer = self._search.writing.generate([[{"role": "user", "content": content}]], sampling)[0]
        try:
            return self._search.writer.text(answer)
        except EndpointError as error:
            self.error = error
            raise


class _Silent:
    """The package's log is not the user's."""

    def log(self, message: str) -> None:
        """Say nothing."""


class GEPAMethod(Method):
    name = "gepa"
    summary = "GEPA: a search in which a model reads what went wrong and rewrites the instruction"
    written_by = WrittenBy.SEARCHER

    calls: int = Field(default=150, ge=1, description="metric calls: rows labelled to score candidates")

    def inducer(self, kit: Kit) -> GEPA:
        return GEPA(kit.writer, kit.follower, self.calls)

    def expected(self, n: int) -> Expected:
        """A reflection follows on two minibatches of three; about half of the proposals reach the validation rows."""
        held = held_back(n)
        written = self.calls // (6 + held // 2)
        return Expected(written, 3, metric_calls=self.calls, calibration_calls=(written + 1) * (n - held))
