"""Trade-offs are data too: experiments side by side, and what they are evaluated by."""

import itertools
from dataclasses import dataclass, field
from typing import Any

from jaxrobust.experiment._experiment import FORBID_EXTRA, Experiment, as_folder_name
from jaxrobust.experiment._parts import PARTS
from jaxrobust.experiment._traced import traced
from jaxrobust.inputs import InputError, as_choice, as_count, as_number, as_seed
from jaxrobust.spec import Number, Spec, built, checked
from jaxrobust.typing import NORMS, Norm

MEMBER = "member:"


@dataclass(frozen=True, kw_only=True)
class EpsCurves:
    """Accuracy against eps, under PGD on the margin: cheap, and an upper bound of AutoAttack's.

    Attributes:
      radii: by norm ("linf", "l2", "l1"), the radii in image units, rising; 0 is always there.
      steps: of the attack, of size 2.5 eps / steps.
      images: the first so many test images; default all.

    Raises:
      ValueError: for an unknown norm, or radii that are none or do not rise.
    """

    __pydantic_config__ = FORBID_EXTRA

    radii: dict[Norm, tuple[Number, ...]]
    steps: int = 20
    images: int | None = None

    def __post_init__(self) -> None:
        if not self.radii:
            raise ValueError("eps_curves.radii must name a norm and its radii, got none")
        for norm, radii in self.radii.items():
            if not radii:
                raise ValueError(f"eps_curves.radii: {norm} has no radii")
            for eps in radii:
                _check_radius("eps_curves.radii", norm, eps)
            if any(a >= b for a, b in itertools.pairwise(radii)):
                raise ValueError(f"eps_curves.radii: those of {norm} must rise, got {list(radii)}")
        _check_counts("eps_curves", steps=self.steps, images=self.images)


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Certified l_2 radii of every member smoothed by Gaussian noise, by sampling.

    They are of the smoothed classifier, the most frequent class under noise, which needs no change
    of the member; a member that was not trained with noise may lose clean accuracy by it.

    Attributes:
      sigma: standard deviation of the noise, in image units.
      samples: draws per image that bound the probabilities.
      selection: draws per image, others, that choose the class.
      confidence: probability, for each image, with which its radius holds.
      images: the first so many test images; default all.
      radii: l_2 radii in image units at which the table gives the certified accuracy.

    Raises:
      ValueError: for a number outside of its range.

    References:
      Cohen et al., 2019 (arXiv:1902.02918).
    """

    __pydantic_config__ = FORBID_EXTRA

    sigma: Number = 0.25
    samples: int = 1000
    selection: int = 100
    confidence: Number = 0.999
    images: int | None = None
    radii: tuple[Number, ...] = ()

    def __post_init__(self) -> None:
        as_number(self.sigma, name="certificates.sigma", low=0, positive=True)
        for radius in self.radii:
            _check_radius("certificates.radii", "l2", radius)
        if not 0 < self.confidence < 1:
            raise InputError(f"certificates.confidence must be in (0, 1), got {self.confidence!r}")
        counts = {"samples": self.samples, "selection": self.selection, "images": self.images}
        _check_counts("certificates", **counts)


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """Several experiments on one data set, network and budget, drawn in one figure.

    A member may be made of others: where an argument of its network is the text "member:NAME",
    the run of that member with the same seed stands in its place (a mixture of two of them).

    Attributes:
      name: names the folder and the figure.
      members: the experiments; their names label the points and must differ.
      seeds: training seeds of every member; empty for the member's own.
      runs: finished runs that are taken as they are, by name: a folder, or one for each seed.
        Their data and threat must be those of the others, and they come first in every table.
      autoattack: radius in image units by norm ("linf", "l2", "l1"): every run is also evaluated
        with the standard AutoAttack, in every norm named.
      autoattack_images: the first so many test images; default all.
      eps_curves: accuracy against eps, or `None`.
      per_class: also the accuracies of each class, clean and under the first AutoAttack, or under
        the evaluation's PGD where there is none.
      certificates: certified radii, or `None`.
      evaluators: further evaluations of every run, of `jaxrobust.evaluators`.
      planes: pairs of columns of the table, each drawn against the other; default: clean accuracy
        against every AutoAttack, or against the worst PGD where there is none, and the accuracy
        under rotations and shifts against the first of these.

    Raises:
      ValueError: for names that are not different, members that are not there or come later than
        those made of them, or a number outside of its range.
    """

    __pydantic_config__ = FORBID_EXTRA

    name: str
    members: tuple[Experiment, ...] = ()
    seeds: tuple[int, ...] = ()
    runs: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    autoattack: dict[Norm, Number] = field(default_factory=dict)
    autoattack_images: int | None = None
    eps_curves: EpsCurves | None = None
    per_class: bool = False
    certificates: Certificates | None = None
    evaluators: tuple[Spec, ...] = ()
    planes: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        as_folder_name(self.name, name="name")
        for run in self.runs:
            as_folder_name(run, name="runs")
        for seed in self.seeds:
            as_seed(seed, name="seeds")
        names = [*self.runs, *(member.name for member in self.members)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            raise ValueError(
                f"members of {self.name} must have different names, at least one; got {names}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds of {self.name} must be different, got {list(self.seeds)}")
        for norm, eps in self.autoattack.items():
            _check_radius("autoattack", norm, eps)
        _check_counts("tradeoff", autoattack_images=self.autoattack_images)
        for name, folders in self.runs.items():
            if not folders:
                raise ValueError(f"runs: {name} names no folder")
        self._check_bases()
        specs = tuple(
            checked(spec, PARTS["evaluators"], f"evaluators[{i}]")
            for i, spec in enumerate(self.evaluators)
        )
        object.__setattr__(self, "evaluators", specs)
        traced(self.build_evaluators, "evaluators")

    def build_evaluators(self) -> tuple[Any, ...]:
        """The objects that `evaluators` stand for."""
        return tuple(
            built(spec, PARTS["evaluators"], f"evaluators[{number}]")
            for number, spec in enumerate(self.evaluators)
        )

    def _check_bases(self) -> None:
        """A member comes after those that it is made of."""
        earlier = list(self.runs)
        for member in self.members:
            for base in bases(member):
                if base not in earlier:
                    raise ValueError(
                        f"{member.name} is made of the member {base!r}, which does not come "
                        f"before it; before it come {', '.join(earlier) or 'none'}"
                    )
            earlier.append(member.name)


def bases(experiment: Experiment) -> list[str]:
    """The members of its trade-off that an experiment's network is made of."""
    values = experiment.model.kwargs.values()
    return [v.removeprefix(MEMBER) for v in values if isinstance(v, str) and v.startswith(MEMBER)]


def _check_radius(where: str, norm: str, eps: Any) -> None:
    as_choice(norm, name=f"{where}: norm", choices=NORMS)
    as_number(eps, name=f"{where}: {norm}", low=0, positive=True)
    if norm == "linf" and eps > 1:
        raise InputError(f"{where}: {norm} must be in image units (8/255, not 8), got {eps!r}")


def _check_counts(where: str, **counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None:
            as_count(value, name=f"{where}.{name}")
