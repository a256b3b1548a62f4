"""Results as Markdown, so that a table in a text is never typed by hand."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxrobust.commands._bench_markdown import bench_rows
from jaxrobust.training import read_rows


def markdown_table(path: pathlib.Path) -> str:
    """The results in a file as a Markdown table.

    Args:
      path: `results.json` of a trade-off, `results.jsonl` of a run, or what a `bench` command wrote
        with `--json`.

    Returns:
      The table: times, with the machine in the first cell; or accuracies in per cent, with half
      of the range over seeds, or half of the 95 % interval where there is one seed.

    Raises:
      ValueError: if the file does not exist or holds no results.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    if path.suffix == ".jsonl":
        return _runs(path, read_rows(path))
    try:
        results = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if isinstance(results, dict) and "bench" in results:
        return _lines(bench_rows(results))
    if not isinstance(results, dict) or "members" not in results:
        raise ValueError(f"{path} holds no results of a trade-off")
    return _members(path, results["members"])


def latex_table(path: pathlib.Path) -> str:
    """The results of a trade-off as a LaTeX `tabular`.

    Args:
      path: `results.json` of a trade-off.

    Returns:
      The table, for the packages that a paper has anyway.

    Raises:
      ValueError: if the file does not exist or holds no results.
    """
    lines = markdown_table(path).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head, body = rows[0], rows[2:]
    text = [f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", "\\hline"]
    text += [_latex_line(head), "\\hline", *map(_latex_line, body), "\\hline", "\\end{tabular}"]
    return "\n".join(text)


def _latex_line(cells: Sequence[str]) -> str:
    def escaped(cell: str) -> str:
        for sign in "&%_#$":
            cell = cell.replace(sign, "\\" + sign)
        return cell.replace("±", "$\\pm$")

    return " & ".join(map(escaped, cells)) + r" \\"


def _members(path: pathlib.Path, members: dict[str, Any]) -> str:
    """A row per method, a column per attack."""
    shown = [member for member in members.values() if member["figures"]]
    if not shown:
        raise ValueError(f"{path} holds no figures: every member failed")
    columns = list(shown[0]["figures"])
    rows = [["method", *columns]]
    for name, member in members.items():
        figures = member["figures"]
        rows.append([name, *(_cell(figures[c]) if figures else "failed" for c in columns)])
    return _lines(rows)


def _runs(path: pathlib.Path, found: Sequence[dict[str, Any]]) -> str:
    """A row per evaluation."""
    if not found:
        raise ValueError(f"{path} holds no rows")
    rows = [["experiment", "attack", "images", "clean", "robust"]]
    for row in found:
        if "autoattack" in row:
            protocol = row["autoattack"]
            name = f"AutoAttack {protocol['version']}, {protocol['norm']} eps {protocol['eps']:.6g}"
            robust = {name: row["robust_accuracy"]["autoattack"]}
        else:
            steps = row["evaluation"]["steps"]
            robust = {
                f"{attack} ({steps}), {row['threat']}": value
                for attack, value in row["robust_accuracy"].items()
            }
        for attack, value in robust.items():
            clean = row["clean_accuracy"]
            name = row["experiment"]["name"]
            rows.append([name, attack, str(clean["total"]), _cell(clean), _cell(value)])
    return _lines(rows)


def _cell(figure: dict[str, float]) -> str:
    return f"{100 * figure['value']:.1f} ±{50 * (figure['high'] - figure['low']):.1f}"


def _lines(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
