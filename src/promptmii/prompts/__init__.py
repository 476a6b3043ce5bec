"""Formats every prompt: examples, label lists and frames, for the generator and the follower.

Two rules keep data from being read as structure. A text is written as a JSON string on one line, so neither a line
break nor "Label:" inside it can start a new field, and it can be read back exactly. Control tokens of chat templates
are escaped inside a quoted text (`\\u003c|im_end|>`) and split by a space elsewhere (`< |im_end|>`), so no tokenizer
recognises them.

The templates are the `.txt` files in this folder. A template's `key` is its content hash and part of every instruction
file and record, so results from different wordings are never mixed.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from importlib import resources
from pathlib import Path

from promptmii.errors import ConfigError
from promptmii.task import Example, content_key

# Control tokens from the vocabularies of Llama, Mistral, Gemma, Qwen, GLM, Phi, DeepSeek, Command, EXAONE, Kimi,
# MiniMax, Seed, InternLM, Granite, StarCoder, SmolLM, T5 and BERT. The list is needed for models on servers; models
# in this process supply their own (`models.chat`).
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
    """Write a text as a one-line JSON string without control tokens. `json.loads` restores it."""
    quoted = json.dumps(text, ensure_ascii=False)
    # JSON does not escape these three, but many readers treat them as line breaks.
    quoted = quoted.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def defuse(text: str) -> str:
    """Split control tokens with a space. For labels and instructions, which are not quoted."""
    return CONTROL.sub(lambda match: match[0] + " ", text)


def label_lines(labels: Iterable[str]) -> str:
    """One label per line, so that labels may contain commas."""
    return "\n".join(f"- {defuse(label)}" for label in labels)


def example_lines(examples: Iterable[Example]) -> str:
    """The examples, two lines each, separated by blank lines."""
    return "\n\n".join(f"Input: {quote(example.text)}\nLabel: {defuse(example.label)}" for example in examples)


def grouped_examples(labels: Sequence[str], examples: Iterable[Example]) -> str:
    """Each label that has examples, followed by one line per example."""
    by_label: dict[str, list[str]] = {label: [] for label in labels}
    for example in examples:
        by_label[example.label].append(f"- {quote(example.text)}")
    return "\n\n".join("\n".join([f"{defuse(label)}:", *lines]) for label, lines in by_label.items() if lines)


def _in_order(layout: str, _labels: Sequence[str], examples: Iterable[Example]) -> str:
    return "".join(layout.format(defuse(example.text), defuse(example.label)) for example in examples)


_LABELS: dict[str, Callable[[Sequence[str]], str]] = {
    "": label_lines,
    "comma": lambda labels: ", ".join(map(defuse, labels)),
}
_EXAMPLES: dict[str, Callable[[Sequence[str], Iterable[Example]], str]] = {
    "": grouped_examples,
    "input": partial(_in_order, "Input: {}\nLabel: {}\n"),
    "text": partial(_in_order, 'Text: "{}"\nLabel: {}\n\n'),
}
_TEXT: dict[str, Callable[[str], str]] = {"": quote, "raw": defuse}
_LAYOUTS = {"labels": _LABELS, "examples": _EXAMPLES, "text": _TEXT}
"""Layouts by slot, such as `{{labels|comma}}`. Only the default layout, "", is safe for any data."""
OPTIONAL = "budget"
"""The only slot that a template may omit: the prompt then does not mention the budget.

`induce` and `evaluate` still enforce it.
"""


@dataclass(frozen=True)
class Template:
    """Text with `{{slots}}`. All are filled in one pass, so a value is never read as a slot."""

    text: str
    slots: tuple[str, ...]
    """Names of the slots. Each must occur exactly once; only `budget` may be missing."""

    def __post_init__(self) -> None:
        slots = _SLOT.findall(self.text)
        names = [name for name, _ in slots]
        if sorted(names) not in (sorted(self.slots), sorted({*self.slots} - {OPTIONAL})):
            actual = ", ".join(f"{{{{{name}}}}}" for name in names) or "none"
            expected = ", ".join(f"{{{{{name}}}}}" for name in self.slots)
            raise ConfigError(f"The template has the slots {actual}; expected each of {expected} exactly once.")
        for name, layout in slots:
            layouts = _LAYOUTS.get(name, {"": None})
            if layout not in layouts:
                raise ConfigError(
                    f"Unknown layout {{{{{name}|{layout}}}}}. Known: {', '.join(filter(None, layouts)) or 'none'}."
                )

    @cached_property
    def key(self) -> str:
        """First 16 hex digits of the content hash."""
        return content_key(self.text)[:16]

    def fill(self, **values: str) -> str:
        """Replace every slot, and drop the final line break of the template file."""
        return _SLOT.sub(lambda match: values[match[1]], self.text.removesuffix("\n"))

    def layout(self, slot: str) -> str:
        """The layout of a slot: the word after `|`, or "" by default."""
        return next((layout for name, layout in _SLOT.findall(self.text) if name == slot), "")

    def format_text(self, text: str) -> str:
        return _TEXT[self.layout("text")](text)

    def format_labels(self, labels: Sequence[str]) -> str:
        return _LABELS[self.layout("labels")](labels)

    @cached_property
    def is_raw(self) -> bool:
        """Texts stand in it without quotes."""
        return self.layout("text") == "raw"

    def format_example(self, example: Example) -> str:
        """One example in the format of `format_examples`."""
        if self.is_raw:
            return f"Input: {defuse(example.text)}\nLabel: {defuse(example.label)}"
        return example_lines([example])

    def format_examples(self, examples: Iterable[Example]) -> str:
        """The body of a prompt with examples instead of an instruction."""
        blocks = map(self.format_example, examples)
        return "\n".join(blocks) if self.is_raw else "\n\n".join(["Examples:", *blocks])

    def shows(self, body: str, example: Example) -> bool:
        """True if the body of a prompt contains the example in the format of `format_examples`."""
        block = self.format_example(example)
        return f"\n{block}\n" in f"\n{body}\n" if self.is_raw else block in body.split("\n\n")

    def without_examples(self, body: str, examples: Iterable[Example]) -> str:
        """Remove these examples from the body of a prompt."""
        hidden = set(map(self.format_example, examples))
        if not self.is_raw:
            return "\n\n".join(block for block in body.split("\n\n") if block not in hidden)
        padded = f"\n{body}\n"
        for block in hidden:
            while f"\n{block}\n" in padded:
                padded = padded.replace(f"\n{block}\n", "\n")
        return padded[1:-1]


FRAME_SLOTS = ("instruction", "labels", "text")
META_SLOTS = ("examples", "labels", "budget")


@lru_cache
def bundled(name: str, slots: tuple[str, ...]) -> Template:
    """A template of this folder, by file name without `.txt`."""
    return Template(resources.files("promptmii.prompts").joinpath(f"{name}.txt").read_text(encoding="utf-8"), slots)


@lru_cache(maxsize=32)
def frame_template(text: str) -> Template:
    """A follower's prompt. Raises `ConfigError` unless it has each slot once."""
    return Template(text, FRAME_SLOTS)


def follower_frame() -> Template:
    """promptmii's own prompt for followers. The text comes last, so all rows share the prefix before it."""
    return bundled("follower", FRAME_SLOTS)


def meta_prompt() -> Template:
    """The generator's prompt."""
    return bundled("meta", META_SLOTS)


def read_template(path: Path, slots: tuple[str, ...]) -> Template:
    """Read a user's template file. Raises `ConfigError`."""
    try:
        return Template(path.read_text(encoding="utf-8-sig"), slots)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The template file {path} cannot be read: {error}. Expected UTF-8 text with the slots {', '.join(slots)}."
        ) from error


def frame_parts(frame: Template, instruction: str, labels: Sequence[str]) -> tuple[str, str]:
    """The follower's prompt before and after the text. `instruction` may be empty (the naive method)."""
    values = {"instruction": defuse(instruction.strip()), "labels": frame.format_labels(labels)}
    before, after = re.split(r"\{\{text(?:\|\w+)?\}\}", frame.text)
    before, after = (_SLOT.sub(lambda match: values[match[1]], part) for part in (before, after))
    return before.lstrip("\n"), after.rstrip("\n")


def frame_prompt(frame: Template, instruction: str, labels: Sequence[str], text: str) -> str:
    """The follower's whole prompt for one text."""
    before, after = frame_parts(frame, instruction, labels)
    return before + frame.format_text(text) + after


def induction_prompt(
    template: Template, labels: Sequence[str], examples: Iterable[Example], budget: int | None = None
) -> str:
    """The generator's whole prompt. By default, examples are grouped by label, so that common features stand out."""
    format_all = _EXAMPLES[template.layout("examples")]
    return template.fill(
        examples=format_all(labels, examples),
        labels=template.format_labels(labels),
        budget=_word_limit(budget),
    )


def _word_limit(budget: int | None) -> str:
    """The sentence that limits the length, with three words for four tokens; "" without a budget."""
    return f" Use at most {max(budget * 3 // 4, 1)} words." if budget else ""


def improvement_prompt(request: str, instruction: str) -> str:
    """A request to improve an existing instruction."""
    return bundled("improve", ("request", "instruction")).fill(request=request, instruction=defuse(instruction))


def extension_prompt(instruction: str, label: str, examples: Iterable[Example]) -> str:
    """A request for a line about a label that the instruction does not mention yet."""
    return bundled("extend", ("label", "examples", "instruction", "name")).fill(
        label=defuse(label),
        examples=grouped_examples([label], examples),
        instruction=defuse(instruction) or "(none)",
        name=defuse(label),
    )


def ape_propose(labels: Sequence[str], examples: Iterable[Example], budget: int | None) -> str:
    """APE's request for an instruction that explains the examples."""
    return bundled("ape_propose", META_SLOTS).fill(
        examples=example_lines(examples), labels=label_lines(labels), budget=_word_limit(budget)
    )


def ape_vary(instruction: str) -> str:
    """APE's request for a variation of an instruction."""
    return bundled("ape_vary", ("instruction",)).fill(instruction=defuse(instruction))
