"""Trade-offs are data too: experiments side by side, and what they are evaluated by."""

from dataclasses import dataclass, field
from typing import Any

from jaxrobust.experiment._experiment import FORBID_EXTRA, Experiment, as_folder_name
from jaxrobust.experiment._parts import PARTS
from jaxrobust.experiment._sweep import SweepPoint, sweep_points
from jaxrobust.experiment._traced import traced
from jaxrobust.inputs import as_number, as_seed
from jaxrobust.spec import Number, Spec, built, checked

MEMBER = "member:"


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """Several experiments on one data set, network and budget, drawn in one figure.

    A member may be made of others: where an argument of its network is the text "member:NAME",
    the run of that member with the same seed stands in its place (a mixture of two of them).

    Attributes:
      name: names the folder and the figure.
      members: the experiments; their names label the points and must differ. One with a `sweep`
        is a line of points, which have names of their own ("TRADES beta 6").
      seeds: training seeds of every member; empty for the member's own.
      runs: finished runs that are taken as they are, by name: a folder, or one for each seed.
        Their data and threat must be those of the others, and they come first in every table.
      evaluators: further evaluations of every run, of `jaxrobust.evaluators`.
      front_evaluators: further evaluations of those points of a sweep that are on its own front, by
        clean accuracy and the worst of PGD, and of members without a sweep: for attacks that cost
        more than PGD.
      planes: pairs of columns of the table, each drawn against the other; default: clean accuracy
        against every AutoAttack, or against the worst PGD where there is none, and the accuracy
        under rotations and shifts against the first of these.
      reference: corner of the area that a method dominates, a clean and a robust accuracy.
      clean_at: clean accuracies at which the table gives robust ones of methods with a sweep;
        default: round ones between the methods' points.
      compared: pairs of members with a sweep to compare by a paired bootstrap; default: the one
        that dominates the largest area with each other one.

    Raises:
      ValueError: for names that are not different, members that are not there or come later than
        those made of them, or a number outside of its range.
    """

    __pydantic_config__ = FORBID_EXTRA

    name: str
    members: tuple[Experiment, ...] = ()
    seeds: tuple[int, ...] = ()
    runs: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    evaluators: tuple[Spec, ...] = ()
    front_evaluators: tuple[Spec, ...] = ()
    planes: tuple[tuple[str, str], ...] = ()
    reference: tuple[Number, Number] = (0.0, 0.0)
    clean_at: tuple[Number, ...] = ()
    compared: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        as_folder_name(self.name, name="name")
        for run in self.runs:
            as_folder_name(run, name="runs")
        for seed in self.seeds:
            as_seed(seed, name="seeds")
        names = [*self.runs, *(point.experiment.name for point in self.points())]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            raise ValueError(
                f"members of {self.name} must have different names, at least one; got {names}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds of {self.name} must be different, got {list(self.seeds)}")
        for name, folders in self.runs.items():
            if not folders:
                raise ValueError(f"runs: {name} names no folder")
        self._check_bases()
        for value in self.reference:
            as_number(value, name="reference", low=0, high=1)
        for value in self.clean_at:
            as_number(value, name="clean_at", low=0, high=1)
        swept = [member.name for member in self.members if member.sweep]
        for name in (name for pair in self.compared for name in pair):
            if name not in swept:
                raise ValueError(
                    f"compared: {name!r} must be a member with a sweep, one of {swept or 'none'}"
                )
        for name in ("evaluators", "front_evaluators"):
            specs = tuple(
                checked(spec, PARTS["evaluators"], f"{name}[{number}]")
                for number, spec in enumerate(getattr(self, name))
            )
            object.__setattr__(self, name, specs)
        traced(self.build_evaluators, "evaluators")
        traced(self.build_front_evaluators, "front_evaluators")

    def points(self) -> tuple[SweepPoint, ...]:
        """The members, each sweep as its points."""
        return tuple(point for member in self.members for point in sweep_points(member))

    def build_evaluators(self) -> tuple[Any, ...]:
        """The objects that `evaluators` stand for."""
        return tuple(
            built(spec, PARTS["evaluators"], f"evaluators[{number}]")
            for number, spec in enumerate(self.evaluators)
        )

    def build_front_evaluators(self) -> tuple[Any, ...]:
        """The objects that `front_evaluators` stand for."""
        return tuple(
            built(spec, PARTS["evaluators"], f"front_evaluators[{number}]")
            for number, spec in enumerate(self.front_evaluators)
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
            earlier += [point.experiment.name for point in sweep_points(member)]


def bases(experiment: Experiment) -> list[str]:
    """The members of its trade-off that an experiment's network is made of."""
    values = experiment.model.kwargs.values()
    return [v.removeprefix(MEMBER) for v in values if isinstance(v, str) and v.startswith(MEMBER)]
