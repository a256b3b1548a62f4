"""The pages of the papers' methods: recipes train, numbers are the committed ones."""

import json
import re

import numpy as np
import pytest

from jaxrobust import experiment, mixing
from jaxrobust.commands import markdown_table
from tests.test_documents import METHODS, ROOT, blocks, run, shortened

PRESETS = {
    "mixing.ADAPTIVE_SMOOTHING": mixing.ADAPTIVE_SMOOTHING,
    "mixing.MIXED_NUTS": mixing.MIXED_NUTS,
}


def tables(mark: str) -> list[tuple[str, list[str], list[list[str]]]]:
    """What stands behind a mark, the heads and the bodies of the tables after it."""
    text = "\n".join(page.read_text() for page in METHODS)
    found = re.findall(rf"<!-- {mark} (\S+) -->\n\n((?:\|.*\n)+)", text)
    assert found, mark
    cells = [
        (
            what,
            [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n")],
        )
        for what, table in found
    ]
    return [(what, rows[0], rows[2:-1]) for what, rows in cells]


def published(kind: str, first: str) -> set[float]:
    """The published numbers of an experiment, or of a preset."""
    name = re.search(r"[\w-]+", first)[0]
    if kind == "experiments":
        return set(experiment.load(name).published.values())
    preset, columns = PRESETS[kind][name], ("clean", "autoattack", "adaptive")
    return {getattr(preset, column) for column in columns if hasattr(preset, column)}


@pytest.mark.parametrize("page", METHODS, ids=lambda page: page.stem)
def test_a_page_has_all_sections(page):
    headings = re.findall(r"^## (.+)$", page.read_text(), re.M)
    wanted = ["Differences from the authors' code", "Run it", "Results", "Limits"]
    assert headings[-4:] == wanted
    assert blocks(page, "math")


@pytest.mark.slow
@pytest.mark.parametrize("page", METHODS, ids=lambda page: page.stem)
def test_the_recipe_trains(page, tmp_path):
    """The first block under the name, and with the command, that the page has for it."""
    command, name = re.search(
        r"^    jaxrobust (train|tradeoff) (\w+\.py)$", page.read_text(), re.M
    ).groups()
    (tmp_path / name).write_text(blocks(page, "python")[0])
    done = run(shortened(f"jaxrobust {command} {name}"), tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_lines_of_tables_are_those_of_the_committed_results():
    for file, head, body in tables("lines of jaxrobust table"):
        printed = [
            line.strip("| ").split(" | ") for line in markdown_table(ROOT / file).split("\n")
        ]
        assert head == printed[0]
        assert body
        for row in body:
            assert row in printed, f"{file}: {row[0]}"


def test_published_numbers_are_those_of_experiments_and_presets():
    for kind, _, body in tables("published:"):
        for first, *numbers in body:
            assert {float(n) for n in numbers if n} == published(kind, first), first


def test_means_are_those_of_the_mixtures():
    for file, head, body in tables("means of"):
        lines = {line["name"]: line for line in json.loads((ROOT / file).read_text())["lines"]}
        for first, *numbers in body:
            line = lines[first.strip("`")]
            means = [f"{100 * np.mean(line[column.lower()]):.1f}" for column in head[1:]]
            assert numbers == means, first
