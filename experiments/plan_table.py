"""The committed plans as a Markdown table, for docs/pods.md: nothing in it is typed by hand.

Command:  python experiments/plan_table.py [--write]
"""

import argparse
import json
import pathlib
import re
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "pods.md"
MARK = "<!-- python experiments/plan_table.py -->"
HEAD = (
    "experiment",
    "slice",
    "batch",
    "memory per chip",
    "bound per step",
    "chip-hours, at least",
    "compiled in",
)


def plan_table(folder: pathlib.Path) -> str:
    """All `plan_*.json` of a folder as a table, a row per plan.

    Args:
      folder: where `jaxrobust plan --json` wrote them.

    Returns:
      Markdown, without a line break at its end.

    Raises:
      ValueError: if one of them is no plan.
    """
    plans = []
    for path in sorted(folder.glob("plan_*.json")):
        plan = json.loads(path.read_text())
        if plan.get("ran") is not False:
            raise ValueError(f"{path} is no plan: it must say that nothing ran")
        plans.append(plan)
    plans.sort(key=lambda plan: (plan["experiment"], plan["topology"]))
    rows = [HEAD, ("---",) * len(HEAD), *map(_row, plans)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(plan: dict[str, Any]) -> tuple[str, ...]:
    step = plan["programs"][0]
    head = (plan["experiment"], plan["topology"], f"{step['batch_size']:,}")
    compiled = f"{step['compile_seconds']:.0f} s"
    if not step["fits"]:
        return (*head, "does not fit", "-", "-", compiled)
    memory = f"{step['bytes_per_chip'] / 2**30:.2f} of {step['memory_bytes'] / 2**30:.0f} GiB"
    bound = f"{1e3 * step['bound_seconds']:.3g} ms"
    return (*head, memory, bound, f"{plan['chip_hours']:.3g}", compiled)


def table_of(page: str) -> str:
    """The table that stands after the mark in a page.

    Raises:
      ValueError: if there is none.
    """
    found = re.search(re.escape(MARK) + r"\n\n((?:\|.*\n)+)", page)
    if found is None:
        raise ValueError(f"there is no table after {MARK}")
    return found[1].strip()


def main() -> None:
    """Prints the table, or puts it into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help="replace the table in docs/pods.md")
    table = plan_table(ROOT / "experiments" / "results")
    if parser.parse_args().write:
        page = PAGE.read_text()
        PAGE.write_text(page.replace(table_of(page), table))
    else:
        print(table)


if __name__ == "__main__":
    main()
