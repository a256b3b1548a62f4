"""One sitting on an accelerator: throughput, a short robust run, AutoAttack, compile times.

The parts run in the order of their worth, each writes its rows to FOLDER/accelerator.jsonl as they
are found, and none begins after --minutes. So whatever the sitting's length, what was measured is
there. It needs no network: without --data, images are synthetic patterns and rows say so.

1. throughput: TRADES-10 and N-FGSM steps of PreActResNet-18 (width 64) and WRN-28-10 in bfloat16,
   images/s, FLOP/s and the share of matrix products measured in the same run; where PyTorch is
   installed, the float32 step of TRADES in eager and compiled form beside ours, with equal losses.
2. training: N-FGSM with a cosine and an average of the weights for --epochs, its seconds, and the
   standard AutoAttack on --images test images. Goals on one H200: 43.2 % after 30 s of training on
   CIFAR-10's own images, 50 % after 3 minutes; on a re-encoded copy --label must say so.
3. autoattack: seconds of the standard AutoAttack and of the fast verdict on that network.
4. compile: seconds to trace and compile the same train steps at other batch sizes, cold.

Command:  python -m benchmarks.accelerator --out FOLDER [--data FILE.npz --label TEXT]
          python -m benchmarks.accelerator --out FOLDER --tiny   (a rehearsal on any CPU)
"""

import argparse
import pathlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from benchmarks.pytorch_passes import has_torch
from jaxrobust.bench import machine, throughput
from jaxrobust.evaluation import append_row, autoattack, verdict
from jaxrobust.experiment import Experiment, Validation, replace, use
from jaxrobust.reasons import first_line
from jaxrobust.training import Run, load_run, train

EPS = 8 / 255
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
Rows = Iterator[dict[str, Any]]


class Sitting(NamedTuple):
    """What all parts need.

    Attributes:
      folder: of the rows and the trained network.
      data: a data set of 32 x 32 images.
      label: what rows call the data.
      tiny: the smallest sizes that run every line.
      epochs: of the training run.
      images: test images of AutoAttack.
      ends: `time.monotonic` after which no part begins.
    """

    folder: pathlib.Path
    data: Any
    label: str
    tiny: bool
    epochs: int
    images: int
    ends: float


def experiments(sitting: Sitting) -> list[Experiment]:
    """The train steps that are timed."""
    tiny = sitting.tiny
    dtype = None if tiny else "bfloat16"
    normalised = {"mean": MEAN, "std": STD, "dtype": dtype}
    preact = use("preact_resnet18", width=2 if tiny else 64, **normalised)
    wide = use("wide_resnet", depth=10 if tiny else 28, width=1 if tiny else 10, **normalised)
    steps = 1 if tiny else 10
    base = Experiment(
        name="TRADES-10 PreActResNet-18",
        data=sitting.data,
        model=preact,
        objective=use("trades", beta=6.0, steps=steps, step_size=2 / 255),
        threat=use("linf", eps=EPS),
        weight_decay=5e-4,
        batch_size=16 if tiny else 512,  # half of it goes on to eight devices
        augment=(use("pad_crop", pad=4), use("flip")),
    )
    n_fgsm = use("n_fgsm", noise=2.0)
    small = [base, replace(base, name="N-FGSM PreActResNet-18", objective=n_fgsm)]
    large = [
        replace(base, name="TRADES-10 WRN-28-10", model=wide),
        replace(base, name="N-FGSM WRN-28-10", model=wide, objective=n_fgsm),
    ]
    return [*small, *large]


def throughput_part(sitting: Sitting) -> Rows:
    """Train steps of both libraries."""
    steps, repeats = (1, 1) if sitting.tiny else (10, 3)
    for experiment in experiments(sitting):
        yield throughput(experiment, steps=steps, repeats=repeats)._asdict()
    if not has_torch():
        yield {"form": "PyTorch", "problem": "PyTorch is not installed"}
        return
    from benchmarks.pytorch_step import torch_step_table

    sizes = {"width": 2, "batch_size": 2, "steps": 1, "repeats": 1}
    for row in torch_step_table(**(sizes if sitting.tiny else {"width": 64, "batch_size": 512})):
        yield row._asdict()


def training_run(sitting: Sitting) -> Experiment:
    """The short robust training run."""
    n_fgsm = experiments(sitting)[1]
    return replace(
        n_fgsm,
        name="short_run",
        objective=use("n_fgsm", noise=2.0, label_smoothing=0.4),
        learning_rate=use("one_cycle", peak=0.2, warmup=0.3),
        optimizer=use("sgd", momentum=0.9, nesterov=True),
        epochs=sitting.epochs,
        ema_decay=0.99,
        ema_copied_steps=1,
        validation=Validation(size=0),
    )


def training_part(sitting: Sitting) -> Rows:
    """The run, its seconds and its AutoAttack accuracy."""
    folder = sitting.folder / "short_run"
    started = time.perf_counter()
    trained = train(training_run(sitting), folder, resume=folder.exists(), quiet=True)
    seconds = time.perf_counter() - started
    steps = int(trained.state.step)
    yield {"epochs": sitting.epochs, "steps": steps, "seconds": seconds, "loop": trained.seconds}
    ((name, attack), _) = _evaluations(sitting)
    report, took = _attacked(sitting, attack)
    clean, robust = report.clean_accuracy, report.robust_accuracy
    found = {"clean": clean.value, "robust": robust.value, "low": robust.low, "high": robust.high}
    yield {"attack": name, "images": sitting.images, "seconds": took, **found}


def autoattack_part(sitting: Sitting) -> Rows:
    """Seconds of both evaluations, compiled already."""
    for name, call in _evaluations(sitting):
        _, first = _attacked(sitting, call)
        report, again = _attacked(sitting, call)
        robust = report.robust_accuracy.value
        yield {"attack": name, "first_seconds": first, "seconds": again, "robust": robust}


def _evaluations(sitting: Sitting) -> list[tuple[str, Callable[..., Any]]]:
    """AutoAttack and the verdict; in a rehearsal one attack of AutoAttack, named so."""
    if sitting.tiny:
        one = partial(autoattack, version="custom", attacks=("apgd-ce",))
        return [("apgd-ce alone", one), ("apgd-ce alone", one)]
    return [("AutoAttack standard", autoattack), ("fast verdict", verdict)]


def _attacked(sitting: Sitting, call: Callable[..., Any]) -> tuple[Any, float]:
    run: Run = load_run(sitting.folder / "short_run")
    images, labels = (part[: sitting.images] for part in run.dataset.floats("test"))
    started = time.perf_counter()
    report = call(run.logits_fn, images, labels, norm="linf", eps=EPS, batch_size=sitting.images)
    return report, time.perf_counter() - started


def compile_part(sitting: Sitting) -> Rows:
    """Cold compilations: another batch size is another program."""
    for experiment in experiments(sitting)[: 1 if sitting.tiny else None]:
        other = replace(experiment, batch_size=experiment.batch_size // 2)
        row = throughput(other, steps=1, repeats=1)
        yield {
            "experiment": row.experiment,
            "batch_size": row.batch_size,
            "compile_seconds": row.compile_seconds,
            "step_seconds": row.step_seconds,
        }


PARTS: dict[str, Callable[[Sitting], Rows]] = {
    "throughput": throughput_part,
    "training": training_part,
    "autoattack": autoattack_part,
    "compile": compile_part,
}


def sit(sitting: Sitting, *, say: Callable[[str], None] = print) -> pathlib.Path:
    """Runs all parts and writes each row as it is found; what fails in one does not end the others.

    Args:
      sitting: what all parts need.
      say: told every row.

    Returns:
      The file of the rows: `part`, what was measured, `data` and `machine`.
    """
    sitting.folder.mkdir(parents=True, exist_ok=True)
    path, host = sitting.folder / "accelerator.jsonl", machine()

    def write(part: str, row: dict[str, Any]) -> None:
        append_row(path, {"part": part, **row, "data": sitting.label, "machine": host})
        say(f"{part}: " + ", ".join(f"{name} {value}" for name, value in row.items()))

    for name, part in PARTS.items():
        if time.monotonic() > sitting.ends:
            write(name, {"problem": "no time was left"})
            continue
        try:
            for row in part(sitting):
                write(name, row)
        except Exception as error:  # the other parts are worth their time all the same
            write(name, {"problem": f"{type(error).__name__}: {first_line(error)}"})
    return path


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and runs the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the rows")
    parser.add_argument("--tiny", action="store_true", help="rehearse every line on a CPU")
    parser.add_argument("--data", help="npz with 32 x 32 colour images and labels, as data.npz")
    parser.add_argument("--label", help="what rows call the data, such as 'CIFAR-10 from JPEG'")
    parser.add_argument("--epochs", type=int, default=10, help="of the training run")
    parser.add_argument("--images", type=int, default=1000, help="test images of AutoAttack")
    parser.add_argument("--minutes", type=float, default=9.0, help="no part begins after them")
    given = parser.parse_args(arguments)
    if (given.data is None) != (given.label is None):
        parser.error("--data and --label belong together: rows must say what the images are")
    sizes = {"train": 64, "test": 8} if given.tiny else {"train": 50_000, "test": 2_000}
    data = use("synthetic", size=32, channels=3, **sizes)
    sitting = Sitting(
        folder=given.out,
        data=data if given.data is None else use("npz", given.data),
        label=given.label or "synthetic patterns",
        tiny=given.tiny,
        epochs=1 if given.tiny else given.epochs,
        images=4 if given.tiny else given.images,
        ends=time.monotonic() + 60 * given.minutes,
    )
    print(f"rows: {sit(sitting)}")


if __name__ == "__main__":
    main()
