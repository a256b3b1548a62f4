"""A trade-off as one HTML file that needs nothing else."""

import base64
import html
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrobust.commands._fronts import fronts_text
from jaxrobust.commands._members import Members, cell, columns_of, numbers_of_member, rows_of
from jaxrobust.commands._table import latex_table, markdown_table
from jaxrobust.commands._tradeoff_figures import Drawn
from jaxrobust.evaluation import Row
from jaxrobust.files import replace_text

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc } h4 { margin: 1rem 0 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { padding: .25rem .35rem; text-align: right; border-bottom: 1px solid #ddd }
th { vertical-align: bottom } td { white-space: nowrap }
th:first-child, td:first-child { text-align: left } .wide { overflow-x: auto }
td a { color: inherit; text-decoration-color: #bbb }
img { max-width: min(100%, 58rem); height: auto } figure { margin: 1.5rem 0 }
figcaption { color: #444 } figcaption a, .sources a { font-size: 13px }
pre { overflow: auto; max-height: 18rem; background: #f6f6f6; padding: .8rem; font-size: 13px }
:target { outline: 2px solid #0072B2 } .failed { color: #a00; text-align: left }
"""


def write_report(
    folder: pathlib.Path,
    results: dict[str, Any],
    *,
    figures: Sequence[Drawn],
    examples: Sequence[tuple[pathlib.Path, str]],
) -> pathlib.Path:
    """`report.html` in the folder: table, figures, example attacks and the rows behind them.

    Pictures are inside the file; it loads nothing from anywhere. Every number of the table and
    every figure is a link to the rows that it comes from.

    Args:
      folder: of `results.json`, which must be there already.
      results: what `results.json` holds.
      figures: what was drawn, in order.
      examples: PNG files of attacked images, and the members they are of.

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
        "<h2>Accuracies</h2>",
        _table(members),
        *_warnings(members),
        *_fronts(results),
        "<h2>Figures</h2>",
        *(_figure(f.path, f.caption, _links(members, f.kind)) for f in figures if f.path.is_file()),
        "<h2>Example attacks</h2>",
        *(
            _figure(
                path,
                f"{shown}: images, attacked, and what was added",
                _links({shown: members[shown]}, "pgd", members),
            )
            for path, shown in examples
            if path.is_file() and members[shown]["runs"]
        ),
        "<h2>For a paper</h2>",
        *_for_a_paper(folder / "results.json", members),
        "<h2>Rows</h2>",
        "<p>Every number and figure above is computed from these rows; they are also in "
        "<code>results.json</code>.</p>",
        *(_rows(i, *member) for i, member in enumerate(members.items())),
    ]
    path = folder / "report.html"
    replace_text(path, _page(name, body))
    return path


def _page(title: str, body: Sequence[str]) -> str:
    head = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>'
    )
    return "\n".join([head, *body, "</body></html>"]) + "\n"


def _sentence(members: Members) -> str:
    seeds = max(len(member["runs"]) for member in members.values())
    if seeds > 1:
        return f"Means over {seeds} training seeds, with half of their range."
    return "One training seed; with half of the 95 % interval over test images."


def _anchor(number: int, kind: str) -> str:
    """The place of a member's rows of one kind; a kind from outside has a path as its name."""
    return f"rows{number}-{re.sub('[^a-zA-Z0-9_]', '-', kind)}"


def _kinds(rows: Sequence[Row]) -> dict[str, str]:
    """By column, the kind of the rows that have it."""
    found: dict[str, str] = {}
    for row in rows:
        for number in row.numbers:
            found.setdefault(number.column, row.kind)
    return found


def _table(members: Members) -> str:
    found = {name: numbers_of_member(member) for name, member in members.items()}
    columns = columns_of(found.values())
    head = "".join(f"<th>{html.escape(c)}</th>" for c in ("method", *columns))
    lines = [f'<div class="wide"><table><tr>{head}</tr>']
    for number, (name, member) in enumerate(members.items()):
        numbers = found[name]
        kinds = _kinds([row for rows in rows_of(member) for row in rows])
        cells = [f'<a href="#rows{number}">{html.escape(name)}</a>']
        for column in columns if numbers else ():
            text = cell(numbers.get(column))
            anchor = _anchor(number, kinds[column]) if text else f"rows{number}"
            cells.append(f'<a href="#{anchor}">{text}</a>')
        line = "".join(f"<td>{cell}</td>" for cell in cells)
        reason = html.escape(member.get("failure", "" if numbers else "not finished"))
        if reason and numbers:
            line += f'</tr>\n<tr><td></td><td class="failed" colspan="{len(columns)}">a seed failed: {reason}</td>'  # fmt: skip  # noqa: E501
        elif reason:
            line += f'<td class="failed" colspan="{len(columns)}">failed: {reason}</td>'
        lines.append(f"<tr>{line}</tr>")
    return "\n".join([*lines, "</table></div>"])


def _fronts(results: Mapping[str, Any]) -> list[str]:
    """The table of the lines and what their comparison says."""
    cells, sentences = fronts_text(results)
    if not cells:
        return []
    rows = [
        "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for tag, row in zip(["th", *["td"] * (len(cells) - 1)], cells, strict=True)
    ]
    said = [f"<li>{html.escape(sentence)}</li>" for sentence in sentences]
    return [
        "<h2>Fronts</h2>",
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
            where = f'<a href="#{_anchor(number, kind)}">{html.escape(name)}</a>'
            lines.append(f"<li>{where}, {html.escape(text)}</li>")
    return ["<p>Warnings of the checks:</p><ul>", *lines, "</ul>"] if lines else []


def _links(members: Members, kind: str, every: Members | None = None) -> Sequence[tuple[str, str]]:
    """The rows of members that something is drawn from: names and anchors."""
    numbers = {name: number for number, name in enumerate(every or members)}
    return [
        (name, "#" + _anchor(numbers[name], kind))
        for name, member in members.items()
        if kind in _parts(member)
    ]


def _figure(path: pathlib.Path, caption: str, links: Sequence[tuple[str, str]]) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    rows = ", ".join(f'<a href="{anchor}">{html.escape(name)}</a>' for name, anchor in links)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}<br>rows: {rows}</figcaption></figure>"
    )


def _for_a_paper(path: pathlib.Path, members: Members) -> list[str]:
    if not any(map(numbers_of_member, members.values())):
        return ["<p>Every member failed.</p>"]
    tables = (markdown_table(path), latex_table(path))
    return [f"<pre>{html.escape(table)}</pre>" for table in tables]


def _parts(member: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What there is of a member: rows by kind, and each seed's training and experiment."""
    found: dict[str, list[Any]] = {}
    for run in member["runs"]:
        for row in run["rows"]:
            found.setdefault(row["kind"], []).append(row)
        for name in ("training", "experiment"):
            if name in run:
                found.setdefault(name, []).append(run[name])
    return found


def _rows(number: int, name: str, member: Mapping[str, Any]) -> str:
    """The rows of a member under the anchors that table and figures link to."""
    lines = [f'<section id="rows{number}"><h3>{html.escape(name)}</h3>']
    for kind, found in _parts(member).items():
        text = html.escape(json.dumps(found, indent=1))
        lines.append(f'<h4 id="{_anchor(number, kind)}">{html.escape(kind)}</h4><pre>{text}</pre>')
    if "failure" in member:
        lines.append(f'<p class="failed">failed: {html.escape(member["failure"])}</p>')
    return "\n".join([*lines, "</section>"])
