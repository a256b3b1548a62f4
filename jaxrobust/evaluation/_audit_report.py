"""The verdict of an audit, with its numbers."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxrobust.evaluation._audit_probe import Probe
from jaxrobust.evaluation._audit_stages import Route
from jaxrobust.evaluation._intervals import Accuracy, accuracy
from jaxrobust.evaluation._report_parts import dataframe_of, html_of, short_repr
from jaxrobust.twins import Stop
from jaxrobust.typing import Norm

SHOWN = 8  # findings in the text


@dataclass(frozen=True, eq=False, repr=False)
class AuditReport:
    """The result of `audit`.

    `to_dataframe` has the columns `label`, `clean`, `before` and each stage (True where the network
    still withstands it), and `masked`.

    Attributes:
      norm: the norm of the ball.
      eps: radius in image units.
      seed: the seed of all noise.
      labels: `[n]`.
      masks: `{"clean": [n], "before": [n], stage: [n]}`, True where the network withstands that
        stage and all before it; "before" are the points that another attack had left.
      routes: `{stage: "more" or "around"}`: whether the stage follows the network's own gradients
        or bypasses them.
      adversarial_images: `[n, h, w, c]`; the clean image where the point did not fall.
      findings: operations that stop or quantise gradients.
      probe: gradients of the remaining points.
      rounds: number of rounds that ran.
      settled: whether no point fell in the last round.
      random: whether the same images got different logits.
      seconds: the time of the whole audit, including compilation.
    """

    norm: Norm
    eps: float
    seed: int
    labels: np.ndarray
    masks: dict[str, np.ndarray]
    routes: dict[str, Route]
    adversarial_images: np.ndarray
    findings: tuple[Stop, ...]
    probe: Probe
    rounds: int
    settled: bool
    random: bool
    seconds: float

    @property
    def clean_accuracy(self) -> Accuracy:
        """Accuracy on the clean images."""
        return accuracy(self.masks["clean"])

    @property
    def before(self) -> Accuracy:
        """The robust accuracy that was audited."""
        return accuracy(self.masks["before"])

    @property
    def robust_accuracy(self) -> Accuracy:
        """The robust accuracy after the audit."""
        return accuracy(next(reversed(self.masks.values())))

    @property
    def fell(self) -> dict[str, int]:
        """The number of points that fell to each stage."""
        pairs = itertools.pairwise(list(self.masks.items())[1:])
        return {name: int((was & ~now).sum()) for (_, was), (name, now) in pairs}

    @property
    def trusted(self) -> bool:
        """Whether nothing fell."""
        return not any(self.fell.values())

    @property
    def masked(self) -> np.ndarray:
        """`[n]` bool, the points that had survived because of hidden gradients.

        They fell to attacks that bypass the network's own gradients, or where these vanish on the
        clean image.
        """
        found = np.zeros(len(self.labels), bool)
        flat = np.zeros(len(self.labels), bool)
        flat[self.masks["before"]] = self.probe.vanishing | self.probe.dead
        for (_, was), (name, now) in itertools.pairwise(list(self.masks.items())[1:]):
            found |= was & ~now & (flat | (self.routes[name] == "around"))
        return found

    @property
    def verdict(self) -> str:
        """One sentence: "trusted", "too high" or "not to be trusted", and why."""
        left, count = int(self.masks["before"].sum()), sum(self.fell.values())
        end = "" if self.settled else "; points still fell in the last round"
        if not left:
            return "nothing to trust: another attack has left no point"
        if self.trusted:
            return f"trusted: nothing fell of {left} points"
        if not self.masked.any():
            return (
                f"too high: {count} of {left} points fell to more steps, targets and restarts, "
                f"none around the network's own gradients{end}"
            )
        return (
            f"not to be trusted: {count} of {left} points fell that another attack had left, "
            f"{int(self.masked.sum())} of them because the network's own gradients vanish or "
            f"mislead{end}"
        )

    @property
    def suspicions(self) -> list[str]:
        """Reasons to suspect the network's gradients; none of them alone makes a point fall."""
        size = len(self.probe.dead)
        counts = {
            "points where the cross-entropy has no gradient": self.probe.vanishing,
            "points where the margin has no gradient": self.probe.dead,
            "points where random search beats gradient ascent": self.probe.outclimbed,
            "points where a change of 1e-6 makes the logits jump": self.probe.jumping,
        }
        found = [f"{int(m.sum())} of {size} {words}" for words, m in counts.items() if m.any()]
        if self.random:
            found.append("the same images get different logits")
        return found

    def __repr__(self) -> str:
        """One line with the evaluation and its result, without the arrays."""
        return short_repr(
            self,
            f"{self.norm} eps {self.eps:.6g}, {len(self.labels)} points, robust "
            f"{self.before.value:.1%} before and {self.robust_accuracy.value:.1%} after, "
            f"{self.verdict.partition(':')[0]}",
        )

    def _repr_html_(self) -> str:
        """The report as notebooks show it."""
        return html_of(self.text())

    def to_dataframe(self) -> Any:
        """Returns the points as a table with one row per point.

        Returns:
          A pandas DataFrame; the description of the class lists its columns.

        Raises:
          ValueError: if pandas is not installed.
        """
        return dataframe_of({"label": self.labels, **self.masks, "masked": self.masked})

    def text(self) -> str:
        """One page: the verdict, the points that fell to each stage, and suspicions."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"Audit, {self.norm}, eps {self.eps:.6g}, {len(self.labels)} points"
        yield self.verdict
        yield ""
        yield f"{'clean':<32}{self.clean_accuracy}"
        yield f"{'before':<32}{self.before}"
        for name, count in self.fell.items():
            end = f"  {count} fell" if count else ""
            yield f"{name:<32}{accuracy(self.masks[name])}{end}"
        yield ""
        yield "Suspicions:" if self.suspicions else "Suspicions: none"
        yield from (f"  {words}" for words in self.suspicions)
        yield (
            "Operations that stop gradients:"
            if self.findings
            else ("Operations that stop gradients: none")
        )
        yield from (f"  {stop}" for stop in self.findings[:SHOWN])
        if len(self.findings) > SHOWN:
            yield f"  and {len(self.findings) - SHOWN} more"
        rounds = f"{self.rounds} round{'s' * (self.rounds > 1)}"
        yield f"{rounds}, {self.seconds:.0f} s"

    def to_dict(self) -> dict[str, Any]:
        """Everything but images and masks, as plain JSON types."""
        return {
            "norm": self.norm,
            "eps": self.eps,
            "seed": self.seed,
            "verdict": self.verdict,
            "trusted": self.trusted,
            "masked": int(self.masked.sum()),
            "clean_accuracy": self.clean_accuracy._asdict(),
            "before": self.before._asdict(),
            "robust_accuracy": self.robust_accuracy._asdict(),
            "fell": self.fell,
            "routes": dict(self.routes),
            "suspicions": self.suspicions,
            "findings": [stop._asdict() for stop in self.findings],
            "rounds": self.rounds,
            "settled": self.settled,
            "random": self.random,
            "seconds": self.seconds,
        }
