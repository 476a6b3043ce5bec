"""ICL with the examples that are most like the query (Liu et al. 2021, arXiv 2101.06804): the ICL to beat.

Each query has a prompt of its own, so prompts share no beginning with examples in it: no prefix is computed once for
all, and no provider's prompt cache helps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field, PrivateAttr, field_validator

from promptmii.follower import Follower, Prediction, Predictor
from promptmii.inducers.fixed import Unprompted, examples_room
from promptmii.inducers.method import Kit, Method, Role
from promptmii.instruction import Instruction, Similarity
from promptmii.models import sentences
from promptmii.prompts import example_lines, frame_prompt, shown_examples
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
    def _resolve(cls, given: str) -> str:  # so that the key of a result says which it was
        return sentences.best() if given == "auto" else given

    def check(self) -> None:
        if self.similarity == "embedding":
            sentences.weights()

    def inducer(self, kit: Kit) -> Unprompted:  # noqa: ARG002
        note = f"each prompt shows up to {self.k} examples, those most similar to its text by {self.similarity}"
        return Unprompted(self.name, note)

    def predictor(self, kit: Kit, support: Support, seed: int) -> "NearestPredictor":  # noqa: ARG002
        by = "tfidf" if self.similarity == "tfidf" else "embedding"
        return NearestPredictor(kit.follower, Neighbours(support.examples, kit.follower, self.k, by))

    def in_prompt(self, n: int) -> int:
        return min(n, self.k)


@dataclass(frozen=True)
class Neighbours:
    """The examples, by their similarity to a text."""

    examples: Sequence[Example]
    follower: Follower
    k: int
    similarity: Similarity

    def nearest(self, text: str, room: int) -> tuple[Example, ...]:
        """The k nearest, the nearest last, as many as fit. An example never stands in the prompt for its own text."""
        (scores,) = self._likeness([text])
        own = normalise_text(text)
        order = [position for position in np.argsort(-scores, kind="stable").tolist() if self._keys[position] != own]
        return self._first(order, room)[::-1]

    def longest(self, room: int) -> tuple[Example, ...]:
        """The longest examples that `nearest` could choose together."""
        order = sorted(range(len(self.examples)), key=self.lengths.__getitem__, reverse=True)
        return self._first(order, room)

    def _first(self, order: Sequence[int], room: int) -> tuple[Example, ...]:
        """The first k in this order that fit."""
        chosen: list[Example] = []
        for position in order:
            if len(chosen) < self.k and self.lengths[position] <= room:
                chosen.append(self.examples[position])
                room -= self.lengths[position]
        return tuple(chosen)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return self.follower.model.count_tokens([example_lines([example]) + "\n\n" for example in self.examples])

    @cached_property
    def _keys(self) -> list[str]:
        return [normalise_text(example.text) for example in self.examples]

    @cached_property
    def _likeness(self) -> sentences.Likeness:
        return sentences.likeness(self.similarity, [example.text for example in self.examples])


class _PerQuery(Instruction):
    """An instruction whose text is the examples nearest to the query."""

    _neighbours: Neighbours = PrivateAttr()
    _room: int = PrivateAttr()

    @classmethod
    def showing(cls, instruction: Instruction, neighbours: Neighbours, room: int) -> "_PerQuery":
        bound = cls.model_validate(instruction.model_dump())
        bound._neighbours, bound._room = neighbours, room
        return bound

    def prompt(self, text: str) -> str:
        return self._showing(self._neighbours.nearest(text, self._room), text)

    @property
    def longest_prompt(self) -> str:
        return self._showing(self._neighbours.longest(self._room), "")

    def _showing(self, examples: Sequence[Example], text: str) -> str:
        body = shown_examples(examples) if examples else ""
        return frame_prompt(self.template, body, self.labels, text)


@dataclass(frozen=True)
class NearestPredictor(Predictor):
    """A follower with a prompt of its own for each text."""

    follower: Follower
    neighbours: Neighbours

    def prepare(self, instruction: Instruction, support: Support) -> Instruction:
        """The support texts calibrate it: each is scored under a prompt that does not show it."""
        prepared = self.follower.prepare(self._per_query(instruction), support)
        return Instruction.model_validate(prepared.model_dump())

    def predict(self, instruction: Instruction, texts: Sequence[str]) -> list[Prediction]:
        return self.follower.predict(self._per_query(instruction), texts)

    def _per_query(self, instruction: Instruction) -> _PerQuery:
        room = examples_room(self.follower.model, instruction.template, instruction.labels)
        return _PerQuery.showing(instruction, self.neighbours, room)
