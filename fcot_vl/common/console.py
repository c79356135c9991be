"""Output of the command line: results on stdout, log messages and progress bars on stderr.

Modules log through `logging.getLogger(__name__)` and print nothing. Only a stage or a command shows results.
"""

from __future__ import annotations

import logging
import os

from rich.console import Console, ConsoleRenderable, RenderableType
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.text import Text

WIDE = 140  # columns of a table written to a file

# Messages and progress bars share one console, so that a message appears above a bar and not inside it.
messages = Console(stderr=True, highlight=False, soft_wrap=True)


def show(*results: RenderableType) -> None:
    """Write results of a command to stdout: text as it is, and tables as wide as the terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    for result in results:
        if isinstance(result, str):
            print(result, flush=True)
        else:
            console.print(result)


def set_up_logging() -> None:
    """Write the package's log to stderr: from INFO up on rank 0, from WARNING up on the other ranks."""
    logger = logging.getLogger("fcot_vl")
    logger.handlers = [_MessageHandler(console=messages, highlighter=NullHighlighter(), keywords=[])]
    logger.setLevel(logging.INFO if int(os.environ.get("RANK", "0")) == 0 else logging.WARNING)


class _MessageHandler(RichHandler):
    """Handler that writes the message alone, on one line however long it is."""

    def render(
        self, *, record: logging.LogRecord, traceback: object, message_renderable: ConsoleRenderable
    ) -> ConsoleRenderable:
        return message_renderable

    def render_message(self, record: logging.LogRecord, message: str) -> ConsoleRenderable:
        if record.levelno >= logging.WARNING:
            return Text(f"{record.levelname.lower()}: {message}", style="yellow")
        return Text(message)
