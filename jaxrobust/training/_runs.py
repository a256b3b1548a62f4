"""Networks with weights: a finished (or interrupted) run read back, or published weights."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxrobust.data import Dataset
from jaxrobust.devices import device_mesh, replicated
from jaxrobust.experiment import PARTS, Experiment
from jaxrobust.inputs import as_choice
from jaxrobust.models import load_torch_checkpoint, logits_fn, mixed_classifier, mixture, published
from jaxrobust.networks import LogitsFunction, Network, accompanied, network
from jaxrobust.spec import built, checked, trusted, use
from jaxrobust.storage import Folder, run_folder
from jaxrobust.training._checkpoints import Checkpoints
from jaxrobust.training._folder import WEIGHTS, check_constants, read_config, warn_of_sources
from jaxrobust.training._state import create_state
from jaxrobust.training._updates import build_optimizer
from jaxrobust.training._weights import read_weights


class Run(NamedTuple):
    """A trained network with what it was trained on.

    Attributes:
      experiment: the configuration.
      dataset: the data, with its test set.
      logits_fn: images -> logits, in evaluation mode, of the evaluated parameters.
      step: of the checkpoint.
    """

    experiment: Experiment
    dataset: Dataset
    logits_fn: Any
    step: int


def load_run(
    workdir: Folder,
    *,
    checkpoint: str = "best",
    trust: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Run:
    """Reads a run's network from its folder.

    Args:
      workdir: the run's folder, or `gs://bucket/folder`; or a folder that `export_network` wrote.
      checkpoint: "best" by validation on held-out training data (the last, if nothing was held
        out), or "last".
      trust: top-level packages whose code the folder's configuration may name, besides those of
        the environment variable `JAXROBUST_TRUST`. Reading a run otherwise imports nothing.
      say: told about checkpoints and a configuration that cannot be read, and about code from
        outside that has changed since the training.

    Returns:
      `Run`.

    Raises:
      UntrustedError: if its configuration names code that is not trusted (a ValueError).
      ValueError: if the folder holds no run, `checkpoint` is neither "best" nor "last", the bases
        of a mixed classifier have changed since, or an exported network is damaged or of the other
        checkpoint.
      CheckpointError: if no checkpoint can be read.
    """
    as_choice(checkpoint, name="checkpoint", choices=("best", "last"))
    workdir, trust = run_folder(workdir), tuple(trusted(trust))
    experiment = read_config(workdir, trust=trust, say=say)
    warn_of_sources(workdir, experiment, say, then="the results are those of the code as it is now")
    dataset = experiment.build("data")
    model = build_model(experiment, dataset.num_classes, trust=trust)
    check_constants(workdir, model)
    optimizer, _ = build_optimizer(experiment, 1)
    # Only shapes and placement are read of it: nothing is compiled for a run that is read back.
    shapes = jax.eval_shape(lambda: create_state(experiment, model, optimizer, dataset.image_shape))
    if (workdir / WEIGHTS).exists():
        step, exported = _exported(workdir / WEIGHTS, shapes.logits_fn(model), checkpoint)
        return Run(experiment, dataset, exported, step)
    target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    checkpoints = Checkpoints(workdir / "checkpoints", warn=say)
    try:
        restore = checkpoints.restore_best if checkpoint == "best" else checkpoints.restore_last
        step, state = restore(replicated(target, device_mesh(None)))
    finally:
        checkpoints.close()
    state = jax.tree.map(lambda leaf: leaf.addressable_data(0), state)  # each process its own
    return Run(experiment, dataset, state.logits_fn(model), step)


def _exported(
    path: epath.Path, target: LogitsFunction, checkpoint: str
) -> tuple[int, LogitsFunction]:
    """The network in a file of weights, which is of one checkpoint, and its step."""
    found, about = read_weights(path, target)
    if about["checkpoint"] != checkpoint:
        raise ValueError(f"{path} is of the {about['checkpoint']} checkpoint, not the {checkpoint}")
    return int(about["step"]), found


def build_model(
    experiment: Experiment,
    num_classes: int,
    *,
    trust: Sequence[str] = (),
    helper: bool | LogitsFunction = False,
) -> Network:
    """The experiment's network for the data's number of classes; bases that it names are read.

    Args:
      experiment: whose network.
      num_classes: of the data.
      trust: packages that the configurations of bases may name, besides the experiment's own.
      helper: read the experiment's helper too, which training needs and evaluation does not; or
        take this network in its place.

    Returns:
      The network, with the experiment's teacher and helper beside it.
    """
    options: Any = {"num_classes": num_classes, "trust": (*trust, *experiment.packages())}
    make, args, kwargs = experiment.call("model", num_classes=num_classes)
    if make in (mixed_classifier, mixture):
        kwargs |= {name: load_base(kwargs[name], **options) for name in ("std", "rob")}
    main = network(partial(make, *args) if args else make, **kwargs)
    teacher = frozen = None
    if experiment.teacher is not None:
        make, args, kwargs = experiment.call("teacher", num_classes=num_classes)
        teacher = network(partial(make, *args) if args else make, **kwargs)
    if experiment.helper is not None and helper:
        frozen = load_base(experiment.helper, **options) if helper is True else helper
    return accompanied(main, teacher=teacher, helper=frozen)


def load_base(
    source: str | pathlib.Path | Mapping[str, Any], *, num_classes: int, trust: Sequence[str] = ()
) -> Any:
    """A trained network by its name, as experiment files and commands give the bases of a mix.

    Args:
      source: a run's folder, whose best checkpoint is taken; or a mapping with "weights", a file
        in PyTorch's format, "network", a network of `jaxrobust.models` or an entry of
        `models.PUBLISHED`, and further arguments of the network ("dataset" and "threat" choose
        among entries of one name, "entry" among the weights in the file).
      num_classes: that it must have.
      trust: as in `load_run`.

    Returns:
      The network with its weights, as `models.logits_fn` makes it.

    Raises:
      ValueError: if there is no such run, network or file, or they do not fit.
    """
    if not isinstance(source, Mapping):
        run = load_run(source, trust=trust)
        if run.dataset.num_classes != num_classes:
            raise ValueError(
                f"{source} has {run.dataset.num_classes} classes, the data have {num_classes}"
            )
        return run.logits_fn
    options = dict(source)
    try:
        path, network = options.pop("weights"), options.pop("network")
    except KeyError as error:
        raise ValueError(f"a base needs {error}, or a run's folder; got {dict(source)}") from None
    entry = options.pop("entry", None)
    model = _network(network, options, num_classes)
    return logits_fn(model, load_torch_checkpoint(path, model, entry=entry))


def first_weights(
    source: str | Mapping[str, Any],
    model: Network,
    *,
    num_classes: int,
    trust: Sequence[str] = (),
) -> LogitsFunction:
    """The weights that a run starts from.

    Args:
      source: a run's folder, whose best checkpoint is taken; a file in PyTorch's format with
        weights of `model`; or a mapping with "weights" and "network", as `load_base` takes it.
      model: the network of the run that starts.
      num_classes: that it has.
      trust: as in `load_run`.

    Returns:
      The network with these weights.

    Raises:
      ValueError: if there is no such run, network or file, or they do not fit.
    """
    try:
        if isinstance(source, str):
            path = run_folder(source)
            if path.is_file():
                module = getattr(model, "module", None)
                if module is None:
                    raise ValueError("a file of weights needs a network of jaxrobust.models")
                return logits_fn(module, load_torch_checkpoint(path, module))
            if not path.is_dir():
                raise ValueError("it is neither a run's folder nor a file of weights")
        return load_base(source, num_classes=num_classes, trust=trust)
    except ValueError as error:
        raise ValueError(f"init_from {source}: {error}") from error


def _network(name: str, options: dict[str, Any], num_classes: int) -> Any:
    """A network of `models`, or the one behind a published entry."""
    part = PARTS["model"]
    if name in part.names:
        spec = checked(use(name, **options), part, name)
        return built(spec, part, name, num_classes=num_classes)
    dataset = options.pop("dataset", "cifar100" if num_classes == 100 else "cifar10")
    try:
        found = published(name, dataset=dataset, threat=options.pop("threat", "linf"))
    except ValueError as error:
        networks = ", ".join(part.names)
        raise ValueError(f"network {name!r} is none of {networks}, and {error}") from None
    return found.model(**options)
