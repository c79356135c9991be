"""The `fcot-vl` command: all groups of commands, and the messages for errors.

Commands pass settings on and do no work of their own. They import what they need when they run, so that the command
line starts fast. A user's mistake is reported in one red line, with exit code 2.
"""

from __future__ import annotations

import errno
import io
import sys

import typer

from fcot_vl.cli import judge, prepare, recipes, train, use

app = typer.Typer(
    name="fcot-vl",
    help="Compress the visual tokens of vision-language models that read documents, and measure the cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for group in (prepare, train, judge, use, recipes):
    app.add_typer(group.app)


def main() -> None:
    """Run the `fcot-vl` command."""
    from fcot_vl.common.console import messages, set_up_logging

    set_up_logging()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # print what the terminal's encoding lacks as an escape
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except SystemExit as ended:
        if not ended.code:
            leave_process_group()
        raise
    except (Exception, KeyboardInterrupt) as error:
        text = _what_to_do(error)
        if text is None:
            raise
        messages.print(" ".join(text.split()), style="red", markup=False)
        sys.exit(130 if isinstance(error, KeyboardInterrupt) else 2)


def leave_process_group() -> None:
    """Destroy torch's process group, if this process is in one; a process that keeps it may abort while it exits."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _what_to_do(error: BaseException) -> str | None:
    """Return the message for an error that the user can fix; None for a fault of the program."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; rerun the same command to resume"
    if isinstance(error, ValueError | FileNotFoundError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}; free some, then rerun the same command to resume"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which may never have been imported
        return (
            "no memory left on the device; fewer records at once, a shorter --max-length or "
            "--activation-checkpointing need less, and the same command resumes from the last checkpoint "
            f"({str(error)[:200]})"
        )
    return None
