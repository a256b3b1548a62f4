"""A trade-off as one self-contained HTML file."""

import base64
import html
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrobust.commands._fronts import fronts_text
from jaxrobust.commands._html_rows import anchor, places, section
from jaxrobust.commands._html_style import SCRIPT, STYLE
from jaxrobust.commands._members import Members, cell, columns_of, numbers_of_member, rows_of
from jaxrobust.commands._table import latex_table, markdown_table
from jaxrobust.commands._tradeoff_figures import Drawn
from jaxrobust.evaluation import Number
from jaxrobust.files import replace_text


def write_report(
    folder: pathlib.Path,
    results: dict[str, Any],
    *,
    figures: Sequence[Drawn],
    examples: Sequence[tuple[pathlib.Path, str]],
) -> pathlib.Path:
    """`report.html` in the folder: table, figures, example attacks and the rows behind them.

    Pictures are embedded in the file, and it loads nothing else. Every number of the table links to
    its line among the rows, and every figure to the rows that it is drawn from.

    Args:
      folder: the folder that already contains `results.json`.
      results: the content of `results.json`.
      figures: the figures, in order.
      examples: PNG files of attacked images, and the members that they belong to.

    Returns:
      The path of the report.
    """
    name, members = html.escape(results["name"]), results["members"]
    provenance = results["provenance"]
    machine = f"{provenance['devices']['count']} x {provenance['devices']['kind']}"
    body = [
        f"<h1>{name}</h1>",
        f"<p>{_sentence(members)} Made {provenance['time']} on {html.escape(machine)}, "
        f"jax {provenance['versions']['jax']}, in {results['seconds'].get('total', 0):.0f} s. "
        "Each number, and each name under a figure, leads to the row that it comes from.</p>",
        _heading("Accuracies"),
        _table(members),
        *_warnings(members),
        *_fronts(results),
        _heading("Figures"),
        *(_figure(f.path, f.caption, _links(members, f.kind)) for f in figures if f.path.is_file()),
        _heading("Example attacks"),
        *(
            _figure(
                path,
                f"{shown}: clean images, attacked images and perturbations",
                _links({shown: members[shown]}, "pgd", members),
            )
            for path, shown in examples
            if path.is_file() and members[shown]["runs"]
        ),
        _heading("For a paper"),
        *_for_a_paper(folder / "results.json", members),
        _heading("Rows"),
        "<p>Every number and figure above is computed from these rows. They are also in "
        "<code>results.json</code>, with all digits.</p>",
        *(section(i, *member) for i, member in enumerate(members.items())),
    ]
    body.insert(2, _contents(body, members))
    path = folder / "report.html"
    replace_text(path, _page(name, body))
    return path


def _page(title: str, body: Sequence[str]) -> str:
    head = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>'
    )
    return "\n".join([head, *body, f"<script>{SCRIPT}</script></body></html>"]) + "\n"


def _heading(text: str) -> str:
    return f'<h2 id="{text.lower().replace(" ", "-")}">{text}</h2>'


def _contents(body: Sequence[str], members: Members) -> str:
    """The table of contents: the headings of a body, and the rows of each member."""
    headings = re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', "\n".join(body))
    links = [f'<a href="#{name}">{text}</a>' for name, text in headings]
    rows = [f'<a href="#rows{i}">{html.escape(name)}</a>' for i, name in enumerate(members)]
    return f"<nav>{' '.join(links)}<br>Rows of: {' '.join(rows)}</nav>"


def _sentence(members: Members) -> str:
    seeds = max(len(member["runs"]) for member in members.values())
    if seeds > 1:
        return f"Means over {seeds} training seeds, with half of their range."
    return "One training seed; with half of the 95 % interval over test images."


def _table(members: Members) -> str:
    found = {name: numbers_of_member(member) for name, member in members.items()}
    columns = columns_of(found.values())
    best = _best(found, columns)
    head = "".join(f"<th>{html.escape(c)}</th>" for c in ("method", *columns))
    lines = [f'<div class="wide"><table><tr>{head}</tr>']
    for number, (name, member) in enumerate(members.items()):
        numbers = found[name]
        line = f'<td><a href="#rows{number}">{html.escape(name)}</a></td>'
        where, warned = places(number, member, numbers), _warned(member)
        for column in columns if numbers else ():
            text, mark = cell(numbers.get(column)), ""
            if text:
                place = where.get(column, f"rows{number}")  # seeds measured it in several kinds
                text = f'<a href="#{place}">{text}</a>'
                kind = place.rpartition("--")[0]
                if any(kind == anchor(number, each) for each in warned):
                    mark = ' <a href="#warnings" title="a check failed">⚠</a>'
            chosen = ' class="best"' if (name, column) in best else ""
            line += f"<td{chosen}>{text}{mark}</td>"
        reason = html.escape(member.get("failure", "" if numbers else "not finished"))
        if reason and numbers:
            line += f'</tr>\n<tr><td></td><td class="failed" colspan="{len(columns)}">a seed failed: {reason}</td>'  # fmt: skip  # noqa: E501
        elif reason:
            line += f'<td class="failed" colspan="{len(columns)}">failed: {reason}</td>'
        lines.append(f"<tr>{line}</tr>")
    note = (
        "<p>In per cent. Bold: the best of a column, and every method whose interval or range "
        "reaches it.</p>"
    )
    return "\n".join([*lines, "</table></div>", *([note] if best else [])])


def _best(
    found: Mapping[str, Mapping[str, Number]], columns: Sequence[str]
) -> set[tuple[str, str]]:
    """The best number of each column with at least two, and those whose intervals reach it."""
    chosen = set()
    for column in columns:
        having = {name: numbers[column] for name, numbers in found.items() if column in numbers}
        if len(having) > 1:
            top = max(number.value for number in having.values())
            chosen |= {(name, column) for name, number in having.items() if number.high >= top}
    return chosen


def _warned(member: Mapping[str, Any]) -> set[str]:
    """The kinds of rows with a failed check."""
    return {row.kind for seed in rows_of(member) for row in seed if row.detail.get("checks")}


def _fronts(results: Mapping[str, Any]) -> list[str]:
    """The table of the lines and the result of their comparison."""
    cells, sentences = fronts_text(results)
    if not cells:
        return []
    rows = [
        "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for tag, row in zip(["th", *["td"] * (len(cells) - 1)], cells, strict=True)
    ]
    said = [f"<li>{html.escape(sentence)}</li>" for sentence in sentences]
    return [
        _heading("Fronts"),
        "<p>The area that a method's points dominate above the reference point, in % of the "
        "rectangle up to 100 %, and its robust accuracy at given clean accuracies, read between "
        "measured points only.</p>",
        '<div class="wide"><table>',
        *rows,
        "</table></div>",
        *(["<ul>", *said, "</ul>"] if said else []),
    ]


def _warnings(members: Members) -> list[str]:
    """The checks of evaluations that failed."""
    lines = []
    for number, (name, member) in enumerate(members.items()):
        rows = [row for seed in rows_of(member) for row in seed]
        found = {
            (row.kind, f"{row.title}: {check['message']}")
            for row in rows
            for check in row.detail.get("checks", [])
        }
        for kind, text in sorted(found):
            where = f'<a href="#{anchor(number, kind)}">{html.escape(name)}</a>'
            lines.append(f"<li>{where}, {html.escape(text)}</li>")
    return ['<p id="warnings">Warnings of the checks:</p><ul>', *lines, "</ul>"] if lines else []


def _links(members: Members, kind: str, every: Members | None = None) -> Sequence[tuple[str, str]]:
    """Names and anchors of the members' rows that a figure is drawn from."""
    numbers = {name: number for number, name in enumerate(every or members)}
    return [
        (name, "#" + anchor(numbers[name], kind))
        for name, member in members.items()
        if kind in _kinds(member)
    ]


def _figure(path: pathlib.Path, caption: str, links: Sequence[tuple[str, str]]) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    rows = ", ".join(f'<a href="{place}">{html.escape(name)}</a>' for name, place in links)
    return (
        '<figure><label title="full size"><input type="checkbox">'
        f'<img alt="{text}" src="data:image/png;base64,{data}"></label>'
        f"<figcaption>{text}<br>rows: {rows}</figcaption></figure>"
    )


def _for_a_paper(path: pathlib.Path, members: Members) -> list[str]:
    if not any(map(numbers_of_member, members.values())):
        return ["<p>Every member failed.</p>"]
    tables = (markdown_table(path), latex_table(path))
    return [f"<pre>{html.escape(table)}</pre>" for table in tables]


def _kinds(member: Mapping[str, Any]) -> set[str]:
    """The kinds of a member's rows, and what else a figure may be drawn from."""
    found = {row["kind"] for run in member["runs"] for row in run["rows"]}
    parts = ("training", "experiment")
    return found | {part for run in member["runs"] for part in parts if part in run}
