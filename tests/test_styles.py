"""Styles, and importing the prompts of the paper's checkpoints from a checkout of the authors' code."""

import hashlib
import os
from pathlib import Path

import pytest

from promptmii import Example, Follower, Instruction, MetaInducer, ScriptedModel, Support, Writer
from promptmii.calibrate import held_out
from promptmii.errors import ConfigError
from promptmii.evaluation.plan import EvaluateSettings, grid_tasks, plan, references
from promptmii.inducers import InContext, Kit, method_named
from promptmii.prompts import FRAME_SLOTS, META_SLOTS, Template, induction_prompt
from promptmii.styles import (
    CONTRAST,
    FILES,
    OURS,
    Style,
    import_styles,
    read_style,
    split_style,
    style_for,
    style_names,
)
from promptmii.task import Task

EXAMPLES = (Example('It says "no {x}"\nLabel: b', "a"), Example("later", "b"))
SUPPORT = Support(("a", "b"), EXAMPLES)
pytestmark = pytest.mark.usefixtures("new_home")
SOURCES = {
    "promptmii.py": """
class P:
    def run(self):
        custom_line = f"Say one of {', '.join(label_names)} and no \\"more\\".\\n\\n"
""",
    "examples/data_preprocess/prompt_gen_v8.py": """
def format_meta_prompt_v3(rows, labels):
    meta_prompt = ("Rules for {label_names}:\\n" "{examples}" "Go.").format(examples=1, label_names=2)

def format_meta_prompt_v7(rows, labels):
    meta_prompt = ("Guide to {label_names_str}: {examples}\\n\\n").format(examples=1, label_names_str=2)
""",
    "baseline_eval_v3_modular.py": """
raise SystemExit("this code must not run")
META_PROMPT_V3 = ("Rules for {label_names_str}:\\n{examples}" "Go.")
META_PROMPT_V5 = ("Guide to {label_names_str}: {examples}\\n\\n")

def naive_instruction_prompt(label_names):
    return f"Just say one of {', '.join(label_names)}.\\n\\n"

def in_context_learning_prompt(rows, labels, naive=True):
    s = ""
    for row in rows:
        s += f"Input: {row['text']}\\nLabel: {row['label']}\\n"
    if naive:
        s += "Now the next. " \\
            f"One of {', '.join(labels)}.\\n\\n"
    return s
""",
}


@pytest.fixture
def checkout(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    folder = tmp_path / "checkout"
    for name, code in SOURCES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(code.encode())
    return folder, {name: hashlib.sha256(code.encode()).hexdigest() for name, code in SOURCES.items()}


def test_imported_prompts_have_the_authors_layout(checkout: tuple[Path, dict[str, str]]) -> None:
    styles = import_styles(*checkout)
    assert style_names() == [OURS, CONTRAST, *sorted(styles)]
    assert not any(style.contrast for style in styles.values())
    evaluated = induction_prompt(styles["promptmii-llama"].template, ("a", "b"), EXAMPLES)
    assert evaluated == ('Rules for a, b:\nInput: It says "no {x}"\nLabel: b\nLabel: a\nInput: later\nLabel: b\nGo.')
    trained = induction_prompt(styles["promptmii-qwen-train"].template, ("a", "b"), EXAMPLES)
    assert trained == ('Guide to a, b: Text: "It says "no {x}"\nLabel: b"\nLabel: a\n\nText: "later"\nLabel: b\n\n\n\n')
    limits = [(styles[name].longest_prompt, styles[name].answer) for name in ("promptmii-qwen", "promptmii-qwen-train")]
    assert limits == [(None, 10), (4096, 90)]


def test_an_instruction_records_the_frame_limit_and_hash_of_its_style(
    checkout: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    style = import_styles(*checkout)["promptmii-llama"]
    induced = MetaInducer(Writer(ScriptedModel(["Decide."]), style)).induce(SUPPORT)
    path = induced.save(tmp_path / "i.json")
    for instruction in (induced, Instruction.load(path)):
        assert instruction.prompt('x "y"') == 'Decide.\nSay one of a, b and no "more".\n\nInput: x "y"'
        assert instruction.longest_answer == 10
        assert instruction.provenance.style == style.key
    assert MetaInducer(Writer(ScriptedModel(["Decide."]))).induce(SUPPORT).provenance.style is None
    with pytest.raises(ConfigError, match="unquoted"):
        induced.export("python")


def test_an_answer_cut_at_the_limit_of_its_style_is_unparsed_rather_than_a_failure() -> None:
    chatty = ScriptedModel(["I think that it may well be the label a, because of what it says in the text. " * 3] * 2)
    instruction = Instruction(text="Decide.", labels=("a", "b"), method="mii", longest_answer=10)
    (limited,) = Follower(chatty, "generate").predict(instruction, ["x"])
    assert (limited.label, limited.failure) == (None, None)
    (unlimited,) = Follower(chatty, "generate").predict(instruction.model_copy(update={"longest_answer": None}), ["x"])
    assert unlimited.failure is not None


def test_naive_and_icl_can_use_the_authors_prompts(checkout: tuple[Path, dict[str, str]]) -> None:
    with pytest.raises(ConfigError, match="promptmii styles import"):
        method_named("icl", {"style": "promptmii-icl"}).check()
    import_styles(*checkout)
    kit = Kit(Writer(ScriptedModel([])), Follower(ScriptedModel([], score=lambda _, label: float(len(label)))))
    naive = method_named("naive", {"style": "promptmii-naive"})
    assert naive.inducer(kit).induce(SUPPORT).prompt("x\ny") == "Just say one of a, b.\n\nInput: x\ny"
    icl = method_named("icl", {"style": "promptmii-icl"})
    shown = icl.inducer(kit).induce(SUPPORT)
    examples = 'Input: It says "no {x}"\nLabel: b\nLabel: a\nInput: later\nLabel: b\n'
    assert shown.prompt("x") == examples + "Now the next. One of a, b.\n\nInput: x"
    assert shown.longest_answer == 10
    assert naive.templates()[0].text != icl.templates()[0].text
    assert method_named("icl").templates() == ()


def test_calibration_holds_out_examples_in_the_authors_layout(
    checkout: tuple[Path, dict[str, str]],
) -> None:
    style = import_styles(*checkout)["promptmii-icl"]
    support = Support(("a", "b"), (*EXAMPLES, Example("late\nr", "a"), Example("later", "b"), Example("later", "a")))
    instruction = InContext(ScriptedModel([]), style).induce(support)
    pairs = [(part, example) for part, examples in held_out(instruction, support.examples) for example in examples]
    assert sorted(example.text for _, example in pairs) == sorted(example.text for example in support.examples)
    for part, example in pairs:
        assert f"Input: {example.text}\n" not in part.prompt("")
        others = [e for e in support.examples if e.text != example.text]
        assert part.text == InContext(ScriptedModel([]), style).induce(Support(("a", "b"), tuple(others))).text


def test_a_different_version_of_the_checkout_is_refused(checkout: tuple[Path, dict[str, str]]) -> None:
    folder, hashes = checkout
    (folder / "promptmii.py").write_text("changed")
    with pytest.raises(ConfigError, match="git checkout 2722f12"):
        import_styles(folder, hashes)
    with pytest.raises(ConfigError, match="Give a checkout of github"):
        import_styles(folder / "none")
    assert style_names() == [OURS, CONTRAST]


@pytest.mark.parametrize("family", ["llama-3.1-8b", "qwen-2.5-7b"])
def test_a_released_checkpoint_requires_a_style(family: str) -> None:
    reference = f"openai:milli19/promptmii-{family}-instruct@http://localhost:8000/v1"
    suggestion = f"promptmii-{family.partition('-')[0]}"
    with pytest.raises(ConfigError, match=f"#{suggestion} for the paper's evaluation"):
        style_for(reference)
    with pytest.raises(ConfigError, match="promptmii styles import"):
        style_for(f"{reference}#{suggestion}")
    assert style_for(f"{reference}#ours") == style_for("smol") == Style()
    assert split_style(f"{reference}#ours") == (reference, "ours")
    with pytest.raises(ConfigError, match=f"Did you mean '{suggestion}'"):
        read_style(f"{suggestion}s")


def test_a_template_replaces_the_prompt_of_a_built_in_style_and_is_refused_with_another(tmp_path: Path) -> None:
    template = tmp_path / "meta.txt"
    template.write_text("{{examples}} {{labels}}")
    for reference in ("m", "m#ours", "promptmii-llama-3.1-8b"):
        assert style_for(reference, str(template)) == Style(meta="{{examples}} {{labels}}")
    assert style_for("m#contrast", str(template)) == Style(meta="{{examples}} {{labels}}", contrast=0.5)
    with pytest.raises(ConfigError, match="both set the prompt; give only one"):
        style_for("m#promptmii-llama", str(template))


def test_one_grid_can_compare_several_styles(checkout: tuple[Path, dict[str, str]]) -> None:
    import_styles(*checkout)
    task = Task("t", ("a", "b"), EXAMPLES, EXAMPLES)
    settings = EvaluateSettings(
        tasks=("suite",),
        methods=("mii",),
        n=(2,),
        seeds=1,
        generators=("m", "m#promptmii-llama", "m#ours"),
        followers=("m",),
    )
    cards = dict.fromkeys(references(settings), ScriptedModel([]).card)
    jobs = plan(settings, {"t": task}, cards)
    assert [job.cell.generator for job in jobs] == ["m", "m#promptmii-llama", "m#ours"]
    assert len({job.key for job in jobs}) == 3
    wrong = settings.model_copy(update={"followers": ("m#ours",)})
    with pytest.raises(ConfigError, match="a style belongs to a generator"):
        grid_tasks(wrong)


def test_unknown_layouts_are_refused() -> None:
    with pytest.raises(ConfigError, match="Known: input, text"):
        Template("{{labels}} {{examples|table}}", META_SLOTS)
    with pytest.raises(ConfigError, match="Known: none"):
        Template("{{instruction|raw}} {{labels}} {{text}}", FRAME_SLOTS)


@pytest.mark.skipif(
    "PROMPTMII_CHECKOUT" not in os.environ, reason="PROMPTMII_CHECKOUT names no checkout of millix19/promptmii"
)
def test_the_real_checkout_can_be_imported() -> None:
    styles = import_styles(Path(os.environ["PROMPTMII_CHECKOUT"]))
    evaluated = ["promptmii-icl", "promptmii-llama", "promptmii-naive", "promptmii-qwen"]
    assert sorted(styles) == sorted([*evaluated, "promptmii-llama-train", "promptmii-qwen-train"])
    assert set(FILES) == set(SOURCES)
    for style in styles.values():
        assert "a, b" in induction_prompt(style.template, ("a", "b"), EXAMPLES)
