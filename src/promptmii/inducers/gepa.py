"""GEPA, reflective prompt evolution (Agrawal et al. 2025, arXiv 2507.19457), through the `gepa` package.

The search uses the settings that its authors recommend: Pareto selection of parents, minibatches of three, and a
reflection model that reads the mistakes. It sees only the support: one part to learn from, the other to validate on.
Its metric is accuracy; promptmii then picks the candidate with the best macro-F1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from promptmii.errors import required_by
from promptmii.follower import Follower, Prediction
from promptmii.inducers.method import Expected, Kit, Method, WrittenBy
from promptmii.inducers.search import Search, held_back
from promptmii.inducers.writing import Writer
from promptmii.instruction import Instruction
from promptmii.models.base import Sampling
from promptmii.styles import Style
from promptmii.task import Example, Support

COMPONENT = "instruction"
SEED_INSTRUCTION = "Read the input and decide which of the labels describes it best."


@dataclass(frozen=True)
class GEPA:
    """Reflective search with a limited number of metric calls."""

    writer: Writer
    """The reflection model. Its style is ignored."""
    follower: Follower
    calls: int = 150
    """Maximum metric calls: rows labelled to score candidates."""
    name = "gepa"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The best instruction.

        Raises `EndpointError`, `ScoreRefusedError`, `SpendingLimitError`, and `ConfigError` if the support is too small
        to split.
        """
        with required_by("GEPA", "gepa"):
            from gepa.api import optimize
        search = Search(replace(self.writer, style=Style()), self.follower, support)
        adapter: Any = _Adapter(search)
        reflection = _Reflection(search, seed)
        result: Any = optimize(
            seed_candidate={COMPONENT: SEED_INSTRUCTION},
            trainset=list(search.shown.examples),
            valset=list(search.held.examples),
            adapter=adapter,
            reflection_lm=reflection,
            max_metric_calls=self.calls,
            stop_callbacks=reflection.failed,
            seed=seed,
            logger=_NoLog(),
        )
        if reflection.error:
            raise reflection.error
        candidates: list[str] = list(dict.fromkeys(candidate[COMPONENT].strip() for candidate in result.candidates))
        texts = [search.trim(text) for text in candidates if text]
        best = max(sorted(texts, key=lambda text: (len(text), text)), key=search.macro_f1)
        note = f"best of {len(texts)} candidates"
        return search.result(best, self.name, n=len(search.shown.examples), seed=seed, notes=(note,))


class _Adapter:
    """Implements the package's `GEPAAdapter` with a follower."""

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
        records = [
            {
                "Inputs": example.text,
                "Generated Outputs": prediction.label or prediction.answer or "",
                "Feedback": _feedback(example, prediction),
            }
            for example, prediction in traces
        ]
        return dict.fromkeys(components_to_update, records)


def _feedback(example: Example, prediction: Prediction) -> str:
    if prediction.label == example.label:
        return f"Right: the label is {example.label!r}."
    answer = repr(prediction.label) if prediction.label else "no label of the task"
    return f"Wrong: the label is {example.label!r}, and the answer was {answer}."


class _Reflection:
    """The reflection model, as a function from prompt to text. It samples, so equal prompts give different texts."""

    def __init__(self, search: Search, seed: int) -> None:
        self._search = search
        self._seed = seed * 1000
        self.error: Exception | None = None
        """The first error of a call. The package ignores it; `GEPA.induce` raises it."""

    def __call__(self, prompt: str | list[dict[str, Any]]) -> str:
        self._seed += 1
        max_tokens = self._search.writer.max_tokens(self._search.support.labels)
        sampling = Sampling(max_tokens, temperature=1.0, seed=self._seed)
        try:
            answer = self._search.generator.generate([[{"role": "user", "content": str(prompt)}]], sampling)[0]
            self._search.written += 1
            return self._search.writer.text(answer)
        except Exception as error:  # also a spending limit: without it, an unfinished search would get a score
            self.error = self.error or error
            raise

    def failed(self, gepa_state: object) -> bool:  # noqa: ARG002  the package gives it by name
        """Whether a call raised, so that the search should stop."""
        return self.error is not None


class _NoLog:
    """Discards the package's log messages."""

    def log(self, message: str) -> None: ...


class GEPAMethod(Method):
    name = "gepa"
    summary = "GEPA: a search in which a model reads what went wrong and rewrites the instruction"
    written_by = WrittenBy.SEARCHER

    calls: int = Field(default=150, ge=1, description="metric calls: rows labelled to score candidates")

    def inducer(self, kit: Kit) -> GEPA:
        return GEPA(kit.writer, kit.follower, self.calls)

    def expected(self, n: int) -> Expected:
        """An estimate: a proposal costs two minibatches of three, and half of the proposals are validated."""
        held = held_back(n)
        written = self.calls // (6 + held // 2)
        return Expected(written, 3, metric_calls=self.calls, calibration_calls=(written + 1) * (n - held))
