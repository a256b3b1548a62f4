"""Docstrings with sections (Args, Returns, ...) as Markdown."""

import inspect
import re
import textwrap

from _pages.mathematics import myst

HEADINGS = {
    "Args": "Arguments",
    "Attributes": "Attributes",
    "Returns": "Returns",
    "Yields": "Yields",
    "Raises": "Raises",
    "Example": "Example",
    "References": "References",
}
LISTS = ("Args", "Attributes", "Raises")
SECTION = re.compile(rf"^({'|'.join(HEADINGS)}):$")


def markdown(doc: str) -> str:
    """Returns a docstring as Markdown.

    Args:
      doc: with sections in the style of this library.

    Returns:
      The text; arguments are lists, examples are blocks of code, formulas are rendered.
    """
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line in myst(inspect.cleandoc(doc)).splitlines():
        found = SECTION.match(line)
        if found:
            parts.append((found[1], []))
        else:
            parts[-1][1].append(line)
    return "\n\n".join(filter(None, (_part(name, lines) for name, lines in parts)))


def _part(name: str, lines: list[str]) -> str:
    text = textwrap.dedent("\n".join(lines)).strip("\n")
    if not name:
        return text
    if name == "Example":
        text = f"```pycon\n{text}\n```"
    elif name in LISTS:
        text = "\n".join(_item(entry, code=True) for entry in _entries(text))
    elif name == "References":
        text = "\n".join(_item(entry, code=False) for entry in _entries(text))
    return f"**{HEADINGS[name]}**\n\n{text}"


def _entries(text: str) -> list[str]:
    """Lines that begin without a space, each with the indented lines below it."""
    found: list[str] = []
    for line in text.splitlines():
        if line and not line.startswith(" "):
            found.append(line)
        elif found:
            found[-1] += "\n" + line
    return found


def _item(entry: str, *, code: bool) -> str:
    """A point of a list."""
    head, *rest = entry.split("\n")
    name, colon, text = head.partition(": ")
    if code and colon and " " not in name.replace(", ", ","):
        head = f"`{name}`: {text}"
    below = textwrap.indent(textwrap.dedent("\n".join(rest)), "  ")
    return f"- {head}\n{below}".rstrip()
