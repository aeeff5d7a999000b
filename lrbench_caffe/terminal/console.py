"""The terminal through rich: the only place that makes consoles and progress bars.

rich reads markup ("[bold]"), emoji (":smile:") and highlights in any string. Here nothing is read
into a string: all of them have names from outside in them, and are shown as they are
(``plaintext.visible``).
"""

from __future__ import annotations

import sys
from typing import Any, TextIO, cast

import rich.console
from rich.file_proxy import FileProxy
from rich.progress import Progress, ProgressColumn
from rich.progress import TextColumn as RichTextColumn
from rich.text import Text

from lrbench_caffe.plaintext import one_line, visible
from lrbench_caffe.terminal.streams import Escaping, Unbreakable, unescaped


class Console(rich.console.Console):
    """rich's console for which every string is plain text.

    Args:
        file: where to, by default the standard output.
        stderr: True for the standard error.
        unbreakable: whether it continues in silence when the stream breaks (see
            ``streams.Unbreakable``).
        width: columns; by default the terminal's.
    """

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        stderr: bool = False,
        unbreakable: bool = False,
        width: int | None = None,
    ) -> None:
        stream = unescaped(file or (sys.stderr if stderr else sys.stdout))
        if unbreakable:
            stream = cast(TextIO, Unbreakable(stream))
        super().__init__(file=stream, width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:  # all strings become text here
        options.update(markup=False, emoji=False, highlight=False)
        return super().render_str(visible(text), **options)

    def say(self, text: str) -> None:
        """Print a text as it is: a terminal breaks its lines, where they are too long."""
        self.print(text, markup=False, highlight=False, soft_wrap=True)


class TextColumn(RichTextColumn):
    """A column of a progress bar: a format of the task, whose fields are text."""

    def __init__(self, text_format: str) -> None:
        super().__init__(text_format, markup=False)

    def render(self, task: Any) -> Text:
        return Text(one_line(super().render(task).plain))


def progress(console: Console, *columns: ProgressColumn) -> Progress:
    """A progress display that vanishes at its end, and is silent without a terminal."""
    return _EscapingProgress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    )


class _EscapingProgress(Progress):
    def start(self) -> None:
        super().start()
        # While a bar is shown, rich intercepts printed text and interprets escapes in it.
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if isinstance(stream, FileProxy):
                setattr(sys, name, Escaping(cast(TextIO, stream)))
