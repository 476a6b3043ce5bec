"""In-context learning with the examples most similar to the query (Liu et al. 2021, arXiv 2101.06804).

A stronger baseline than ICL with fixed examples, but a more expensive one: two prompts rarely share more than the
frame, so a shared prefix or a provider's prompt cache saves little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field, PrivateAttr, field_validator

from promptmii.follower import Follower, Prediction, Predictor
from promptmii.inducers.fixed import NoInstruction
from promptmii.inducers.icl import max_example_tokens
from promptmii.inducers.method import Kit, Method, Role
from promptmii.instruction import Instruction, Similarity
from promptmii.models import sentences
from promptmii.prompts import example_lines, format_examples, frame_prompt
from promptmii.task import Example, Support, normalise_text


class NearestMethod(Method):
    name = "knn-icl"
    summary = "in-context learning with the k examples most similar to each query, in a prompt of its own"
    role = Role.RIVAL
    prompt = "examples"

    k: int = Field(default=5, ge=1, description="examples in a prompt")
    similarity: Literal["auto", "embedding", "tfidf"] = Field(
        default="auto", validate_default=True, description="auto: embedding if minilm is installed, else tfidf"
    )

    @field_validator("similarity")
    @classmethod
    def _resolve(cls, similarity: str) -> str:
        """Replace `auto`, so that the key of a result identifies the similarity that was used."""
        return sentences.best_similarity() if similarity == "auto" else similarity

    def check(self) -> None:
        if self.similarity == "embedding":
            sentences.weights()

    def inducer(self, kit: Kit) -> NoInstruction:  # noqa: ARG002
        note = f"each prompt shows up to {self.k} examples, those most similar to its text by {self.similarity}"
        return NoInstruction(self.name, note)

    def predictor(self, kit: Kit, support: Support, seed: int) -> "NearestPredictor":  # noqa: ARG002
        by = "tfidf" if self.similarity == "tfidf" else "embedding"
        return NearestPredictor(kit.follower, Neighbours(support.examples, kit.follower, self.k, by))

    def in_prompt(self, n: int) -> int:
        return min(n, self.k)


@dataclass(frozen=True)
class Neighbours:
    """The examples, searchable by their similarity to a text."""

    examples: Sequence[Example]
    follower: Follower
    k: int
    similarity: Similarity

    def nearest(self, text: str, max_tokens: int) -> tuple[Example, ...]:
        """Up to k examples within `max_tokens`, the most similar last. Examples equal to the text are left out."""
        (scores,) = self._similarity_to([text])
        normalised = normalise_text(text)
        ranking = np.argsort(-scores, kind="stable").tolist()
        others = [position for position in ranking if self._normalised[position] != normalised]
        return self._first_fitting(others, max_tokens)[::-1]

    def longest(self, max_tokens: int) -> tuple[Example, ...]:
        """Up to k examples within `max_tokens`, the longest ones, to estimate the length of a prompt."""
        by_length = sorted(range(len(self.examples)), key=self.lengths.__getitem__, reverse=True)
        return self._first_fitting(by_length, max_tokens)

    def _first_fitting(self, positions: Sequence[int], max_tokens: int) -> tuple[Example, ...]:
        """Up to k examples within `max_tokens`, in order of preference."""
        chosen: list[Example] = []
        for position in positions:
            if len(chosen) < self.k and self.lengths[position] <= max_tokens:
                chosen.append(self.examples[position])
                max_tokens -= self.lengths[position]
        return tuple(chosen)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens per example."""
        return self.follower.model.count_tokens([example_lines([example]) + "\n\n" for example in self.examples])

    @cached_property
    def _normalised(self) -> list[str]:
        return [normalise_text(example.text) for example in self.examples]

    @cached_property
    def _similarity_to(self) -> sentences.SimilarityTo:
        return sentences.similarity_to(self.similarity, [example.text for example in self.examples])


class _PerQuery(Instruction):
    """An instruction that shows each text its nearest examples."""

    _neighbours: Neighbours = PrivateAttr()
    _max_tokens: int = PrivateAttr()

    @classmethod
    def bind(cls, instruction: Instruction, neighbours: Neighbours, max_tokens: int) -> "_PerQuery":
        per_query = cls.model_validate(instruction.model_dump())
        per_query._neighbours, per_query._max_tokens = neighbours, max_tokens
        return per_query

    def prompt(self, text: str) -> str:
        return self._prompt_with(self._neighbours.nearest(text, self._max_tokens), text)

    @property
    def empty_prompt(self) -> str:
        return self._prompt_with(self._neighbours.longest(self._max_tokens), "")

    def _prompt_with(self, examples: Sequence[Example], text: str) -> str:
        body = format_examples(examples) if examples else ""
        return frame_prompt(self.template, body, self.labels, text)


@dataclass(frozen=True)
class NearestPredictor(Predictor):
    """A follower whose prompt shows each text its nearest examples."""

    follower: Follower
    neighbours: Neighbours

    def prepare(self, instruction: Instruction, support: Support) -> Instruction:
        """Calibrate on the support. The prompt for a support text never shows that text."""
        prepared = self.follower.prepare(self._per_query(instruction), support)
        return Instruction.model_validate(prepared.model_dump())

    def predict(self, instruction: Instruction, texts: Sequence[str]) -> list[Prediction]:
        return self.follower.predict(self._per_query(instruction), texts)

    def _per_query(self, instruction: Instruction) -> _PerQuery:
        max_tokens = max_example_tokens(self.follower.model, instruction.template, instruction.labels)
        return _PerQuery.bind(instruction, self.neighbours, max_tokens)
