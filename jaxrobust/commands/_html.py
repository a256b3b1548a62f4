"""A trade-off as one HTML file that needs nothing else."""

import base64
import html
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxrobust.commands._table import latex_table, markdown_table

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; height: auto } figure { margin: 1.5rem 0 }
figcaption { color: #444 } pre { overflow-x: auto; background: #f6f6f6; padding: .8rem }
.failed { color: #a00 }
"""


def write_report(
    folder: pathlib.Path,
    results: dict[str, Any],
    *,
    figures: Sequence[tuple[pathlib.Path, str]],
    examples: Sequence[tuple[pathlib.Path, str]],
) -> pathlib.Path:
    """`report.html` in the folder: table, figures, example attacks and the rows behind them.

    Pictures are inside the file; it loads nothing from anywhere.

    Args:
      folder: of `results.json`, which must be there already.
      results: what `results.json` holds.
      figures: PNG files with their captions, in order.
      examples: PNG files of attacked images with their captions.

    Returns:
      The path of the report.
    """
    name = html.escape(results["name"])
    provenance = results["provenance"]
    seconds = results["seconds"]
    machine = f"{provenance['devices']['count']} x {provenance['devices']['kind']}"
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{name}</title>',
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>',
        f"<h1>{name}</h1>",
        f"<p>{_sentence(results)} Made {provenance['time']} on {html.escape(machine)}, "
        f"jax {provenance['versions']['jax']}, in {seconds.get('total', 0):.0f} s.</p>",
        "<h2>Accuracies</h2>",
        _table(results["members"]),
        *(_figure(path, caption) for path, caption in figures if path.is_file()),
        "<h2>Example attacks</h2>",
        *(_figure(path, caption) for path, caption in examples if path.is_file()),
        "<h2>For a paper</h2>",
        f"<pre>{html.escape(markdown_table(folder / 'results.json'))}</pre>",
        f"<pre>{html.escape(latex_table(folder / 'results.json'))}</pre>",
        "<h2>Rows</h2>",
        "<p>Every figure above is computed from these rows.</p>",
        *(_rows(i, *member) for i, member in enumerate(results["members"].items())),
        "</body></html>",
    ]
    path = folder / "report.html"
    temporary = path.with_suffix(".tmp")
    temporary.write_text("\n".join(parts) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def _sentence(results: dict[str, Any]) -> str:
    seeds = results["seeds"]
    if len(seeds) > 1:
        return f"Means over {len(seeds)} training seeds, with half of their range."
    return "One training seed; with half of the 95 % interval over test images."


def _table(members: dict[str, Any]) -> str:
    columns = next((list(m["figures"]) for m in members.values() if m["figures"]), [])
    head = "".join(f"<th>{html.escape(c)}</th>" for c in ("method", *columns))
    lines = [f"<table><tr>{head}</tr>"]
    for number, (name, member) in enumerate(members.items()):
        first = f'<td><a href="#rows{number}">{html.escape(name)}</a></td>'
        if member["figures"]:
            cells = (member["figures"][c] for c in columns)
            rest = "".join(
                f"<td>{100 * f['value']:.1f} ±{50 * (f['high'] - f['low']):.1f}</td>" for f in cells
            )
        else:
            reason = html.escape(member.get("failure", "not finished"))
            rest = f'<td class="failed" colspan="{len(columns)}">failed: {reason}</td>'
        lines.append(f"<tr>{first}{rest}</tr>")
    return "\n".join([*lines, "</table>"])


def _figure(path: pathlib.Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _rows(number: int, name: str, member: dict[str, Any]) -> str:
    """The rows of a member, folded away under the anchor that the table links to."""
    text = html.escape(json.dumps(member["runs"], indent=1))
    summary = f"<summary>{html.escape(name)}</summary>"
    return f'<details id="rows{number}">{summary}<pre>{text}</pre></details>'
