"""The rows of a report: folded tables under the anchors that numbers and figures link to."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrobust.commands._members import cell, rows_of
from jaxrobust.evaluation import Number, Row, summary

SHORT = 12  # a longer list is folded


def anchor(number: int, kind: str) -> str:
    """The anchor of a member's rows of one kind; the name of a kind from outside is an import path.

    Args:
      number: the number of the member, from 0.
      kind: the kind of the rows.

    Returns:
      An id.
    """
    return f"rows{number}-{re.sub('[^a-zA-Z0-9_]', '-', kind)}"


def numbers_by_kind(member: Mapping[str, Any]) -> dict[str, dict[str, Number]]:
    """The numbers of a member over its seeds, by the kind of the rows that have them.

    Args:
      member: as in `results.json`.

    Returns:
      By kind, numbers by column.
    """
    seeds = rows_of(member)
    kinds = dict.fromkeys(row.kind for seed in seeds for row in seed)
    return {k: summary([[row for row in seed if row.kind == k] for seed in seeds]) for k in kinds}


def places(number: int, member: Mapping[str, Any], numbers: Mapping[str, Number]) -> dict[str, str]:
    """The lines that have the numbers of a member.

    Args:
      number: the number of the member, from 0.
      member: as in `results.json`.
      numbers: the numbers of the member, as a table shows them.

    Returns:
      By column, the id of the line that has exactly this number.
    """
    found: dict[str, str] = {}
    for kind, having in numbers_by_kind(member).items():
        for position, (column, value) in enumerate(having.items()):
            if numbers.get(column) == value:
                found.setdefault(column, f"{anchor(number, kind)}--{position}")
    return found


def section(number: int, name: str, member: Mapping[str, Any]) -> str:
    """The rows of a member.

    Args:
      number: the number of the member, from 0.
      name: the name of the member.
      member: as in `results.json`.

    Returns:
      HTML, folded.
    """
    lines = [f'<section id="rows{number}"><h3>{html.escape(name)}</h3>']
    if "failure" in member:
        lines.append(f'<p class="failed">failed: {html.escape(member["failure"])}</p>')
    seeds = rows_of(member)
    for kind, numbers in numbers_by_kind(member).items():
        of_kind = [[row for row in seed if row.kind == kind] for seed in seeds]
        place = anchor(number, kind)
        lines += [
            f'<details id="{place}"><summary>{html.escape(kind)}</summary>',
            _numbers(place, numbers, of_kind),
            *(_row(row, seed) for seed, rows in enumerate(of_kind) for row in rows),
            "</details>",
        ]
    for part in ("training", "experiment"):
        found = [run[part] for run in member["runs"] if part in run]
        if found:
            what = "".join(value(each) for each in found)
            summary_ = f"<summary>{part}</summary>"
            lines.append(f'<details id="{anchor(number, part)}">{summary_}{what}</details>')
    return "\n".join([*lines, "</section>"])


def _numbers(place: str, numbers: Mapping[str, Number], seeds: Sequence[Sequence[Row]]) -> str:
    """A line per number: over all seeds, and for each seed with its interval and counts."""
    heads = ["quantity", "accuracy (%)", *(f"run {seed + 1}" for seed in range(len(seeds)))]
    lines = ["".join(f"<th>{head}</th>" for head in heads)]
    lines[0] = f"<tr>{lines[0]}</tr>"
    for position, (column, number) in enumerate(numbers.items()):
        cells = [html.escape(column), cell(number)]
        cells += [_of_seed(summary([rows])[column]) for rows in seeds]
        line = "".join(f"<td>{each}</td>" for each in cells)
        lines.append(f'<tr id="{place}--{position}">{line}</tr>')
    return f'<div class="wide"><table>{"".join(lines)}</table></div>' if numbers else ""


def _of_seed(number: Number) -> str:
    counted = f", {number.correct} of {number.total}" if number.total is not None else ""
    return f"{100 * number.value:.2f} [{100 * number.low:.2f}, {100 * number.high:.2f}]{counted}"


def _row(row: Row, seed: int) -> str:
    """Everything else about a row."""
    facts = row.to_dict()
    known = ("title", "numbers", "kind", "schema")
    facts = {name: fact for name, fact in facts.items() if name not in known and fact != {}}
    title = html.escape(f"{row.title}, run {seed + 1}")
    return f"<details><summary>{title}</summary>{value(facts)}</details>"


def value(thing: Any) -> str:
    """JSON as tables: columns if lists or records have the same form, else names and values.

    Args:
      thing: plain JSON types.

    Returns:
      HTML.
    """
    if isinstance(thing, Mapping | list | tuple) and not thing:
        return "none"
    if isinstance(thing, Mapping):
        columns = list(thing.values())
        if len(thing) > 1 and all(map(_is_list, columns)) and len({*map(len, columns)}) == 1:
            return _columns([*thing], [*zip(*columns, strict=True)])
        lines = (f"<tr><td>{html.escape(str(k))}</td><td>{value(v)}</td></tr>" for k, v in thing.items())  # fmt: skip  # noqa: E501
        return f'<table class="facts">{"".join(lines)}</table>'
    if isinstance(thing, Sequence) and not isinstance(thing, str):
        if thing and all(isinstance(each, Mapping) and [*each] == [*thing[0]] for each in thing):
            return _columns([*thing[0]], [[*each.values()] for each in thing])
        text = ", ".join(map(value, thing))
        if len(thing) <= SHORT:
            return text
        return f"<details><summary>{len(thing)} values</summary>{text}</details>"
    return html.escape(f"{thing:.6g}" if isinstance(thing, float) else str(thing))


def _is_list(thing: Any) -> bool:
    scalars = (str, int, float, type(None))
    return isinstance(thing, list) and bool(thing) and all(isinstance(x, scalars) for x in thing)


def _columns(names: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{value(each)}</td>' for each in line)}</tr>" for line in lines
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
