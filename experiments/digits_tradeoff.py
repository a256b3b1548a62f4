"""The five papers on scikit-learn's digits: the trade-off in one report.

One data set, network and budget, l_inf eps 0.2 (image units): ordinary training, PGD-AT and TRADES;
SCORE; MART and GAIRAT; CuSP (rotations and eps grow together); and Adaptive Smoothing, a mixing
network between the ordinary and the TRADES member. Each is judged by PGD-20 on cross-entropy and on
the margin, by the worst of 31 rotations up to 30 degrees, by the standard AutoAttack in l_inf, class
by class, by how its accuracy under PGD falls with eps in l_inf and l_2, and, smoothed by noise, by
certified l_2 radii.

So that all of it ends in a few minutes there is one seed, AutoAttack and the certificates see the
first 120 of the 360 test images (columns and captions say so), and AutoAttack in l_2 is left out,
which would add more than a third to the time: `use("autoattack", norm="l2", eps=0.6)`. Other seeds move
these numbers by several points: `digits_methods.py` has three, and all images.

What was seen, with this one seed: PGD-AT is the most robust (98.3 % clean, 54.2 % under AutoAttack,
an interval of 9 points to either side); CuSP alone stands rotations (81.9 % of the worst of 31, the
others 19 to 27) and pays for it in l_inf (20.8); the mixture has the clean accuracy of its accurate
base (97.8 against TRADES' 95.3) and 26.7 % under AutoAttack, where its bases have 1.7 and 47.5. PGD
leaves it 43.1 % of all images: mixtures have to be judged by AutoAttack, or by attackers who know
how they are made (`digits_mixing.py`). MART ends at 84.7 % clean: beta 6 is too much for it at this eps.

Command:  jaxrobust tradeoff digits_tradeoff
Cost:     3 minutes 30 seconds with an empty cache on two quiet CPU cores, 2 minutes 15 with a full one.
Result:   experiments/results/digits_tradeoff.json, docs/gallery.md.
"""

from dataclasses import replace
from typing import Any

from jaxrobust import curricula
from jaxrobust.experiment import (
    Evaluation,
    Experiment,
    Tradeoff,
    Validation,
    use,
)

EPS, DEGREES = 0.2, 30.0


def papers(base: Experiment, cusp: dict[str, Any], **attack: Any) -> tuple[Experiment, ...]:
    """The methods but for mixtures, each with the network, data and budget of `base`."""
    burn_in = use("stages", values=[(0, float("inf")), (base.epochs // 2, -1.0)])
    rotated = use("spatial", max_degrees=DEGREES, max_shift_px=0.0)
    pgd_at = replace(base, name="PGD-AT", objective=use("pgd_at", **attack))
    gairat = replace(base, name="GAIRAT", objective=use("gairat", **attack))
    return (
        base,
        pgd_at,
        replace(base, name="TRADES", objective=use("trades", beta=6.0, **attack)),
        replace(base, name="SCORE", objective=use("score", beta=4.0, **attack)),
        replace(base, name="MART", objective=use("mart", beta=6.0, **attack)),
        replace(gairat, schedules={"objective.lam": burn_in}),
        replace(pgd_at, name="CuSP", transform=rotated, **cusp),
    )


base = Experiment(
    name="standard",
    data=use("digits"),
    model=use("digits_cnn", width=16),
    objective=use("standard"),
    threat=use("linf", eps=EPS),
    optimizer=use("sgd", momentum=0.9, nesterov=True),
    learning_rate=use("cosine", peak=0.1, warmup_epochs=2),
    weight_decay=5e-4,
    epochs=40,
    batch_size=128,
    validation=Validation(size=144, every=5),
    evaluation=Evaluation(
        steps=20, restarts=2, batch_size=360, spatial_degrees=DEGREES, spatial_grid=(1, 1, 31)
    ),
)
cusp = curricula.staged(
    epochs=(0, 24, 32),
    threat__eps=(EPS / 3, 2 * EPS / 3, EPS),
    transform__max_degrees=(20.0, 25.0, DEGREES),
)
mixture = replace(
    base,
    name="Adaptive Smoothing",
    model=use(
        "mixed_classifier",
        std="member:standard",
        rob="member:TRADES",
        planes=[8, 16, 16],
        alpha_bias=0.8,
        alpha_scale=0.2,
    ),
    objective=use("adaptive_smoothing", bce=1.0, ce=0.5, product=0.1, copies=8, steps=5),
    optimizer=use("adamw", weight_decay=1e-5),
    learning_rate=use("exponential_warmup", peak=1e-2),
    clip_norm=10.0,
    weight_decay=0.0,
    epochs=10,
)
autoattack = use("autoattack", norm="linf", eps=EPS, images=120)

config = Tradeoff(
    name="digits_tradeoff",
    evaluators=(
        autoattack,
        use("per_class", attack=autoattack),
        use("eps_curve", norm="linf", radii=(0.05, 0.1, 0.15, EPS, 0.25, 0.3), restarts=2),
        use("eps_curve", norm="l2", radii=(0.2, 0.4, 0.6, 0.8, 1.0, 1.2), restarts=2),
        use("certified", sigma=0.25, samples=1000, images=120, radii=(0.25, 0.5)),
    ),
    members=(
        *papers(base, cusp, steps=10),
        mixture,
    ),
)
