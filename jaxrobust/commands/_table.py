"""Results as Markdown, so that a table in a text is never typed by hand."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxrobust.commands._bench_markdown import bench_rows
from jaxrobust.commands._summary import attack_text, cell, columns_of
from jaxrobust.rows import read_rows
from jaxrobust.storage import local_folder

FILES = ("results.json", "results.jsonl")
WANTED = (
    "a table is made of results.json of a trade-off, results.jsonl of a run, or what "
    "`jaxrobust bench` wrote with --json"
)


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
    path = local_folder(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file in it: {', '.join(FILES)}")
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        if path.suffix == ".jsonl":
            return _runs(path, read_rows(path))
        results = json.loads(path.read_text())
        if isinstance(results, dict) and "bench" in results:
            return _lines(bench_rows(results))
        if not isinstance(results, dict) or "members" not in results:
            raise ValueError(f"{path} holds no results of a trade-off; {WANTED}")
        return _members(path, results["members"])
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text file; {WANTED}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON or damaged ({error}); {WANTED}") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path} holds rows of another shape ({type(error).__name__}: {error}); {WANTED}"
        ) from None


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
    columns = columns_of(members)
    rows = [["method", *columns]]
    for name, member in members.items():
        figures = member["figures"]
        rows.append([name, *(cell(figures.get(c)) if figures else "failed" for c in columns)])
    return _lines(rows)


def _runs(path: pathlib.Path, found: Sequence[dict[str, Any]]) -> str:
    """A row per evaluation."""
    if not found:
        raise ValueError(f"{path} holds no rows")
    rows = [["experiment", "attack", "images", "clean", "robust"]]
    steps = {row["checkpoint"]["step"] for row in found if "checkpoint" in row}
    for row in found:
        name, clean = _evaluated(row), row["clean_accuracy"]
        if len(steps) > 1 and "checkpoint" in row:
            name += f", step {row['checkpoint']['step']}"
        for attack, value in _attacks(row).items():
            rows.append([name, attack, str(clean["total"]), cell(clean), cell(value)])
    return _lines(rows)


def _evaluated(row: dict[str, Any]) -> str:
    """The experiment of a row, or the mixture."""
    if "mixture" not in row:
        return row["experiment"]["name"]
    mixture = row["mixture"]
    names = [b["weights"] if isinstance(b, dict) else b for b in (mixture["std"], mixture["rob"])]
    how = {k: mixture[k] for k in ("alpha", "smoothing", "nuts") if mixture[k] is not None}
    return f"{' with '.join(names)}, {', '.join(f'{k} {v}' for k, v in how.items())}"


def _attacks(row: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The attacked accuracies of a row by the attack, with all that its number depends on."""
    if "autoattack" not in row:
        threat = row["threat"] if "threat" in row else _threat(row["evaluation"])
        found = row["robust_accuracy"].items()
        return {f"{attack_text(attack, row)}, {threat}": value for attack, value in found}
    protocol = row["autoattack"]
    name = f"AutoAttack {protocol['version']}"
    if protocol["version"] == "custom":
        name += f" ({' '.join(attack['attack'] for attack in protocol['attacks'])})"
    name += f", {protocol['norm']} eps {protocol['eps']:.6g}"
    name += f", seed {protocol['seed']}" if protocol.get("seed") else ""
    (value,) = row["robust_accuracy"].values()
    if "adaptive" in row["robust_accuracy"]:
        name = f"adaptive {name}"
    return {name: value}


def _threat(evaluation: dict[str, Any]) -> str:
    return f"{evaluation['norm']} eps {evaluation['eps']:.6g}"


def _lines(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
