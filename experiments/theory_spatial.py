"""Why robustness to spatial maps and to l_inf can exclude each other: an exact toy setting.

The setting, the rules and the closed forms are ours, in the distribution of Tsipras et al.
(2019). They are not the theorem of Kamath et al. (2020), whose text was not at hand. One strong
coordinate that may lie, many weak ones that never do together; the spatial map is a random
permutation of the coordinates, the attack l_inf of radius 2 c / sqrt(d).

1. Closed forms of clean, attacked and permuted accuracy against simulation, on a grid of rules.
2. The bound of Tsipras et al. for the same data: a rule of clean accuracy 1 - delta keeps at
   most delta p / (1 - p) under attack.
3. The trade-off: what one gains under attack, one loses under permutations.

Command:  python experiments/theory_spatial.py [--draws 20000] [--out FOLDER]
Cost:     about 25 s on two busy CPU cores.
Result:   all 15 checks pass; simulation is within .0044 of the closed forms. With p .9, c 2,
          d 400, from the rule best on permuted points to w = 20, attacked accuracy goes from
          2.4 % to 90.0 %, permuted accuracy from 97.9 % to 58.1 %, clean accuracy from 97.7 %
          to 90 %.
"""

import argparse
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust import theory
from jaxrobust.evaluation import Check, provenance, write_json

ROOT = pathlib.Path(__file__).parents[1]
KINDS = ("clean", "attacked", "permuted")
COLOURS = dict(zip(KINDS, ("#0072B2", "#D55E00", "#009E73"), strict=True))
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
SETTINGS = {"p .9, c 2": (0.9, 2.0), "p .8, c 1.5": (0.8, 1.5), "p .95, c 2.5": (0.95, 2.5)}
DIM = 400


def simulated(toy: theory.SpatialToy, draws: int) -> np.ndarray:
    """Accuracies `[3, rules]` of the kinds of points, by drawing, attacking and permuting."""

    @jax.jit
    def correct(key: Array) -> Array:
        sample_key, order_key = jax.random.split(key)
        x, y = toy.sample(sample_key, 1000)
        kinds = (x, toy.attack(x, y), toy.permute(order_key, x))
        rules = jnp.asarray(WEIGHTS)
        return jnp.stack([
            jax.vmap(lambda w, kind=kind: jnp.mean(toy.score(kind, w) * y > 0))(rules)
            for kind in kinds
        ])  # fmt: skip

    keys = jax.random.split(jax.random.key(0), -(-draws // 1000))
    return np.mean([np.asarray(correct(key)) for key in keys], 0)


def checked(draws: int) -> tuple[list[Check], dict[str, Any]]:
    """Every setting: simulation against closed forms, the bound, the trade-off."""
    checks, found = [], {}
    fine = np.linspace(0, 20, 401)
    for name, (p, c) in SETTINGS.items():
        toy = theory.SpatialToy(p=p, c=c, dim=DIM)
        exact = np.stack([np.asarray(a) for a in toy.accuracies(jnp.asarray(WEIGHTS))])
        drawn = simulated(toy, draws)
        noise = np.sqrt(np.maximum(exact * (1 - exact), 1e-4) / draws)
        for kind, gaps, own in zip(KINDS, np.abs(drawn - exact), noise, strict=True):
            worst = float((gaps / own).max())
            text = f"largest |simulated - exact| is {gaps.max():.4f}; in standard errors of {draws} draws"
            checks.append(Check(f"closed form, {kind}, {name}", worst < 4, worst, 4, text))
        curve = np.stack([np.asarray(a) for a in toy.accuracies(jnp.asarray(fine))])
        clean, attacked, permuted = curve
        slack = float((np.asarray(toy.attacked_bound(jnp.asarray(clean))) - attacked).min())
        checks.append(
            Check(f"bound of Tsipras et al., {name}", slack > -1e-9, slack, -1e-9, "least slack")
        )
        # From the rule that is best on permuted points, every gain under attack is paid for.
        best = int(permuted.argmax())
        paid = bool(
            (np.diff(attacked[best:]) >= -1e-9).all() and (np.diff(permuted[best:]) < 0).all()
        )
        text = (
            f"attacked {attacked[best]:.3f} -> {attacked[-1]:.3f}, permuted {permuted[best]:.3f} -> "
            f"{permuted[-1]:.3f} as w goes from {fine[best]:g} to {fine[-1]:g}"
        )
        checks.append(Check(f"trade-off is strict, {name}", paid, float(paid), 1, text))
        limit = np.asarray(toy.permuted_limit(jnp.asarray(fine)))
        found[name] = {"exact": exact, "drawn": drawn, "curve": curve, "limit": limit, "w": fine}
        found[name]["bound"] = np.asarray(toy.attacked_bound(jnp.asarray(clean)))
    return checks, found


def draw(path: pathlib.Path, found: dict[str, Any]) -> None:
    """Accuracies by rule, the trade-off, and the bound, as one PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(14.5, 4.8), layout="constrained")
    first, (name, shown) = axes[0], next(iter(found.items()))
    for number, kind in enumerate(KINDS):
        first.plot(shown["w"], 100 * shown["curve"][number], color=COLOURS[kind], label=kind)
        first.plot(
            WEIGHTS, 100 * shown["drawn"][number], "o", color=COLOURS[kind], mec="k", mew=0.5, ms=5
        )
    first.plot(
        shown["w"],
        100 * shown["limit"],
        ":",
        color=COLOURS["permuted"],
        label="permuted, d to infinity",
    )
    first.set(xlabel="weight w of the strong coordinate", ylabel="accuracy (%)", xlim=(-0.4, 18), ylim=(0, 101),
              title=f"{name}, d = {DIM}\n(lines: closed forms; dots: simulation)")  # fmt: skip
    first.legend(loc="lower right", fontsize=9)
    for (name, shown), style in zip(found.items(), ("-", "--", "-."), strict=True):
        clean, attacked, permuted = 100 * shown["curve"]
        axes[1].plot(attacked, permuted, style, color="#CC79A7", label=name)
        axes[2].plot(clean, attacked, style, color=COLOURS["attacked"], label=f"rules f_w, {name}")
        order = np.argsort(clean)
        axes[2].plot(clean[order], 100 * shown["bound"][order], style, color="k", linewidth=1,
                     label=f"bound, {name}")  # fmt: skip
    axes[1].set(xlabel="attacked accuracy (%)", ylabel="permuted accuracy (%)", xlim=(0, 100), ylim=(50, 101),
                title="spatial against l_inf robustness\n(w = 0 top left; ours, not the paper's theorem)")  # fmt: skip
    axes[1].legend(loc="lower left", fontsize=9)
    axes[2].set(xlabel="clean accuracy (%)", ylabel="attacked accuracy (%)", ylim=(0, 101),
                title="attacked against clean\n(black: bound of Tsipras et al., any rule)")  # fmt: skip
    axes[2].legend(loc="lower left", fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> int:
    """Runs all parts; the exit status is 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=20_000, help="simulated points per setting")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs" / "theory_spatial")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with jax.enable_x64(True):
        checks, found = checked(options.draws)
    draw(options.out / "theory_spatial.png", found)
    for check in checks:
        print(
            f"{'pass' if check.passed else 'FAIL'}  {check.name:40} {check.value:10.3g}  {check.message}"
        )
    seconds = time.perf_counter() - started
    rows = [
        {"setting": name, "w": w, "kind": kind, "exact": float(shown["exact"][k, r]), "simulated": float(shown["drawn"][k, r])}
        for name, shown in found.items()
        for k, kind in enumerate(KINDS)
        for r, w in enumerate(WEIGHTS)
    ]  # fmt: skip
    table = {"checks": [c._asdict() for c in checks], "rules": rows, "seconds": round(seconds, 1)}
    write_json(options.out / "results.json", {**table, "provenance": provenance()})
    failed = sum(not check.passed for check in checks)
    print(
        f"{len(checks) - failed} of {len(checks)} checks pass, {seconds:.0f} s; {options.out / 'theory_spatial.png'}"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
