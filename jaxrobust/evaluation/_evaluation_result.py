"""The result of `evaluate`."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxrobust.evaluation._checks import Check
from jaxrobust.evaluation._intervals import Accuracy
from jaxrobust.evaluation._report_parts import dataframe_of, html_of, short_repr, warning_lines


@dataclass(frozen=True, eq=False, repr=False)
class EvaluationResult:
    """The result of `evaluate`.

    `to_dataframe` has the columns `clean` and each attack: True where classified correctly.

    Attributes:
      clean: accuracy on the clean images.
      robust: accuracy under each attack; clean errors count as errors.
      worst: accuracy on the points that are robust to every attack.
      masks: `{"clean": bool [n], attack: bool [n]}`, True where classified correctly.
      adversarial_images: `{attack: [n, h, w, c]}`, for the attacks whose images were kept.
      nan_logits: `{"clean": int, attack: int}`, images with NaN or +inf among their logits. They
        count as misclassified.
      checks: checks of the network; a failed one is a warning.
    """

    clean: Accuracy
    robust: dict[str, Accuracy]
    worst: Accuracy
    masks: dict[str, np.ndarray]
    adversarial_images: dict[str, np.ndarray]
    nan_logits: dict[str, int]
    checks: tuple[Check, ...]

    def figures(self) -> dict[str, Any]:
        """The accuracies as plain JSON types."""
        return {
            "clean_accuracy": self.clean._asdict(),
            "robust_accuracy": {name: value._asdict() for name, value in self.robust.items()},
            "worst_case_accuracy": self.worst._asdict(),
            "checks": [check._asdict() for check in self.checks if not check.passed],
        }

    def __repr__(self) -> str:
        """One line with the evaluation and its result, without the arrays."""
        return short_repr(
            self,
            f"{self.clean.total} points, clean {self.clean.value:.1%}, under the worst of "
            f"{len(self.robust)} attacks {self.worst.value:.1%}",
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
        return dataframe_of(self.masks)

    def text(self) -> str:
        """The accuracies and the failed checks as text."""
        found = {"clean": self.clean, **self.robust, "worst case": self.worst}
        width = max(map(len, found))
        lines = [f"{name:<{width}}  {value}" for name, value in found.items()]
        return "\n".join([*lines, *warning_lines(self.checks)])
