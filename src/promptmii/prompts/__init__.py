"""The one formatter of examples, label lists and frames, for generator and follower, training and evaluation.

Two rules keep data from being read as structure. A text is written as a JSON string on one line, so that
neither a newline nor "Label:" inside it can open a new field, and it can be read back exactly. Whatever
looks like a chat-template token is written so that no tokenizer takes it for one: escaped inside a quoted
text (`\\u003c|im_end|>`), broken by a space elsewhere (`< |im_end|>`).

The templates are the `.txt` files beside this module. A template's `key` is its content hash and is part of
every artefact and record, so results from different wordings never mix.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path

from promptmii.errors import ConfigError
from promptmii.task import Example, content_key

# Control tokens, as tokenizers list them: Llama, Mistral, Gemma, Qwen, GLM, Phi, DeepSeek, Command, EXAONE, Kimi,
# MiniMax, Seed, InternLM, Granite, StarCoder, SmolLM, T5, BERT. For servers: a model in this process has its own
# list (`models.chat`).
_ANGLED = r"""
    s bos eos pad unk mask cls sep sop eop eoh eoa think tool_calls? tool_response tools? arg_key arg_value image
    video audio (?:start|end)_of_\w+ \w+_soft_token (?:\w+_)?(?:unused|reserved|special)_?\d+ extra_id_\d+ seed:\w+
    (?:bos|eos|pad|unk|mask|sep|cls|eop)_token fim_\w+ file_sep repo_?name filename gh_stars issue_\w+ jupyter_\w+
    commit_\w+ empty_output
"""
_BRACKETED = r"""
    INST AVAILABLE_TOOLS TOOL_RESULTS TOOL_CALLS TOOL_CONTENT CALL_ID ARGS SYSTEM_PROMPT MODEL_SETTINGS THINK
    IMG IMG_BREAK IMG_END AUDIO BEGIN_AUDIO TRANSCRIBE PREFIX MIDDLE SUFFIX CLS SEP MASK PAD UNK BOS EOS EOT
    gMASK sMASK multimodal
"""
CONTROL = re.compile(
    r"<(?=\|[^|<>\s]{1,40}\|?>|[^|<>\s]{1,40}\|>|｜[^｜<>]{1,40}｜>|</?SYS>>|</?SYS>"
    rf"|/?(?i:{'|'.join(_ANGLED.split())})>)"
    rf"|\[(?=\|[^|\[\]\s]{{1,40}}\|\]|/?(?:{'|'.join(_BRACKETED.split())})\]|e~\[)|\](?=~!?[a-z]{{1,8}}[\[\]])"
)
_SLOT = re.compile(r"\{\{(\w+)(?:\|(\w+))?\}\}")


def quote(text: str) -> str:
    """`text` as a one-line JSON string that no tokenizer takes for control tokens. `json.loads` gives `text` back."""
    quoted = json.dumps(text, ensure_ascii=False)
    # JSON leaves these three alone, but many readers take them for line ends.
    quoted = quoted.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def defuse(text: str) -> str:
    """`text` with a space inside what looks like a control token: for labels and instructions, which are not quoted."""
    return CONTROL.sub(lambda match: match[0] + " ", text)


def label_lines(labels: Iterable[str]) -> str:
    """One label per line, so that a label may hold commas."""
    return "\n".join(f"- {defuse(label)}" for label in labels)


def example_lines(examples: Iterable[Example]) -> str:
    """The examples, two lines each, a blank line between them."""
    return "\n\n".join(f"Input: {quote(example.text)}\nLabel: {defuse(example.label)}" for example in examples)


def grouped_examples(labels: Sequence[str], examples: Iterable[Example]) -> str:
    """Each label that has examples, then a line for each of them."""
    by_label: dict[str, list[str]] = {label: [] for label in labels}
    for example in examples:
        by_label[example.label].append(f"- {quote(example.text)}")
    return "\n\n".join("\n".join([f"{defuse(label)}:", *lines]) for label, lines in by_label.items() if lines)


def shown_example(example: Example, layout: str = "") -> str:
    """One example as `shown_examples` writes it."""
    raw = f"Input: {defuse(example.text)}\nLabel: {defuse(example.label)}"
    return raw if layout == "raw" else example_lines([example])


def shown_examples(examples: Iterable[Example], layout: str = "") -> str:
    """The body of a prompt that shows examples instead of an instruction; `layout` is that of the frame's text."""
    blocks = [shown_example(example, layout) for example in examples]
    return "\n".join(blocks) if layout == "raw" else "\n\n".join(["Examples:", *blocks])


def shows(body: str, example: Example, layout: str = "") -> bool:
    """The body of a prompt shows this example, as `shown_examples` writes it."""
    block = shown_example(example, layout)
    return f"\n{block}\n" in f"\n{body}\n" if layout == "raw" else block in body.split("\n\n")


def without_examples(body: str, examples: Iterable[Example], layout: str = "") -> str:
    """The body of a prompt as it would be if it did not show these examples."""
    hidden = {shown_example(example, layout) for example in examples}
    if layout != "raw":
        return "\n\n".join(block for block in body.split("\n\n") if block not in hidden)
    lined = f"\n{body}\n"
    for block in hidden:
        while f"\n{block}\n" in lined:
            lined = lined.replace(f"\n{block}\n", "\n")
    return lined[1:-1]


def _plain(layout: str) -> Callable[[Sequence[str], Iterable[Example]], str]:
    def lay_out(_: Sequence[str], examples: Iterable[Example]) -> str:
        return "".join(layout.format(defuse(example.text), defuse(example.label)) for example in examples)

    return lay_out


_LABELS: dict[str, Callable[[Sequence[str]], str]] = {
    "": label_lines,
    "comma": lambda labels: ", ".join(map(defuse, labels)),
}
_EXAMPLES: dict[str, Callable[[Sequence[str], Iterable[Example]], str]] = {
    "": grouped_examples,
    "input": _plain("Input: {}\nLabel: {}\n"),
    "text": _plain('Text: "{}"\nLabel: {}\n\n'),
}
_TEXT: dict[str, Callable[[str], str]] = {"": quote, "raw": defuse}
_LAYOUTS = {"labels": _LABELS, "examples": _EXAMPLES, "text": _TEXT}
"""What may stand behind the bar of a slot, `{{labels|comma}}`; without one, the layout that no data can break."""
OPTIONAL = "budget"
"""A slot that a template may lack: a budget then is not asked for, only kept."""


@dataclass(frozen=True)
class Template:
    """Text with `{{slots}}`. Filled in one pass, so what is filled in is never read as a slot."""

    text: str
    slots: tuple[str, ...]
    """Every slot must occur in the text exactly once, and no other. `budget` may be missing."""

    def __post_init__(self) -> None:
        written = _SLOT.findall(self.text)
        found = [name for name, _ in written]
        if sorted(found) not in (sorted(self.slots), sorted({*self.slots} - {OPTIONAL})):
            given = ", ".join(f"{{{{{name}}}}}" for name in found) or "none"
            wanted = ", ".join(f"{{{{{name}}}}}" for name in self.slots)
            raise ConfigError(f"The template has the slots {given}; expected each of {wanted} exactly once.")
        for name, layout in written:
            known = _LAYOUTS.get(name, {"": None})
            if layout not in known:
                raise ConfigError(
                    f"Unknown layout {{{{{name}|{layout}}}}}. Known: {', '.join(filter(None, known)) or 'none'}."
                )

    @cached_property
    def key(self) -> str:
        """First 16 hex digits of the content hash."""
        return content_key(self.text)[:16]

    def fill(self, **values: str) -> str:
        """The text with every slot replaced. The line break at the end of a file is not part of it."""
        return _SLOT.sub(lambda match: values[match[1]], self.text.removesuffix("\n"))

    def layout(self, slot: str) -> str:
        """What stands behind the bar of a slot."""
        return next((layout for name, layout in _SLOT.findall(self.text) if name == slot), "")

    def written(self, text: str) -> str:
        """A text as this frame shows it."""
        return _TEXT[self.layout("text")](text)

    def written_labels(self, labels: Sequence[str]) -> str:
        """A label list as this template shows it."""
        return _LABELS[self.layout("labels")](labels)


FRAME_SLOTS = ("instruction", "labels", "text")
META_SLOTS = ("examples", "labels", "budget")


@lru_cache
def bundled(name: str, slots: tuple[str, ...]) -> Template:
    """A template shipped with promptmii, by file name without `.txt`."""
    return Template(resources.files("promptmii.prompts").joinpath(f"{name}.txt").read_text(encoding="utf-8"), slots)


def follower_frame() -> Template:
    """What a follower reads: instruction, labels, then the text, so that everything but the text is a shared prefix."""
    return bundled("follower", FRAME_SLOTS)


def meta_prompt() -> Template:
    """What an instruction generator reads."""
    return bundled("meta", META_SLOTS)


def read_template(path: Path, slots: tuple[str, ...]) -> Template:
    """A user's own template file, e.g. the one that a released checkpoint was trained with."""
    try:
        return Template(path.read_text(encoding="utf-8"), slots)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The template file {path} cannot be read: {error}. Expected UTF-8 text with the slots {', '.join(slots)}."
        ) from error


def frame_parts(frame: Template, instruction: str, labels: Sequence[str]) -> tuple[str, str]:
    """What a follower reads before and after the text. `instruction` may be empty (the naive method)."""
    values = {"instruction": defuse(instruction.strip()), "labels": frame.written_labels(labels)}
    before, after = re.split(r"\{\{text(?:\|\w+)?\}\}", frame.text)
    before, after = (_SLOT.sub(lambda match: values[match[1]], part) for part in (before, after))
    return before.lstrip("\n"), after.rstrip("\n")


def frame_prompt(frame: Template, instruction: str, labels: Sequence[str], text: str) -> str:
    """The follower's whole prompt for one text."""
    before, after = frame_parts(frame, instruction, labels)
    return before + frame.written(text) + after


def induction_prompt(
    template: Template, labels: Sequence[str], examples: Iterable[Example], budget: int | None = None
) -> str:
    """The generator's whole prompt. Examples are grouped by label, so that what they share stands out."""
    limit = f" Use at most {max(budget * 3 // 4, 1)} words." if budget else ""
    shown = _EXAMPLES[template.layout("examples")](labels, examples)
    return template.fill(examples=shown, labels=template.written_labels(labels), budget=limit)


def improvement_prompt(request: str, instruction: str) -> str:
    """A request for an instruction, that starts from one which is there already."""
    return bundled("improve", ("request", "instruction")).fill(request=request, instruction=defuse(instruction))


def extension_prompt(instruction: str, label: str, examples: Iterable[Example]) -> str:
    """A request for the line of a label that an instruction lacks."""
    return bundled("extend", ("label", "examples", "instruction", "name")).fill(
        label=defuse(label),
        examples=grouped_examples([label], examples),
        instruction=defuse(instruction) or "(none)",
        name=defuse(label),
    )


def ape_propose(labels: Sequence[str], examples: Iterable[Example], budget: int | None = None) -> str:
    """APE's request for an instruction that would have led to the examples."""
    limit = f" Use at most {max(budget * 3 // 4, 1)} words." if budget else ""
    return bundled("ape_propose", META_SLOTS).fill(
        examples=example_lines(examples), labels=label_lines(labels), budget=limit
    )


def ape_vary(instruction: str) -> str:
    """APE's request for a variation."""
    return bundled("ape_vary", ("instruction",)).fill(instruction=defuse(instruction))
