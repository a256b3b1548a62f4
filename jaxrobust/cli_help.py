"""How `--help` is laid out: no word is broken, also on a terminal of 40 columns."""

import re
import textwrap
from collections.abc import Iterable

import click

NARROW = 60  # columns; below, an option's text stands under the option


class HelpFormatter(click.HelpFormatter):
    """A formatter that breaks lines at spaces only, and long commands with a backslash."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Writes the usage line."""
        self.write(_filled(f"{prefix or 'Usage: '}{prog} {args}".strip(), self.width, "", " " * 4))
        self.write("\n")

    def write_text(self, text: str) -> None:
        """Writes paragraphs; the lines of one that begins with a backspace stay lines."""
        indent = " " * self.current_indent
        for number, paragraph in enumerate(text.split("\n\n")):
            if number:
                self.write("\n")
            literal, _, lines = paragraph.partition("\b\n")
            if not literal.strip() and lines:
                for line in _joined(lines):
                    self.write(_command(line, self.width, indent) + "\n")
            else:
                words = " ".join(paragraph.split())
                self.write(_filled(words, self.width, indent, indent) + "\n")

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Writes options and their texts, in two columns where there is room."""
        rows = list(rows)
        if self.width >= NARROW:
            first = min(max(len(term) for term, _ in rows), col_max) + col_spacing
        indent = " " * self.current_indent
        for term, text in rows:
            if self.width < NARROW:
                self.write(_filled(term, self.width, indent, indent + "    ") + "\n")
                self.write(_filled(text, self.width, indent + "  ", indent + "  ") + "\n")
                continue
            start = f"{indent}{term}".ljust(self.current_indent + first)
            if len(term) > first - col_spacing:
                self.write(f"{indent}{term}\n")
                start = indent + " " * first
            rest = " " * len(start)
            self.write((_filled(text, self.width, start, rest) if text else start.rstrip()) + "\n")


class HelpContext(click.Context):
    """A context whose help is laid out by `HelpFormatter`."""

    formatter_class = HelpFormatter


def lay_out(command: click.Command) -> None:
    """Gives a command, and all commands below it, this layout.

    Args:
      command: changed in place.
    """
    command.context_class = HelpContext
    command.short_help = " ".join((command.help or "").split("\n\n")[0].split())
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        lay_out(inner)


def _filled(text: str, width: int, first: str, rest: str) -> str:
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _joined(lines: str) -> list[str]:
    """The commands of a block, those over several lines joined."""
    return [
        " ".join(line.split()) for line in lines.replace("\\\n", " ").split("\n") if line.strip()
    ]


def _command(line: str, width: int, indent: str) -> str:
    """A command; one that is too long goes on after a backslash."""
    if len(indent + line) <= width:
        return indent + line
    pairs = re.sub(r"(--\S+) (?!-)", "\\1\0", line)  # an option stays beside its value
    filled = _filled(pairs, width - 2, indent, indent + "    ").replace("\n", " \\\n")
    return filled.replace("\0", " ")
