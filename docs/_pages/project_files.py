"""Files of the repository's root as pages of the site, with their links turned to pages."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
# Where the site shows a file; a link to any other file of the repository becomes plain text.
PAGES = {
    "README.md": "index",
    "CONTRIBUTING.md": "project/contributing",
    "CHANGELOG.md": "project/changelog",
    "SECURITY.md": "project/security",
    "examples/own_project/README.md": "project/own_project",
}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def pages() -> dict[str, str]:
    """Returns the pages that are made of files outside of `docs`, by name."""
    generated = {name: file for file, name in PAGES.items() if name.startswith("project/")}
    return {name: relinked((ROOT / file).read_text(), file) for name, file in generated.items()}


def relinked(text: str, file: str) -> str:
    """Returns a page whose relative links lead to pages of the site.

    Args:
      text: Markdown.
      file: where it lies in the repository, such as "docs/data.md".

    Returns:
      The text. A link to a file that the site does not show keeps its words only.
    """
    folder = (ROOT / file).parent

    def link(match: re.Match) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        there = (folder / target).resolve()
        inside = there.relative_to(ROOT).as_posix() if there.is_relative_to(ROOT) else ""
        if inside in PAGES:
            return f"[{words}](/{PAGES[inside]}.md{anchor})"
        if inside.startswith("docs/"):
            return f"[{words}](/{inside.removeprefix('docs/')}{anchor})"
        return words

    return LINK.sub(link, text)
