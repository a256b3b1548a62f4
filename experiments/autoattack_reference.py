"""AutoAttack against the verdicts of the reference implementation, at three seeds.

Runs the standard version, every attack also by itself, on small robust models whose verdicts by
the reference (fra31/auto-attack, commit a392200) are stored, and checks every count against the
band that the reference's own spread over seeds suggests.

The digits models come with the tests. The MNIST and CIFAR-10 models are published by others and
are not part of this repository; `--golden` names a folder that has them.

Command:  python experiments/autoattack_reference.py [--golden FOLDER] [--seeds 0 1 2]
Cost:     about half an hour on two CPU cores with all models.
Result:   experiments/results/autoattack_reference.json; what is in it is not run again.
"""

import argparse
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust import evaluation
from jaxrobust.evaluation import provenance, write_json

ROOT = pathlib.Path(__file__).parents[1]
ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")

# (model, norm, eps, points) -> allowed counts: ensemble, then each attack by itself, then how
# many points of the ensemble's mask may differ.
DIGITS = {
    ("digits_robust", "linf", 0.1): ((285, 287), (285, 291), (285, 287), (287, 289), (291, 303), 2),
    ("digits_standard", "linf", 0.1): (
        (183, 185),
        (181, 187),
        (183, 185),
        (185, 187),
        (215, 227),
        2,
    ),
    ("digits_robust", "l2", 0.5): ((255, 257), (257, 263), (255, 257), (259, 261), (281, 293), 2),
    ("digits_robust", "l1", 2.0): ((60, 64), (64, 70), (61, 65), (65, 67), (178, 198), 2),
}
REAL = {
    ("mnist_cnn_a_adv", "linf", 0.3): (
        (147, 151),
        (151, 158),
        (150, 155),
        (153, 155),
        (149, 155),
        4,
    ),
    ("cifar10_cnn_a_adv", "linf", 2 / 255): (
        (94, 96),
        (102, 104),
        (94, 96),
        (95, 97),
        (110, 114),
        2,
    ),
    ("cifar10_cnn_a_adv", "l2", 0.25): ((50, 52), (54, 56), (50, 52), (50, 52), (57, 61), 2),
    ("mnist_cnn_a_adv", "l2", 1.5): ((44, 51), (68, 76), (63, 71), (52, 54), (59, 71), 6),
}


def digits_net(params, x):
    """conv 3x3 SAME, relu, conv 3x3 SAME stride 2, relu, dense."""
    for layer, stride in (("conv1", 1), ("conv2", 2)):
        x = convolution(x, params, layer, stride, "SAME")
    return x.reshape(len(x), -1) @ params["dense_kernel"] + params["dense_bias"]


def cnn_a(params, x):
    """Normalise, two 4x4 convolutions with stride 2, two dense layers."""
    x = (x - params["mean"]) / params["std"]
    for layer in ("conv1", "conv2"):
        x = convolution(x, params, layer, 2, ((1, 1), (1, 1)))
    x = jax.nn.relu(x.reshape(len(x), -1) @ params["dense1_kernel"] + params["dense1_bias"])
    return x @ params["dense2_kernel"] + params["dense2_bias"]


def convolution(x, params, layer, stride, padding):
    """A convolution in NHWC with bias and relu."""
    axes = ("NHWC", "HWIO", "NHWC")
    kernel = params[f"{layer}_kernel"]
    x = jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=axes)
    return jax.nn.relu(x + params[f"{layer}_bias"])


def load(golden: pathlib.Path, model: str, norm: str):
    """The model as a callable pytree, images, labels and the reference's masks."""
    if model.startswith("digits"):
        data = dict(np.load(ROOT / "tests" / "golden" / f"{model}.npz"))
        images, labels, net = data["x"], data["y"], digits_net
        masks = dict(np.load(ROOT / "tests" / "golden" / "autoattack_digits.npz"))
    else:
        data = dict(np.load(golden / f"real_{model}.npz"))
        pictures = data.get("images")
        if pictures is None:
            pictures = np.load(golden / "real_cifar10_images.npz")["images"]
        count = 100 if norm == "l2" else 200
        images = pictures[:count].astype(np.float32) / np.float32(255)
        labels, net = data["labels"][:count], cnn_a
        masks = dict(np.load(golden / "autoattack_real.npz"))
    names = ("kernel", "bias", "mean", "std")
    params = {k: jnp.asarray(v) for k, v in data.items() if k.endswith(names)}
    fn = jax.tree_util.Partial(net, params)
    gap = float(np.abs(np.asarray(fn(images)) - data["logits"][: len(images)]).max())
    assert gap < 1e-4, f"{model}: logits differ by {gap}"
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    prefix = f"{model}_{name}/"
    return (
        fn,
        images,
        labels,
        {k.removeprefix(prefix): v for k, v in masks.items() if k.startswith(prefix)},
    )


def run(golden: pathlib.Path, case: tuple, bands: tuple, seed: int) -> dict:
    """One evaluation, with every count and whether it is inside its band."""
    model, norm, eps = case
    fn, images, labels, masks = load(golden, model, norm)
    started = time.perf_counter()
    report = evaluation.autoattack(
        fn, images, labels, norm=norm, eps=eps, seed=seed, individual=True
    )
    seconds = time.perf_counter() - started
    ensemble = next(reversed(report.masks.values()))
    counts = [int(ensemble.sum()), *(int(report.individual_masks[a].sum()) for a in ATTACKS)]
    differing = int((ensemble != masks["cascade/square"]).sum())
    inside = [low <= c <= high for c, (low, high) in zip(counts, bands[:5], strict=True)]
    return {
        "model": model,
        "norm": norm,
        "eps": eps,
        "seed": seed,
        "points": len(labels),
        "clean": int(report.masks["clean"].sum()),
        "clean_agrees": bool((report.masks["clean"] == masks["clean"]).all()),
        "counts": dict(zip(("ensemble", *ATTACKS), counts, strict=True)),
        "bands": dict(zip(("ensemble", *ATTACKS), bands[:5], strict=True)),
        "ensemble_points_differing": differing,
        "inside_all_bands": all(inside) and differing <= bands[5],
        "warnings": [c.name for c in report.checks if not c.passed],
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Runs all cases and writes the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--golden", type=pathlib.Path, help="folder with the published models")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "experiments" / "results")
    options = parser.parse_args()
    cases = DIGITS | (REAL if options.golden else {})
    path = options.out / "autoattack_reference.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    finished = {(row["model"], row["norm"], row["eps"], row["seed"]) for row in rows}
    for case, bands in cases.items():
        for seed in options.seeds:
            if (*case, seed) in finished:
                continue
            rows.append(run(options.golden, case, bands, seed))
            print(
                json.dumps(
                    {
                        k: rows[-1][k]
                        for k in ("model", "norm", "seed", "counts", "inside_all_bands", "seconds")
                    }
                ),
                flush=True,
            )
            table = {"provenance": provenance(), "rows": rows}
            write_json(path, table)


if __name__ == "__main__":
    main()
