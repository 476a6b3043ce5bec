"""Styles: the prompts of generator and follower, with their limits.

A model reference can name a style: `openai:MODEL#STYLE`. `ours` and `contrast` are built in. promptmii does not ship
the prompts of the paper; `promptmii styles import` reads them from a checkout of the authors' repository.
"""

import ast
import hashlib
import re
from pathlib import Path
from typing import NamedTuple, Self

from platformdirs import user_data_path
from pydantic import Field, ValidationError, model_validator

from promptmii.errors import ConfigError
from promptmii.files import private_folder, write_text
from promptmii.messages import nearest
from promptmii.prompts import FRAME_SLOTS, META_SLOTS, Template, follower_frame, meta_prompt, read_template
from promptmii.schema import Frozen
from promptmii.task import content_key

OURS = "ours"
CONTRAST = "contrast"
"""`ours` with contrastive decoding, which can double the generator's prompt tokens."""
RELEASED = re.compile(r"promptmii-(llama|qwen)-[\d.]+-\d+b", re.IGNORECASE)
"""Names of the paper's checkpoints."""
FILES = {
    "promptmii.py": "e5ca7ad46d41fc04be893fdacbd52b2a5b775b1aa734dfb69223a91505e598b4",
    "examples/data_preprocess/prompt_gen_v8.py": "b25c2c0ef322bd45cb3337c32006f7f6a1b67e4b863c4d85409e74a98afef053",
    "baseline_eval_v3_modular.py": "594cef3b9d554890db403c2dcba87a21ecc01742910008cda92ecd3a046d7235",
}
"""The files that an import reads and their SHA-256 (millix19/promptmii at 2722f12)."""


class Style(Frozen):
    """The prompts and limits of a generator and its follower."""

    meta: str = Field(default_factory=lambda: meta_prompt().text)
    """The generator's prompt.

    The authors' prompts use the layouts `{{labels|comma}}`, `{{examples|input}}` and `{{examples|text}}`.
    """
    frame: str = Field(default_factory=lambda: follower_frame().text)
    """The follower's prompt. `{{text|raw}}` inserts the text without quotes."""
    contrast: float = Field(default=0.0, ge=0)
    """Strength of contrastive decoding against the same examples with exchanged labels; 0 turns it off."""
    listed_once: bool = True
    """Drop items of the instruction that the same sentence has already listed."""
    longest: int = Field(default=1024, ge=1)
    """Maximum length of an instruction, in tokens."""
    longest_prompt: int | None = Field(default=None, ge=1)
    """Maximum length of the generator's prompt, in tokens; `None` for the whole context."""
    answer: int | None = Field(default=None, ge=1)
    """Maximum length of a generated answer, in tokens; `None` for the longest label in a short sentence."""

    @model_validator(mode="after")
    def _check_slots(self) -> Self:
        for text, slots in ((self.meta, META_SLOTS), (self.frame, FRAME_SLOTS)):
            Template(text, slots)
        return self

    @property
    def key(self) -> str:
        """First 16 hex digits of the content hash."""
        return content_key(self.model_dump())[:16]

    @property
    def template(self) -> Template:
        """The generator's prompt as a template. Raises `ConfigError`."""
        return Template(self.meta, META_SLOTS)


BUILT_IN = {OURS: Style(), CONTRAST: Style(contrast=0.5)}


class _Prompt(NamedTuple):
    """The location of a prompt in the authors' code, and the limits that they use with it."""

    file: str
    name: str
    """The variable that holds the prompt, in `function` or else in the module."""
    function: str | None
    layout: str
    """The layout of its examples."""
    longest_prompt: int | None
    answer: int


_EVALUATION_FILE, _TRAINING_FILE = "baseline_eval_v3_modular.py", "examples/data_preprocess/prompt_gen_v8.py"
_PROMPTS = {
    "promptmii-llama": _Prompt(_EVALUATION_FILE, "META_PROMPT_V3", None, "input", None, 10),
    "promptmii-qwen": _Prompt(_EVALUATION_FILE, "META_PROMPT_V5", None, "input", None, 10),
    "promptmii-llama-train": _Prompt(_TRAINING_FILE, "meta_prompt", "format_meta_prompt_v3", "text", 4096, 90),
    "promptmii-qwen-train": _Prompt(_TRAINING_FILE, "meta_prompt", "format_meta_prompt_v7", "text", 4096, 90),
}
"""The authors use different prompts for evaluation and training."""
_BASELINES = {
    "promptmii-naive": ("naive_instruction_prompt", None),
    "promptmii-icl": ("in_context_learning_prompt", "s"),
}
"""The authors' baselines: the function that builds the prompt, and the variable that holds its last line."""
IMPORTED = (*_PROMPTS, *_BASELINES)
"""Names of the styles that can be imported."""


def split_style(reference: str) -> tuple[str, str | None]:
    """Split a model reference from the style named after its last `#`."""
    model, mark, name = reference.rpartition("#")
    return (model, name) if mark and re.fullmatch(r"[\w.-]+", name) else (reference, None)


def style_for(reference: str, template: str | None = None) -> Style:
    """The style that a model reference names, or else `ours`; a template file replaces its prompt for the generator.

    Raises `ConfigError` for an unknown style, for an imported style with a template, and for one of the paper's
    checkpoints without either.
    """
    model, name = split_style(reference)
    if not (name or template) and (released := RELEASED.search(model)):
        suggestion = f"promptmii-{released[1].lower()}"
        raise ConfigError(
            f"{model} was trained with its own prompts. Write {model}#{suggestion} for the paper's evaluation "
            f"(-train for its training), or {model}#{OURS} for promptmii's."
        )
    return read_style(name or OURS, template)


def style_names() -> list[str]:
    """Names of the built-in and the imported styles."""
    return [*BUILT_IN, *sorted(path.stem for path in _folder().glob("*.json"))]


def read_style(name: str, template: str | None = None) -> Style:
    """A built-in or imported style, by name; a template file replaces a built-in one's prompt for the generator.

    Raises `ConfigError`.
    """
    if name in BUILT_IN:
        style = BUILT_IN[name]
        return style.model_copy(update={"meta": read_template(Path(template), META_SLOTS).text}) if template else style
    if template:
        raise ConfigError(f"The style {name!r} and the template {template} both set the prompt; give only one.")
    path = _folder() / f"{name}.json"
    if not path.exists():
        if name in IMPORTED:
            advice = "Import it from a checkout of github.com/millix19/promptmii: promptmii styles import CHECKOUT"
        else:
            advice = nearest(name, [*style_names(), *IMPORTED])
        raise ConfigError(f"Style {name!r} is not on this machine. {advice}")
    try:
        return Style.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(f"The style {path} cannot be read. Import it again: promptmii styles import") from error


def import_styles(checkout: Path, hashes: dict[str, str] = FILES) -> dict[str, Style]:
    """Read the authors' prompts from a checkout of their repository, and save them for this user.

    The files are parsed, never run. Raises `ConfigError` if one is missing or has a different hash, and `OutputError`
    if the styles cannot be saved.
    """
    modules = {name: ast.parse(_read_verified(checkout / name, sha256)) for name, sha256 in hashes.items()}
    frame = _follower_prompt(_string_in(modules["promptmii.py"], "custom_line", "run"))
    styles = {
        name: Style(
            meta=_with_slots(_string_in(modules[prompt.file], prompt.name, prompt.function), prompt.layout),
            frame=frame,
            listed_once=False,
            longest_prompt=prompt.longest_prompt,
            answer=prompt.answer,
        )
        for name, prompt in _PROMPTS.items()
    }
    for name, (function, variable) in _BASELINES.items():
        frame = _follower_prompt(_string_in(modules[_EVALUATION_FILE], variable, function))
        styles[name] = Style(frame=frame, listed_once=False, answer=10)
    private_folder(_folder())
    for name, style in styles.items():
        write_text(_folder() / f"{name}.json", style.model_dump_json(indent=2) + "\n", force=True)
    return styles


def _follower_prompt(label_line: str) -> str:
    """The follower's prompt. In `label_line`, `{}` stands for the labels."""
    return "{{instruction}}\n" + label_line.replace("{}", "{{labels|comma}}") + "Input: {{text|raw}}\n"


def _folder() -> Path:
    return user_data_path("promptmii", appauthor=False) / "styles"


def _read_verified(path: Path, sha256: str) -> bytes:
    """Read a file. Raises `ConfigError` if it is missing or has a different hash."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}. Give a checkout of github.com/millix19/promptmii."
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ConfigError(
            f"{path} does not have the expected SHA-256 {sha256[:12]}... In the checkout, run: git checkout 2722f12"
        )
    return content


def _string_in(module: ast.Module, variable: str | None, function: str | None) -> str:
    """The last string that a function or the module assigns to a variable, or that it returns if `variable` is None.

    Reads `"..."`, `"...".format(...)`, and f-strings, whose fields become `{}`.
    """
    functions = (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and node.name == function)
    scope = next(functions, None) if function else module
    strings: dict[int, str] = {}
    for node in ast.walk(scope) if scope else ():
        match node:
            case ast.Assign(targets=[ast.Name(target)], value=value) | ast.AugAssign(ast.Name(target), value=value):
                if target != variable:
                    continue
            case ast.Return(value) if variable is None:
                pass
            case _:
                continue
        match value:
            case ast.Constant(str(text)) | ast.Call(ast.Attribute(ast.Constant(str(text)), "format")):
                strings[node.lineno] = text
            case ast.JoinedStr(parts):
                pieces = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts]
                strings[node.lineno] = "".join(pieces)
            case _:
                continue
    if not strings:
        raise ConfigError(
            f"The checkout has no string {variable!r} in {function or 'the module'}; it may be another version."
        )
    return strings[max(strings)]


def _with_slots(text: str, layout: str) -> str:
    """Turn the fields of a `str.format` template into slots, and add the line break that `Template.fill` drops."""
    slots = {
        "label_names": "{{labels|comma}}",
        "label_names_str": "{{labels|comma}}",
        "examples": f"{{{{examples|{layout}}}}}",
    }
    return re.sub(r"\{(\w+)\}", lambda match: slots.get(match[1], match[0]), text) + "\n"
