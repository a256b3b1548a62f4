"""The generated pages of the site, without Sphinx: `make docs` builds it, warnings are errors."""

import importlib
import pathlib
import re
import sys

import click
import pytest

import jaxrobust
from jaxrobust.cli import cli

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from _pages import api, commands, coverage, exports, project_files  # noqa: E402
from _pages.docstrings import markdown  # noqa: E402


def entries(text: str) -> set[str]:
    return set(re.findall(r"^`+\{py:\w+\} (jaxrobust[\w.]+)", text, re.M))


@pytest.mark.parametrize("room", exports.rooms())
def test_every_export_has_an_entry(room):
    found = entries(api.page(room))
    assert found == {f"jaxrobust.{room}.{name}" for name in exports.exports(room)}
    assert len(found) >= 1
    # What `from jaxrobust.ROOM import *` of a folder gives is not chosen by the pages' own code.
    module = importlib.import_module(f"jaxrobust.{room}")
    public = {f"jaxrobust.{room}.{n}" for n in getattr(module, "__all__", ()) or ()}
    assert public <= found


def test_a_missing_entry_is_found():
    every = set().union(*(entries(api.page(room)) for room in exports.rooms()))
    assert coverage.missing(every) == []
    assert coverage.missing(every - {"jaxrobust.attacks.pgd"}) == ["jaxrobust.attacks.pgd"]


def test_every_room_stands_once():
    listed = [room for rooms in exports.groups().values() for room in rooms]
    assert sorted(listed) == sorted(exports.rooms())
    assert set(listed) <= set(dir(jaxrobust))
    assert all(f"[`jaxrobust.{room}`]({room}.md): " in api.index() for room in listed)


def test_docstrings_become_markdown():
    doc = """Computes.

    Args:
      x: the
        input.
      *rest: others.

    Returns:
      The output.

    Example:
      >>> 1 + 1
      2

    References:
      A et al., 2020.
    """
    assert markdown(doc) == (
        "Computes.\n\n**Arguments**\n\n- `x`: the\n  input.\n- `*rest`: others.\n\n"
        "**Returns**\n\nThe output.\n\n**Example**\n\n```pycon\n>>> 1 + 1\n2\n```\n\n"
        "**References**\n\n- A et al., 2020."
    )


def test_mathematics_of_docstrings_is_that_of_the_pages():
    doc = r"""Computes

    .. math:: a \|b\|
        + c

    with :math:`a` and

    .. math::
        u = 1, \qquad
        v = 2

    for all.

    Args:
      x: the :math:`b`.
    """
    assert markdown(doc) == (
        "Computes\n\n```{math}\na \\|b\\|\n+ c\n```\n\nwith {math}`a` and\n\n"
        "```{math}\nu = 1, \\qquad\nv = 2\n```\n\nfor all.\n\n"
        "**Arguments**\n\n- `x`: the {math}`b`."
    )


def test_no_page_shows_mathematics_as_text():
    pages = {room: api.page(room) for room in exports.rooms()}
    for room, text in pages.items():
        assert not re.search(r":math:|\.\. math::", text), room
        # A docstring that is not raw turns \beta and \theta into control characters.
        assert not re.search(r"[\x00-\x08\x0b-\x1f\t]", text), room
        assert text.count("\n```{math}\n") == len(re.findall(r"\n```{math}\n[^`]+\n```\n", text))
    assert r"\psi = \mathrm{conv}\, \tilde\psi" in pages["theory"]


def test_signatures_have_no_addresses_and_no_private_files():
    for room in exports.rooms():
        for line in api.page(room).splitlines():
            if "{py:" in line:
                assert " at 0x" not in line, line
                assert not re.search(r"jaxrobust\.\w+\._", line), line
                assert "NoneType" not in line, line
    assert "images: ArrayLike, labels: ArrayLike" in api.page("attacks")


def test_every_command_and_option_is_on_the_page_of_commands():
    text = commands.page()
    assert "\b" not in text
    assert "```bash\njaxrobust new mine.py\n" in text

    def look(command, path):
        assert f"\n## {path}\n" in text
        for parameter in command.params:
            assert max(parameter.opts, key=len) in text or isinstance(parameter, click.Argument)
        for name, inner in command.commands.items() if isinstance(command, click.Group) else ():
            look(inner, f"{path} {name}")

    look(cli, "jaxrobust")


def test_links_to_files_outside_of_the_site_are_turned():
    text = "[a](../README.md) [b](data.md#x) [c](../experiments/digits_trades.py) [d](https://x.y)"
    turned = project_files.relinked(text, "docs/benchmarks.md")
    assert turned == "[a](/index.md) [b](/data.md#x) c [d](https://x.y)"
    assert "](/recipes.md)" in project_files.pages()["project/contributing"]


def test_every_notebook_is_linked_from_a_page_of_its_subject():
    pages = [p.read_text() for p in (ROOT / "docs").glob("*.md") if p.stem != "index"]
    for notebook in (ROOT / "docs" / "notebooks").glob("*.md"):
        assert any(f"](notebooks/{notebook.name})" in text for text in pages), notebook.name


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = [p.relative_to(ROOT / "docs") for p in (ROOT / "docs").glob("*.md")]
    for folder in ("methods", "notebooks"):
        pages += [p.relative_to(ROOT / "docs") for p in (ROOT / "docs" / folder).glob("*.md")]
    names = [page.with_suffix("").as_posix() for page in pages] + [*project_files.pages()]
    for name in set(names) - {"index"}:
        assert re.search(rf"^{name}$", index, re.M), f"docs/index.md does not list {name}"
