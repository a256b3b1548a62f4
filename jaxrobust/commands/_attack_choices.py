"""The values of `jaxrobust evaluate --attack`: the exported evaluators and minimum-norm attacks."""

import dataclasses
import inspect
import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from jaxrobust import evaluation, evaluators, threats
from jaxrobust.evaluation import Evaluator
from jaxrobust.experiment import Experiment
from jaxrobust.spec import number

Kind = Literal["flag", "integer", "number", "text", "words", "numbers", "integers"]
SHORT = {"images": "n"}  # fields whose options have another name
BALL = ("eps", "radii")  # fields that default to the radius of the run's own threat


class Asked(NamedTuple):
    """One option.

    Attributes:
      kind: the type of its value.
      help: its text in the docstring.
      required: whether the evaluator has no default for it.
    """

    kind: Kind
    help: str
    required: bool


class AttackChoice(NamedTuple):
    """One value of `--attack`.

    Attributes:
      name: its name on the command line.
      options: by parameter name.
      evaluator: the class of the evaluator.
      settings: names of options that go into the evaluator's `settings`.
      attacks: names of the minimum-norm attacks that it runs, or `None`.
    """

    name: str
    options: dict[str, Asked]
    evaluator: type
    settings: frozenset[str]
    attacks: tuple[str, ...] | None

    def make(self, experiment: Experiment, values: Mapping[str, Any]) -> Evaluator:
        """The evaluator.

        Args:
          experiment: the run's experiment, for the defaults of norm and radius.
          values: the values of the given options, by parameter name.

        Returns:
          The evaluator with these settings.

        Raises:
          ValueError: if one is missing or out of range.
        """
        if not self.options.keys() >= values.keys():
            raise ValueError(f"{self.name} has no options {set(values) - set(self.options)}")
        long = {short: name for name, short in SHORT.items()}
        given = {long.get(name, name): value for name, value in values.items()}
        given |= self._of_the_run(experiment, given)
        missing = [n for n, o in self.options.items() if o.required and long.get(n, n) not in given]
        if missing:
            raise ValueError(f"{', '.join(map(option_name, missing))} must be given")
        settings = {name: given.pop(name) for name in self.settings & given.keys()}
        if self.attacks is not None:
            given["attacks"] = self.attacks
        if self.settings:
            given["settings"] = settings
        if self.evaluator is evaluators.audit:
            own = {field.name for field in dataclasses.fields(evaluators.audit)}
            first = {name: given.pop(name) for name in set(given) - own}
            given["attack"] = evaluators.autoattack(**first)
        return self.evaluator(**given)

    def _of_the_run(self, experiment: Experiment, given: Mapping[str, Any]) -> dict[str, Any]:
        """Norm and radius of the run's own threat, if they are needed and fit."""
        if "norm" not in self.options:
            return {}
        threat = experiment.build("threat")
        own = threats.norm_of(threat)
        found: dict[str, Any] = {}
        if "norm" not in given:
            takes = self._norms()
            norm = own if own in takes else takes[0] if len(takes) == 1 else None
            if norm is None:
                raise ValueError(
                    f"--norm must be given: {self.name} takes {', '.join(takes)}, and the run's "
                    f"threat is {experiment.threat.target}"
                )
            found["norm"] = norm
        norm = given.get("norm", found.get("norm"))
        (ball,) = [name for name in BALL if name in self.options]
        if ball in given:
            return found
        if norm == own:
            # As it was given: in float32, 8/255 is another number.
            eps = number(experiment.threat.kwargs.get("eps", float(threat.eps)))
            found[ball] = (eps,) if ball == "radii" else eps
        elif self.options[ball].required:
            raise ValueError(
                f"{option_name(ball)} must be given: the run's threat is "
                f"{experiment.threat.target}, not {norm}"
            )
        return found

    def _norms(self) -> tuple[str, ...]:
        """The norms that it takes."""
        if self.attacks is not None:
            return evaluation.norms_of_attack(self.attacks[0])
        kind = evaluators.autoattack if self.evaluator is evaluators.audit else self.evaluator
        return next(get_args(f.type) for f in dataclasses.fields(kind) if f.name == "norm")


def option_name(name: str) -> str:
    """An option as written on the command line: `--bound-batch-size`."""
    return "--" + name.replace("_", "-")


def attack_choices() -> dict[str, AttackChoice]:
    """The attacks by their names on the command line, except `pgd` and `autoattack`.

    Returns:
      One choice for each exported evaluator and each exported bound minimum-norm attack.
    """
    found = {}
    for name in evaluators.__all__:
        kind = getattr(evaluators, name)
        if not isinstance(kind, type) or name in ("pgd", "autoattack"):
            continue
        options = _options(kind)
        settings: frozenset[str] = frozenset()
        if kind is evaluators.audit:
            options = _options(evaluators.autoattack) | options
            options.pop("individual")  # the audit needs the ensemble's points alone
        if kind is evaluators.distances:
            every = [_settings(attack) for attack in evaluation.MINIMUM_NORM.values()]
            common = {name: option for options in every for name, option in options.items()}
            options, settings = common | options, frozenset(common)
        name = name.replace("_", "-")
        found[name] = AttackChoice(name, options, kind, settings, None)
    shared = _options(evaluators.distances)
    shared.pop("attacks")
    for name, attack in evaluation.MINIMUM_NORM.items():
        own = _settings(attack)
        found[name] = AttackChoice(
            name, shared | own, evaluators.distances, frozenset(own), (name,)
        )  # fmt: skip
    return found


def _settings(attack: type) -> dict[str, Asked]:
    """The options of a bound attack; defaults are its own."""
    return {name: option._replace(required=False) for name, option in _options(attack).items()}


def _options(kind: type) -> dict[str, Asked]:
    """The fields of a dataclass that an option can set."""
    texts, found = argument_texts(kind), {}
    for field in dataclasses.fields(kind):
        takes = kind_of(field.type)
        if takes is not None:
            required = field.default is field.default_factory is dataclasses.MISSING
            name = SHORT.get(field.name, field.name)
            found[name] = Asked(takes, texts.get(field.name, ""), required)
    return found


def kind_of(annotation: Any) -> Kind | None:
    """The type of an option for a field of this type; `None` if there can be no option."""
    if get_origin(annotation) is Annotated:
        return kind_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return "text"
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = {kind_of(part) for part in get_args(annotation) if part is not type(None)}
        return "number" if "number" in kinds else kinds.pop() if len(kinds) == 1 else None
    if get_origin(annotation) is tuple:
        several: dict[Any, Kind] = {"text": "words", "number": "numbers", "integer": "integers"}
        return several.get(kind_of(get_args(annotation)[0]))
    plain: dict[Any, Kind] = {bool: "flag", int: "integer", float: "number", str: "text"}
    return plain.get(annotation)


def argument_texts(kind: type) -> dict[str, str]:
    """The section `Args` of a docstring by argument, in one line each."""
    section = re.search(r"\nArgs:\n(.*?)\n\n", f"{inspect.getdoc(kind)}\n\n", re.S)
    found: dict[str, str] = {}
    for line in section.group(1).splitlines() if section else ():
        match = re.match(r"  (\w+): (.*)", line)
        if match:
            name, text = match.groups()
            found[name] = text
        else:
            found[name] += " " + line.strip()
    return found
