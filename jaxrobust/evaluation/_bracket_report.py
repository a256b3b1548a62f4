"""Points that are certified, falsified or open: the result of a bracket."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxrobust.evaluation._intervals import Accuracy, accuracy
from jaxrobust.evaluation._report_parts import dataframe_of, html_of, short_repr


@dataclass(frozen=True, eq=False, repr=False)
class Bracket:
    """The result of `bracket`.

    `to_dataframe` has the columns `verdict`, `decided_by` and `margin`.

    Attributes:
      certified: `[n]` bool; a bound proves that no image of the set is misclassified.
      falsified: `[n]` bool; the image itself or one that an attack found is misclassified.
      decided_by: `[n]` text: "clean", an attack, a method of bounds, or "" for open points.
      margins: `[n]` the best lower bound of the smallest margin; NaN where none was computed.
      seconds: the time of each stage that ran, including compilation.
      threat: the set in words.
      slack: a margin counts if it is above `slack * (1 + largest margin)`.
    """

    certified: np.ndarray
    falsified: np.ndarray
    decided_by: np.ndarray
    margins: np.ndarray
    seconds: Mapping[str, float]
    threat: str
    slack: float

    @property
    def open(self) -> np.ndarray:
        """`[n]` bool; neither certified nor falsified."""
        return ~(self.certified | self.falsified)

    @property
    def verdicts(self) -> np.ndarray:
        """`[n]` text: "certified", "falsified" or "open"."""
        found = np.where(self.certified, "certified", "open")
        return np.where(self.falsified, "falsified", found)

    @property
    def lower(self) -> Accuracy:
        """Certified accuracy: robust accuracy is at least this on these points."""
        return accuracy(self.certified)

    @property
    def upper(self) -> Accuracy:
        """Accuracy under the attacks: robust accuracy is at most this on these points."""
        return accuracy(~self.falsified)

    @property
    def counts(self) -> dict[str, int]:
        """Number of points by the stage that decided them; "open" for the others."""
        names, counts = np.unique(self.decided_by, return_counts=True)
        return {str(n) or "open": int(c) for n, c in zip(names, counts, strict=True)}

    def __repr__(self) -> str:
        """One line with the evaluation and its result, without the arrays."""
        return short_repr(
            self,
            f"{self.threat}, {len(self.certified)} points, robust accuracy from "
            f"{self.lower.value:.1%} to {self.upper.value:.1%}",
        )

    def _repr_html_(self) -> str:
        """The result as notebooks show it."""
        return html_of(self.text())

    def to_dataframe(self) -> Any:
        """Returns the points as a table with one row per point.

        Returns:
          A pandas DataFrame; the description of the class lists its columns.

        Raises:
          ValueError: if pandas is not installed.
        """
        names = {"verdict": self.verdicts, "decided_by": self.decided_by}
        return dataframe_of(names | {"margin": self.margins})

    def text(self) -> str:
        """The result in a few lines."""
        total = len(self.certified)
        parts = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        return (
            f"{self.threat}, {total} points\n"
            f"certified  {self.lower}\n"
            f"attacked   {self.upper}\n"
            f"open       {int(self.open.sum())} of {total}\n"
            f"decided by {parts}"
        )

    def figures(self) -> dict[str, Any]:
        """The result as plain JSON types."""
        return {
            "threat": self.threat,
            "certified_accuracy": self.lower._asdict(),
            "attacked_accuracy": self.upper._asdict(),
            "open": int(self.open.sum()),
            "decided_by": self.counts,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "slack": self.slack,
        }
