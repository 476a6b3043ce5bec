"""In-context learning with the examples most similar to the query (Liu et al. 2021, arXiv 2101.06804).

A stronger baseline than ICL with fixed examples, but a more expensive one: two prompts rarely share more than the
frame, so a shared prefix or a provider's prompt cache saves little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from promptmii.follower import Follower
from promptmii.inducers.fixed import NoInstruction
from promptmii.inducers.icl import max_example_tokens
from promptmii.inducers.method import Kit, Method, Role
from promptmii.instruction import Instruction, Similarity
from promptmii.models import sentences
from promptmii.prompts import example_lines, follower_frame, frame_prompt
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

    def predictor(self, kit: Kit, support: Support, seed: int) -> "NearestFollower":  # noqa: ARG002
        follower = kit.follower
        return NearestFollower(
            follower.model,
            follower.mode,
            follower.calibration,
            follower.shortlist,
            examples=support.examples,
            k=self.k,
            similarity="tfidf" if self.similarity == "tfidf" else "embedding",
            max_tokens=max_example_tokens(follower.model, follower_frame(), support.labels),
        )

    def in_prompt(self, n: int) -> int:
        return min(n, self.k)


@dataclass(frozen=True, kw_only=True)
class NearestFollower(Follower):
    """A follower whose prompt shows each text the examples most similar to it, and never the text itself."""

    examples: Sequence[Example]
    k: int
    similarity: Similarity
    max_tokens: int
    """Room for the examples in a prompt."""

    def prompt(self, instruction: Instruction, text: str) -> str:
        """The most similar examples come last, next to the text."""
        (scores,) = self._similarity_to([text])
        normalised = normalise_text(text)
        ranking = np.argsort(-scores, kind="stable").tolist()
        others = [position for position in ranking if self._normalised[position] != normalised]
        return self._showing(instruction, self._first_fitting(others)[::-1], text)

    def longest_prompt(self, instruction: Instruction) -> str:
        by_length = sorted(range(len(self.examples)), key=self._lengths.__getitem__, reverse=True)
        return self._showing(instruction, self._first_fitting(by_length), "")

    def _showing(self, instruction: Instruction, examples: Sequence[Example], text: str) -> str:
        body = instruction.template.format_examples(examples) if examples else ""
        return frame_prompt(instruction.template, body, instruction.labels, text)

    def _first_fitting(self, positions: Sequence[int]) -> list[Example]:
        """Up to k examples within `max_tokens`, in order of preference."""
        chosen: list[Example] = []
        room = self.max_tokens
        for position in positions:
            if len(chosen) < self.k and self._lengths[position] <= room:
                chosen.append(self.examples[position])
                room -= self._lengths[position]
        return chosen

    @cached_property
    def _lengths(self) -> list[int]:
        """Tokens per example."""
        return self.model.count_tokens([example_lines([example]) + "\n\n" for example in self.examples])

    @cached_property
    def _normalised(self) -> list[str]:
        return [normalise_text(example.text) for example in self.examples]

    @cached_property
    def _similarity_to(self) -> sentences.SimilarityTo:
        return sentences.similarity_to(self.similarity, [example.text for example in self.examples])
