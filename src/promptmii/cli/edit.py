"""`promptmii edit` and `promptmii extend`: edit an instruction or add labels to it, and measure the change."""

import os
import shlex
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from promptmii.cli.blocks import FollowerOptions, RowOptions, blocks
from promptmii.cli.compare import show_comparison
from promptmii.cli.group import app
from promptmii.cli.options import Data, File, Force, Json, Output, destination
from promptmii.cli.terminal import dump, out, say
from promptmii.errors import ConfigError, OutputError, PromptMIIError
from promptmii.files import quoted

EDITORS = ("sensible-editor", "nano", "vi", "notepad")
"""Tried in this order if neither VISUAL nor EDITOR is set."""


@app.command()
@blocks
def edit(
    instruction: File,
    rows: RowOptions,
    answers: FollowerOptions,
    data: Annotated[
        str | None, typer.Argument(help="Labelled rows to calibrate and measure on. Default: the original table.")
    ] = None,
    output: Output = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Edit an instruction in your editor, then calibrate and measure it again.

    Opens $VISUAL or $EDITOR, and measures the old and the new text on the same rows. Without -o, the file is replaced
    and the old one kept as FILE~.
    """
    from promptmii.files import check_writable, write_text
    from promptmii.instruction import Instruction
    from promptmii.workbench import compare
    from promptmii.workbench.edit import rows_for, with_text

    path, force = destination(output, instruction, force=force)
    backup = None if output else instruction.with_name(f"{instruction.name}~")
    if backup:
        check_writable(backup, force=True)
    _ = answers.endpoint, rows.columns  # a wrong option must not cost the user's edit
    before = Instruction.load(instruction)
    table = rows_for(before, data)
    text = _edited(before.text)
    if text == before.text:
        say("The text is unchanged; nothing was measured.")
        if json:
            dump({"rows": [], "differences": {}, "disagreements": [], "notes": ["the text is unchanged"]})
        return
    after = with_text(before, text)
    try:
        if backup:
            write_text(backup, instruction.read_text("utf-8"), force=True)
            say(f"The old instruction is kept in {backup}.")
        after.save(path, force=force)
    except OutputError:
        say(f"The edited text, which could not be saved:\n{text}")
        raise
    try:
        with answers.followers(quiet=json) as followers:
            comparison = compare({"after": after, "before": before}, table, followers, rows.columns)
    except (PromptMIIError, KeyboardInterrupt):
        command = f"promptmii score {quoted(path)} DATA --refit ROWS{answers.server.repeated}"
        say(f"The edited text is saved in {path} but not measured. Run: {command}")
        raise
    comparison.rows[0].instruction.save(path, force=True)
    if json:
        dump(comparison.as_json())
        return
    show_comparison(comparison)
    out.write_line(f"Saved to {path}.")


def _edited(text: str) -> str:
    """The text after the user has edited it. Raises `ConfigError` if the editor does not start, or fails."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or next(filter(shutil.which, EDITORS), None)
    if not editor:
        raise ConfigError("No editor was found: set EDITOR, for instance EDITOR=nano.")
    with TemporaryDirectory(prefix="promptmii-") as folder:
        file = Path(folder) / "instruction.txt"
        file.write_text(text, encoding="utf-8", newline="")
        try:
            words = [editor] if shutil.which(editor) else shlex.split(editor)  # a path may hold spaces or backslashes
            process = subprocess.run([*words, str(file)], check=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f"The editor {editor!r} cannot be started: {error}. Set EDITOR to another.") from error
        if process.returncode:
            raise ConfigError(f"The editor {editor!r} ended with exit code {process.returncode}; nothing was changed.")
        new_text = file.read_bytes().decode("utf-8", "replace")
    return new_text if text.endswith("\n") else new_text.removesuffix("\n")  # most editors add a final line break


@app.command()
@blocks
def extend(
    instruction: File,
    data: Data,
    rows: RowOptions,
    answers: FollowerOptions,
    old: Annotated[
        str | None, typer.Option(metavar="ROWS", help="Rows with the old labels. Default: the original table.")
    ] = None,
    generator: Annotated[str | None, typer.Option(help="Model that writes. Default: the original writer.")] = None,
    output: Output = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Add the new labels of a table to an instruction, and keep its old lines.

    Measures it before and after, on all rows and on those with the old labels. Without -o, the file is replaced.
    """
    from promptmii.instruction import Instruction
    from promptmii.workbench import extend as add_labels
    from promptmii.workbench.edit import rows_for

    path, force = destination(output, instruction, force=force)
    before = Instruction.load(instruction)
    try:
        old_rows = rows_for(before, old)
    except ConfigError as error:
        old_rows = None
        say(f"{error} Without --old ROWS, nothing is calibrated.")
    kept: list[Path] = []
    try:
        with answers.followers(quiet=json) as followers:
            extended = add_labels(
                before,
                data,
                followers,
                rows.columns,
                old=old_rows,
                generator=generator,
                keep=lambda new: kept.append(new.save(path, force=force)),
            )
    except (PromptMIIError, KeyboardInterrupt):
        if kept:
            command = f"promptmii score {quoted(path)} DATA --refit ROWS{answers.server.repeated}"
            say(f"The new lines are saved in {path} but not measured. Run: {command}")
        raise
    extended.instruction.save(path, force=True)
    if json:
        old_labels = asdict(extended.old_labels) if extended.old_labels else None
        dump({"new_labels": extended.new_labels, "old_labels": old_labels} | extended.comparison.as_json())
    else:
        for line in extended.instruction.text.splitlines()[-len(extended.new_labels) :]:
            out.write_line(f"+ {line}", "green")
        show_comparison(extended.comparison)
        if extended.old_labels:
            out.write_line(f"On rows of the old labels: {extended.old_labels}.")
        out.write_line(f"Saved to {path}.")
