"""`promptmii show` and `promptmii export`: print an instruction file, or export it as code for another tool."""

from typing import TYPE_CHECKING, Annotated

import typer

from promptmii.cli.group import app
from promptmii.cli.options import File, Force, Json, Output
from promptmii.cli.terminal import count, data, dump, facts, notes, out, say, styled
from promptmii.exports import TARGETS
from promptmii.files import quoted
from promptmii.messages import counted

if TYPE_CHECKING:
    from promptmii.instruction import Cost, Instruction


@app.command()
def show(instruction: File, json: Json = False) -> None:
    """Print an instruction file as readable text or JSON."""
    from rich.panel import Panel

    from promptmii.instruction import Instruction

    loaded = Instruction.load(instruction)
    if json:
        dump(loaded.model_dump(mode="json"))
        return
    origin = loaded.provenance
    title = f"{loaded.method}, from {counted(origin.n, 'example')}" + (f" of {origin.source}" if origin.source else "")
    out.print(Panel(styled(loaded.text or "(empty)"), title=styled(title), title_align="left"))
    out.print(Panel(styled(loaded.frame.strip("\n")), title=styled("Prompt template"), title_align="left"))
    facts(_facts(loaded))
    notes(origin.notes)


def _facts(loaded: "Instruction") -> dict[str, str]:
    rows = {
        "labels": ", ".join(loaded.labels),
        "generator": loaded.generator or "none",
        "follower": f"{loaded.follower} ({loaded.mode}, calibration {loaded.calibration_kind})"
        if loaded.follower
        else "any",
        "cost to make": _cost(loaded.cost),
        "cost to calibrate": _cost(loaded.calibration_cost),
    }
    if loaded.shortlist:
        rows["compared"] = f"for each text {loaded.shortlist}"
    if m := loaded.measured:
        plain = "" if m.uncalibrated_macro_f1 is None else f", {m.uncalibrated_macro_f1:.3f} uncalibrated"
        rows["measured"] = f"{m}{plain}, {count(m.prompt_tokens_per_query)} tokens per query"
    return rows


def _cost(cost: "Cost") -> str:
    return f"{counted(cost.calls, 'call')}, {count(cost.tokens)} tokens"


@app.command()
def export(
    instruction: File,
    to: Annotated[
        str, typer.Option(metavar="TARGET", help="; ".join(f"{name}: {use}" for name, use in TARGETS.items()) + ".")
    ],
    output: Output = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Print the prompt as code for another tool, byte for byte as it was measured."""
    from promptmii.instruction import Instruction

    loaded = Instruction.load(instruction)
    code = loaded.export(to, output, force=force)
    if loaded.measured and loaded.mode == "choose" and to != "llama.cpp":
        say(
            "The score is for mode choose, which only the target llama.cpp exports; here, the label is read from "
            f"generated text. Measure that with: promptmii score {quoted(instruction)} DATA --mode generate"
        )
    if json:
        dump({"target": to, "file": output, "code": code})
    elif output:
        say(f"Saved to {output}.")
    else:
        data(code)
