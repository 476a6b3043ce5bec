"""In-context learning (ICL): the examples themselves in every prompt. It shows what an instruction has to match."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from promptmii.inducers.method import Kit, StyledMethod
from promptmii.inducers.writing import fit_examples
from promptmii.instruction import Instruction, Provenance
from promptmii.models.base import TEMPLATE_MARGIN, LanguageModel
from promptmii.prompts import Template, frame_prompt, frame_template
from promptmii.styles import Style, read_style
from promptmii.task import Support

QUERY_SHARE = 0.25
"""The share of the context that ICL keeps free for the query."""


@dataclass(frozen=True)
class InContext:
    """Many-shot in-context learning: as many support examples as fit the follower's context."""

    follower: LanguageModel
    style: Style = field(default_factory=Style)
    name = "icl"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """Show the examples that fit, in the order of the support; `provenance.n` is their number. Calls no model."""
        frame = frame_template(self.style.frame)
        blocks = [frame.format_example(example) + "\n\n" for example in support.examples]
        lengths = self.follower.count_tokens(blocks)
        limit = max_example_tokens(self.follower, frame, support.labels)
        place = f"the context of {self.follower.card.context_length} tokens"
        shown, notes = fit_examples(support.examples, lengths, limit, place)
        return Instruction(
            text=frame.format_examples(shown) if shown else "",
            labels=support.labels,
            method=self.name,
            frame=self.style.frame,
            longest_answer=self.style.answer,
            provenance=Provenance(n=len(shown), seed=seed, support_key=support.key, notes=notes),
        ).fitted_on(support)


def max_example_tokens(follower: LanguageModel, frame: Template, labels: Sequence[str]) -> int:
    """Tokens available for the examples in the follower's prompt."""
    context = follower.card.context_length
    (frame_tokens,) = follower.count_tokens([frame_prompt(frame, "Examples:", labels, "")])
    return context - int(context * QUERY_SHARE) - TEMPLATE_MARGIN - frame_tokens


class ICLMethod(StyledMethod):
    name = "icl"
    summary = "in-context learning: the n examples in every prompt, as many as fit"
    by_default = True
    prompt = "examples"

    def inducer(self, kit: Kit) -> InContext:
        return InContext(kit.follower.model, read_style(self.style))
