"""The documentation site: `make docs` builds it from the Markdown pages of this folder."""

import pathlib
import sys
from typing import Any

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from _pages import api, commands, coverage, project_files  # noqa: E402
from _pages.exports import groups  # noqa: E402

import jaxrobust  # noqa: E402

project = "jaxrobust"
version = release = jaxrobust.__version__
copyright = "The jaxrobust authors"
extensions = ["myst_nb"]
exclude_patterns = ["_pages", "figures"]
myst_enable_extensions = ["colon_fence"]
myst_fence_as_directive = ["math"]  # ```math is mathematics on GitHub too
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE.parent / "build" / "notebooks")
nb_execution_in_temp = True  # notebooks write files
nb_execution_timeout = 300
nb_execution_raise_on_error = True
suppress_warnings = ["myst-nb.lexer"]  # a kernel names it, and none runs with NOTEBOOKS=off
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
html_theme = "furo"
html_title = "jaxrobust"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]


def generate(app: Any) -> None:
    """Writes the generated pages into `docs/reference` and `docs/project`, if they have changed."""
    pages = {"reference/index": api.index(), "reference/cli": commands.page()}
    rooms = [room for names in groups().values() for room in names]
    pages |= {f"reference/{room}": api.page(room) for room in rooms}
    pages |= project_files.pages()
    for name, text in pages.items():
        path = HERE / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in [*HERE.glob("reference/*.md"), *HERE.glob("project/*.md")]:
        if path.relative_to(HERE).with_suffix("").as_posix() not in pages:
            path.unlink()


def turn_links(app: Any, name: str, source: list[str]) -> None:
    """Turns links of a page to files outside of `docs`."""
    if not name.startswith(("reference/", "project/")):
        source[0] = project_files.relinked(source[0], f"docs/{name}.md")


def setup(app: Any) -> None:
    """Connects what is generated and what is checked."""
    app.connect("builder-inited", generate)
    app.connect("source-read", turn_links)
    app.connect("env-check-consistency", coverage.check)
