"""TRADES' theory, checked by numbers: decomposition, psi-transform, upper bound.

1. Robust error = natural error + boundary error, per example and exactly: linear classifiers
   under l_inf, l_2 and l_1 (real digits, 3 against 8), and the paper's stripes.
2. The psi-transform of four losses from its definition, against the closed forms.
3. The upper bound R_rob - R*_nat <= psi^-1(R_phi - R*_phi) + P[boundary] <= ... + E max phi on
   random distributions with random classifiers, all terms exact; and its tightness.
4. The same bound for networks trained with binary hinge TRADES on digits 1 against 3. The
   maximum over the ball is taken over all images that any attack found, the same ones on both
   sides, so that the inequality is exact for what was found. Training attacks the boundary
   term max(0, 1 - f(x')f(x)/lambda) as published, or the product in it, which is not flat
   where f(x)^2 >= lambda. "Stalled" is the share of images at which the published attack finds
   a boundary term of 0 although another attack finds more.

Command:  python experiments/theory_trades.py [--steps 300] [--draws 1000] [--out FOLDER]
Cost:     about a minute and a half on two busy CPU cores.
Result:   all 40 checks pass. Delta, the right side of the bound minus robust error, in per cent,
          one seed, lambda 2, 3, 4, 5: trained with the published attack 17.7, 15.4, 17.0, 17.5 on
          the training digits and 20.0, 17.3, 20.0, 19.9 on the test digits, with a third of all
          images stalled; with the attack on the product 0.4, 0.3, 0.7, 1.4 and 2.1, 2.2, 4.5, 3.1.
          The paper reports 0.6 to 0.7 on MNIST. Robust error on the 65 test digits is 3.1
          per cent (2 images) throughout, but 4.6 (3) with the product and lambda 5.
"""

import argparse
import functools
import itertools
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from rich.progress import Progress

from jaxrobust import attacks, data, losses, theory, threats
from jaxrobust.evaluation import Check, provenance, write_json

ROOT = pathlib.Path(__file__).parents[1]
NAMES = ("hinge", "sigmoid", "exponential", "logistic")
COLOURS = dict(zip(NAMES, ("#0072B2", "#E69F00", "#009E73", "#CC79A7"), strict=True))
LAMBDAS = (2.0, 3.0, 4.0, 5.0)
FORMS = ("hinge", "product")
ATTACKS = tuple(itertools.product(("exponential", *FORMS), ("uniform", "normal")))
EPS = 0.1


def two_digits(negative: int, positive: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images in [0, 1] of two classes, labels -1 and +1, and which of them are for training."""
    digits = data.digits()
    images = np.concatenate([digits.train_images, digits.test_images]) / np.float32(16)
    classes = np.concatenate([digits.train_labels, digits.test_labels])
    training = np.arange(len(classes)) < len(digits.train_labels)
    chosen = (classes == negative) | (classes == positive)
    labels = np.where(classes == positive, 1, -1)
    return images[chosen], labels[chosen], training[chosen]


def decomposition() -> tuple[list[Check], dict[str, np.ndarray]]:
    """Linear classifiers by least squares on digits 3 against 8, and the paper's stripes."""
    images, labels, training = two_digits(3, 8)
    x = jnp.asarray(images.reshape(len(images), -1), jnp.float64)
    design = np.concatenate([x, np.ones((len(x), 1))], 1)[training]
    ridge = design.T @ design + 10 * np.eye(design.shape[1])
    solution = np.linalg.solve(ridge, design.T @ labels[training])
    weights, bias = jnp.asarray(solution[:-1]), solution[-1]
    checks, curve = [], {}
    for norm, largest in (("linf", 0.12), ("l2", 0.8), ("l1", 3.0)):
        radii = np.linspace(0, largest, 25)
        broken, gap, found = 0, 0.0, []
        for eps in radii:
            extremes = theory.linear_extremes(weights, bias, x, norm=norm, eps=eps)
            errors = theory.errors(extremes, labels)
            broken += int((errors.robust != (errors.natural | errors.boundary)).sum())
            broken += int((errors.natural & errors.boundary).sum())
            worst = theory.linear_worst_case(weights, x, labels, norm=norm, eps=eps)
            least = jnp.where(labels > 0, extremes.lowest, -extremes.highest)
            gap = max(gap, float(jnp.abs((worst @ weights + bias) * labels - least).max()))
            found.append([float(e.mean()) for e in errors])
        checks.append(
            Check(f"decomposition, linear, {norm}", broken == 0, broken, 0,
                  f"examples that break it, of {len(x)} x {len(radii)} radii"),
        )  # fmt: skip
        checks.append(
            Check(f"worst case reached, linear, {norm}", gap < 1e-10, gap, 1e-10,
                  "margin at the worst point - (f y - eps |w|_q)"),
        )  # fmt: skip
        if norm == "linf":
            curve = {"eps": radii, "errors": np.array(found)}
    toy = theory.stripes(eps=0.1)
    for rule, values, expected in (
        ("Bayes", toy.bayes, (0, 1, 1)),
        ("all one", jnp.ones_like(toy.bayes), (0.5, 0, 0.5)),
    ):
        extremes = theory.piecewise_extremes(toy.breaks, values, toy.points, eps=0.1)
        risks = np.array(theory.risks(extremes, mass=toy.mass, eta=toy.eta))
        gap = float(np.abs(risks - expected).max())
        text = f"(natural, boundary, robust) = {tuple(round(float(r), 6) for r in risks)}"
        checks.append(Check(f"stripes, {rule} rule", gap < 1e-12, gap, 1e-12, text))
    return checks, curve


def psi_transforms(theta: np.ndarray) -> tuple[list[Check], dict[str, np.ndarray]]:
    """The psi-transform of each loss on a grid, against its closed form."""
    checks, curves = [], {}
    for name in NAMES:
        surrogate = theory.surrogate(name)
        curves[name] = np.asarray(theory.psi_transform(surrogate.phi, theta))
        gap = float(np.abs(curves[name] - surrogate.psi(jnp.asarray(theta))).max())
        checks.append(Check(f"psi, {name}", gap < 1e-9, gap, 1e-9, "largest error on the grid"))
    return checks, curves


def random_problems(count: int) -> dict[str, Array]:
    """Discrete distributions on the line with piecewise constant classifiers."""
    draw = np.random.default_rng(0)
    points = np.sort(draw.uniform(size=(count, 20)), 1)
    first, second = draw.uniform(0.1, 2, (2, count, 1))
    eta = draw.beta(first, second, (count, 20))
    # Every second classifier knows the mean of eta on each piece: the bound is closer there.
    breaks = np.sort(draw.uniform(size=(count, 8)), 1)
    values = draw.normal(size=(count, 9))
    piece = np.array(
        [np.searchsorted(b, p, side="right") for b, p in zip(breaks, points, strict=True)]
    )
    for row in range(0, count, 2):
        for number in np.unique(piece[row]):
            values[row, number] = 4 * eta[row][piece[row] == number].mean() - 2
    problems = {
        "points": points,
        "mass": draw.dirichlet(np.ones(20), count),
        "eta": eta,
        "breaks": breaks,
        "values": values * 10 ** draw.uniform(-1, 0.5, (count, 1)),
        "eps": draw.uniform(0, 0.1, count),
        "lam": 10 ** draw.uniform(-2, 0.5, count),
    }
    return {k: jnp.asarray(v) for k, v in problems.items()}


def bounds(name: str, problems: dict[str, Array]) -> theory.Bound:
    """Both sides of the bound for every problem."""

    @jax.jit
    @jax.vmap
    def one(p: dict[str, Array]) -> theory.Bound:
        extremes = theory.piecewise_extremes(p["breaks"], p["values"], p["points"], eps=p["eps"])
        weights: Any = {k: p[k] for k in ("mass", "eta", "lam")}
        return theory.trades_bound(extremes, **weights, surrogate=theory.surrogate(name))

    return jax.tree.map(np.asarray, one(problems))


def tight_bounds(name: str) -> theory.Bound:
    """Where both sides nearly meet: scores slightly wrong everywhere, no boundary nearby."""
    score = jnp.array([-1e-6])
    found = [
        theory.trades_bound(
            theory.Extremes(score, score, score),
            mass=jnp.ones(1),
            eta=jnp.array([(1 + theta) / 2]),
            lam=1e-14,
            surrogate=theory.surrogate(name),
        )
        for theta in np.linspace(0.05, 0.95, 19)
    ]
    return jax.tree.map(lambda *sides: np.stack(sides), *found)


def upper_bound(draws: int) -> tuple[list[Check], dict[str, theory.Bound], theory.Bound]:
    """Both inequalities on random distributions, and how close the two sides can come."""
    problems = random_problems(draws)
    found = {name: bounds(name, problems) for name in NAMES}
    checks = []
    for name, bound in found.items():
        first = float((bound.with_boundary - bound.excess).min())
        second = float((bound.with_surrogate - bound.with_boundary).min())
        text = f"least slack on {draws} distributions; median gap {float(np.median(bound.gap)):.3f}"
        checks.append(Check(f"bound, boundary error, {name}", first > -1e-9, first, -1e-9, text))
        checks.append(
            Check(f"bound, surrogate, {name}", second > -1e-9, second, -1e-9, "least slack")
        )
        tight = tight_bounds(name)
        largest = float(np.abs(tight.gap).max())
        text = f"largest gap of the construction, {len(tight.excess)} excesses from .05 to .95"
        checks.append(Check(f"bound is tight, {name}", largest < 1e-4, largest, 1e-4, text))
    return checks, found, tight_bounds("hinge")


def init_network(key: Array) -> dict[str, Array]:
    """Two 3x3 convolutions, the second with stride 2, two dense layers, one logit."""
    shapes = {"conv1": (3, 3, 1, 8), "conv2": (3, 3, 8, 16), "dense1": (256, 32), "dense2": (32, 1)}
    params = {}
    for number, (name, shape) in enumerate(shapes.items()):
        size = (2 / np.prod(shape[:-1])) ** 0.5
        params[f"{name}_kernel"] = size * jax.random.normal(jax.random.fold_in(key, number), shape)
        params[f"{name}_bias"] = jnp.zeros(shape[-1])
    return params


def network(params: dict[str, Array], x: Array) -> Array:
    """Images `[b, 8, 8, 1]` -> one logit `[b, 1]`."""
    for name, stride in (("conv1", 1), ("conv2", 2)):
        x = jax.lax.conv_general_dilated(
            x, params[f"{name}_kernel"], (stride,) * 2, "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        x = jax.nn.relu(x + params[f"{name}_bias"])
    x = jax.nn.relu(x.reshape(len(x), -1) @ params["dense1_kernel"] + params["dense1_bias"])
    return x @ params["dense2_kernel"] + params["dense2_bias"]


def attack(
    params: dict[str, Array], key: Array, x: Array, y: Array, loss: Any, *, start: str
) -> Array:
    """Images found by 20 steps of .01, from the paper's two kinds of start."""
    noise = jax.random.normal(key, x.shape) * 1e-3
    if start == "uniform":
        noise = jax.random.uniform(key, x.shape, minval=-EPS, maxval=EPS)

    def logits_fn(images: Array) -> Array:
        return network(params, images)

    found = attacks.pgd(
        logits_fn, key, x, y,
        threat=threats.linf(EPS), loss=loss, steps=20, step_size=0.01, start=noise,
    )  # fmt: skip
    return found.images


def boundary_loss(form: str, clean: Array, lam: Array) -> Any:
    """What an attack on the boundary term maximises: the hinge of the product, or the product."""
    if form == "hinge":
        return lambda f, _: losses.binary_boundary(clean, f, lam=lam)
    return lambda f, _: -clean[:, 0] * f[:, 0]


OPTIMIZER = optax.sgd(0.01, momentum=0.9)


@functools.partial(jax.jit, static_argnames="form")
def train_step(
    params: Any, state: Any, key: Array, x: Array, y: Array, lam: Array, *, form: str
) -> tuple[Any, Any]:
    """One step of binary hinge TRADES: SGD .01 with momentum .9, batches of 128, as published."""
    batch_key, attack_key = jax.random.split(key)
    chosen = jax.random.choice(batch_key, len(x), (128,), replace=False)
    images, labels = x[chosen], y[chosen]
    objective = boundary_loss(form, network(params, images), lam)
    adversarial = attack(params, attack_key, images, labels, objective, start="normal")

    def loss(p: Any) -> Array:
        clean, adv = network(p, images), network(p, adversarial)
        return losses.binary_trades(clean, adv, labels, lam=lam).mean()

    updates, state = OPTIMIZER.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


@jax.jit
def found_scores(params: Any, x: Array, y: Array, lam: Array) -> tuple[Array, Array]:
    """Scores of the clean images `[n]`, and of all images that the attacks find `[s, n]`."""
    clean, scores = network(params, x), []
    for number, (form, start) in enumerate(ATTACKS):
        key = jax.random.fold_in(jax.random.key(2), number)
        exponential = form == "exponential"
        objective = losses.exponential if exponential else boundary_loss(form, clean, lam)
        scores.append(network(params, attack(params, key, x, y, objective, start=start))[:, 0])
    return clean[:, 0], jnp.stack(scores)


def hinge_networks(steps: int) -> tuple[list[Check], list[dict[str, Any]]]:
    """The bound for networks on digits 1 against 3, at several lambda, for two attacks in training."""
    images, labels, training = two_digits(1, 3)
    x, y = jnp.asarray(images), jnp.asarray(labels)
    checks, rows = [], []
    total = len(FORMS) * len(LAMBDAS) * steps
    with Progress() as progress:
        task = progress.add_task("hinge networks", total=total)
        for form, lam in itertools.product(FORMS, LAMBDAS):
            params = init_network(jax.random.key(0))
            state = OPTIMIZER.init(params)
            for number in range(steps):
                key = jax.random.fold_in(jax.random.key(1), number)
                batch = (x[training], y[training], jnp.asarray(lam))
                params, state = train_step(params, state, key, *batch, form=form)
                progress.advance(task)
            clean, visited = (np.asarray(v) for v in found_scores(params, x, y, jnp.asarray(lam)))
            for split, chosen in (("train", training), ("test", ~training)):
                row = bound_of_sample(clean[chosen], visited[:, chosen], labels[chosen], lam)
                terms = np.maximum(0, 1 - clean[chosen] * visited[:, chosen] / lam)
                published = terms[ATTACKS.index(("hinge", "normal"))]
                row["stalled"] = float(((published == 0) & (terms.max(0) > 0)).mean())
                rows.append({"attack": form, "lambda": lam, "split": split, **row})
                slack = min(row["middle"] - row["left"], row["right"] - row["middle"])
                text = f"{row['left']:.4f} <= {row['middle']:.4f} <= {row['right']:.4f}; Delta = {row['gap']:.4f}; stalled {row['stalled']:.2f}"
                name = f"bound, network, attack on {form}, lambda {lam:g}, {split}"
                checks.append(Check(name, slack > -1e-9, slack, -1e-9, text))
    return checks, rows


def bound_of_sample(
    clean: np.ndarray, visited: np.ndarray, labels: np.ndarray, lam: float
) -> dict[str, float]:
    """Errors and both sides of the bound for a sample, over the images that were visited."""
    with jax.enable_x64(True):
        extremes = theory.visited_extremes(clean.astype(np.float64), visited.astype(np.float64))
        signs, hinge = jnp.asarray(labels, jnp.float64), theory.surrogate("hinge")
        mass = jnp.full(len(signs), 1 / len(signs))
        bound = theory.trades_bound(
            extremes, mass=mass, eta=(signs + 1) / 2, lam=lam, surrogate=hinge
        )
        natural, _, robust = (float(e.mean()) for e in theory.errors(extremes, labels))
        left, middle, right = (float(side) for side in bound)
        return {
            "natural_error": natural,
            "robust_error": robust,
            "hinge_risk": float(hinge.phi(extremes.score * signs).mean()),
            "left": left,
            "middle": middle,
            "right": right,
            "gap": right - left,
        }


def draw(
    path: pathlib.Path,
    curve: dict[str, np.ndarray],
    theta: np.ndarray,
    psi: dict[str, np.ndarray],
    found: dict[str, theory.Bound],
    tight: theory.Bound,
    rows: list[dict[str, Any]],
) -> None:
    """The four parts as one PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11.5, 9), layout="constrained")
    axis = axes[0, 0]
    natural, boundary, robust = 100 * curve["errors"].T
    axis.stackplot(curve["eps"], natural, boundary, colors=("#D55E00", "#56B4E9"),
                   labels=("natural error", "boundary error"), alpha=0.75)  # fmt: skip
    axis.plot(curve["eps"], robust, "ko", markersize=4, label="robust error, by itself")
    axis.set(xlabel="radius eps of the l_inf ball", ylabel="error (%)", ylim=(0, None),
             xlim=(0, curve["eps"][-1]), title="robust = natural + boundary\n(linear, digits 3 against 8)")  # fmt: skip
    axis.legend(loc="upper left")
    axis = axes[0, 1]
    for name in NAMES:
        style = "--" if name == "sigmoid" else "-"
        axis.plot(theta, theory.surrogate(name).psi(jnp.asarray(theta)), style,
                  color=COLOURS[name], linewidth=2.5, label=name)  # fmt: skip
        every = slice(None, None, 10)
        axis.plot(
            theta[every], psi[name][every], "o", color=COLOURS[name], markersize=4, mec="k", mew=0.5
        )
    axis.set(
        xlabel="theta",
        ylabel="psi(theta)",
        title="psi-transform\n(lines: closed forms; dots: from the definition)",
    )
    axis.legend(loc="upper center")
    axis = axes[1, 0]
    for name in NAMES:
        axis.plot(
            found[name].excess,
            found[name].with_surrogate,
            ".",
            color=COLOURS[name],
            markersize=3,
            alpha=0.6,
            label=name,
        )
    axis.plot([0, 1], [0, 1], "k-", linewidth=1)
    axis.plot(tight.excess, tight.with_surrogate, "k^", markersize=4, label="tight construction")
    axis.text(0.3, 0.1, "equality", fontsize=9)
    axis.set(xlabel="robust error - best natural error", ylabel="right side of the bound", xlim=(0, 1), ylim=(0, 3),
             title=f"upper bound, {len(found['hinge'].excess)} random distributions\n(right sides above 3 not shown)")  # fmt: skip
    axis.legend(loc="upper right", markerscale=2, fontsize=8, framealpha=1)
    axis = axes[1, 1]
    bars = itertools.product(FORMS, ("train", "test"))
    for (form, split), offset in zip(bars, (-0.3, -0.1, 0.1, 0.3), strict=True):
        shade = "#D55E00" if form == "hinge" else "#0072B2"
        hatch = "///" if split == "test" else None
        part = [row for row in rows if (row["attack"], row["split"]) == (form, split)]
        place = np.array([row["lambda"] for row in part]) + offset
        left, right = (100 * np.array([row[side] for row in part]) for side in ("left", "right"))
        axis.bar(
            place,
            right,
            0.18,
            color=shade,
            alpha=0.35,
            hatch=hatch,
            label=f"attack on {form}, {split}",
        )
        axis.bar(place, left, 0.18, color=shade)
        for at, low, high in zip(place, left, right, strict=True):
            axis.annotate(f"{high - low:.1f}", (at, high), ha="center", va="bottom", fontsize=8)
    axis.set(xlabel="lambda", xticks=LAMBDAS, ylabel="%", ylim=(0, 1.35 * 100 * max(row["right"] for row in rows)),
             title=f"binary hinge TRADES, digits 1 against 3, eps {EPS}\nsolid: robust error; light: right side; number: Delta")  # fmt: skip
    axis.legend(loc="upper center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> int:
    """Runs all four parts; the exit status is 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=300, help="training steps of each network")
    parser.add_argument("--draws", type=int, default=1000, help="random distributions")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs" / "theory_trades")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with jax.enable_x64(True):
        theta = np.linspace(-1, 1, 201)
        checks, curve = decomposition()
        psi_checks, psi = psi_transforms(theta)
        bound_checks, found, tight = upper_bound(options.draws)
    network_checks, rows = hinge_networks(options.steps)
    checks += psi_checks + bound_checks + network_checks
    with jax.enable_x64(True):
        draw(options.out / "theory_trades.png", curve, theta, psi, found, tight, rows)
    for check in checks:
        print(
            f"{'pass' if check.passed else 'FAIL'}  {check.name:49} {check.value:10.3g}  {check.message}"
        )
    seconds = time.perf_counter() - started
    table = {
        "checks": [c._asdict() for c in checks],
        "networks": rows,
        "seconds": round(seconds, 1),
    }
    write_json(options.out / "results.json", {**table, "provenance": provenance()})
    failed = sum(not check.passed for check in checks)
    print(
        f"{len(checks) - failed} of {len(checks)} checks pass, {seconds:.0f} s; {options.out / 'theory_trades.png'}"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
