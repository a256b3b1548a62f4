"""Results as Markdown, so that no table in a text is typed by hand."""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Sequence

from jaxrobust.commands._bench_markdown import bench_rows
from jaxrobust.commands._fronts import fronts_text
from jaxrobust.commands._members import Members, cell, columns_of, numbers_of_member
from jaxrobust.commands._run_rows import latest_rows
from jaxrobust.evaluation import Row, row_of
from jaxrobust.files import parse_json
from jaxrobust.inputs import InputError
from jaxrobust.rows import read_rows
from jaxrobust.storage import local_folder

FILES = ("results.json", "rows.jsonl")
WANTED = (
    "a table is made of results.json of a trade-off, rows.jsonl of a run, or what "
    "`jaxrobust bench` wrote with --json"
)


def markdown_table(path: pathlib.Path) -> str:
    """The results in a file as a Markdown table.

    Args:
      path: `results.json` of a trade-off, `rows.jsonl` of a run, or the file of a `bench` command's
        `--json`.

    Returns:
      The table: times, with the machine in the first cell; or accuracies in per cent, with half of
        the range over seeds, or half of the 95 % interval for one seed.

    Raises:
      ValueError: if the file does not exist or holds no results.
    """
    path = local_folder(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file in it: {', '.join(FILES)}")
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    with _damage(path):
        if path.suffix == ".jsonl":
            return _runs(path, latest_rows([row_of(values) for values in read_rows(path)]))
        results = parse_json(path.read_text())
        if isinstance(results, dict) and "bench" in results:
            return _lines(bench_rows(results))
        if not isinstance(results, dict) or "members" not in results:
            raise ValueError(f"{path} holds no results of a trade-off; {WANTED}")
        return _members(path, results["members"])


@contextlib.contextmanager
def _damage(path: pathlib.Path) -> Iterator[None]:
    """Turns what reading a file of another shape raises into one line.

    Raises:
      ValueError: where the body raised such an error.
    """
    try:
        yield
    except InputError as error:
        raise ValueError(f"{path} holds rows in an unknown format ({error}); {WANTED}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text file; {WANTED}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON or is damaged ({error}); {WANTED}") from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        raise ValueError(
            f"{path} holds rows in an unknown format ({type(error).__name__}: {error}); {WANTED}"
        ) from None


def fronts_markdown(path: pathlib.Path) -> str:
    """The fronts of a trade-off with sweeps as a Markdown table, and their comparison.

    Args:
      path: `results.json` of a trade-off.

    Returns:
      The table, an empty line, and a sentence for each pair of methods that was compared.

    Raises:
      ValueError: if the file does not exist or holds no member with a sweep.
    """
    markdown_table(path)  # raises for what is no such file
    results = parse_json(local_folder(path).read_text()) if path.suffix == ".json" else {}
    with _damage(path):
        try:
            cells, sentences = fronts_text(results) if "members" in results else ([], [])
            table = _lines(cells) if cells else ""
        except ValueError as error:  # such as a text where a number belongs
            raise InputError(str(error)) from None
    if not cells:
        raise ValueError(f"{path} holds no member of a trade-off with a sweep")
    return "\n".join([table, "", *(f"- {sentence}" for sentence in sentences)]).strip()


def latex_table(path: pathlib.Path) -> str:
    """The results of a trade-off as a LaTeX `tabular`.

    Args:
      path: `results.json` of a trade-off.

    Returns:
      The table; it needs the package booktabs.

    Raises:
      ValueError: if the file does not exist or holds no results.
    """
    lines = markdown_table(path).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head, body = rows[0], rows[2:]
    text = [f"\\begin{{tabular}}{{@{{}}l{'r' * (len(head) - 1)}@{{}}}}", "\\toprule"]
    text += [_latex_line(head), "\\midrule", *map(_latex_line, body)]
    return "\n".join([*text, "\\bottomrule", "\\end{tabular}"])


def _latex_line(cells: Sequence[str]) -> str:
    def escaped(cell: str) -> str:
        for sign in "&%_#$":
            cell = cell.replace(sign, "\\" + sign)
        return cell.replace("±", "$\\pm$")

    return " & ".join(map(escaped, cells)) + r" \\"


def _members(path: pathlib.Path, members: Members) -> str:
    """A row per method, a column per number."""
    found = {name: numbers_of_member(member) for name, member in members.items()}
    columns = columns_of(found.values())
    if not columns:
        raise ValueError(f"{path} holds no numbers: every member failed")
    rows = [["method", *columns]]
    for name, numbers in found.items():
        rows.append([name, *(cell(numbers.get(c)) if numbers else "failed" for c in columns)])
    return _lines(rows)


def _runs(path: pathlib.Path, found: Sequence[Row]) -> str:
    """A line per number; where the test images have changed, the line has their digest."""
    if not found:
        raise ValueError(f"{path} holds no rows")
    lines = [["experiment", "attack", "images", "clean", "robust"]]
    steps = {row.checkpoint["step"] for row in found if row.checkpoint}
    data = {row.evaluated.get("images", "") for row in found}
    for row in found:
        name, clean = row.run, row.number("clean")
        if len(steps) > 1 and row.checkpoint:
            name += f", step {row.checkpoint['step']}"
        if len(data) > 1:
            name += f", images {row.evaluated.get('images', 'unknown')[:8]}"
        attacked = [number for number in row.numbers if number is not clean]
        threat = f", {row.detail['threat']}" if row.detail.get("threat") else ""
        for number in attacked:
            attack = row.title if len(attacked) == 1 else number.column + threat
            images = "" if number.total is None else str(number.total)
            lines.append([name, attack, images, cell(clean), cell(number)])
    return _lines(lines)


def _lines(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
