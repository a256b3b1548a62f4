"""Every training objective on scikit-learn's digits: one network, one budget, three seeds.

Attacked by PGD-20 on cross-entropy, PGD-20 on the margin, and the standard AutoAttack.

What the field learnt, and what is seen here: GAIRAT's robustness to PGD on cross-entropy is not
robustness. Its weights flatten the cross-entropy around the images, which starves that attack of
gradients more than it moves the decision boundary. From PGD-20 on cross-entropy to AutoAttack
GAIRAT loses 7.8 points and GAIR-FAT 10.0, where PGD-AT loses 2.1 and MART 2.4 (means of three
seeds, eps 0.15 in image units). Losses on probabilities (SCORE, JS: 7.6 and 9.0) are overestimated
by cross-entropy too, and there the margin attack already tells. On data this small GAIRAT needs a
stronger shift (lambda -3 from epoch 5 on) than the paper's to show it, and does not exceed PGD-AT
under PGD either, as it does in the paper's table.

Command:  jaxrobust tradeoff digits_methods
Cost:     13 minutes on two busy CPU cores.
Result:   experiments/results/digits_methods.json; `jaxrobust table` prints it.
"""

from dataclasses import replace

from jaxrobust.experiment import Evaluation, Experiment, Tradeoff, Validation, use

EPS = 0.15
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
    validation=Validation(size=144, every=10),
    evaluation=Evaluation(steps=20, restarts=2, batch_size=360),
)
# The paper has -1 from half of the training on; on data this small its effect needs more.
burn_in = {"objective.lam": use("stages", values=[(0, float("inf")), (5, -3.0)])}
friendly = {"objective.tau": use("stages", values=[(0, 0), (14, 3), (24, 6)])}

config = Tradeoff(
    name="digits_methods",
    seeds=(0, 1, 2),
    evaluators=(use("autoattack", norm="linf", eps=EPS),),
    members=(
        base,
        replace(base, name="PGD-AT", objective=use("pgd_at")),
        replace(base, name="TRADES", objective=use("trades", beta=6.0)),
        replace(base, name="SCORE", objective=use("score", beta=4.0)),
        replace(base, name="MART", objective=use("mart", beta=6.0)),
        replace(base, name="FAT", objective=use("fat"), schedules=friendly),
        replace(base, name="GAIRAT", objective=use("gairat"), schedules=burn_in),
        replace(
            base, name="GAIR-FAT", objective=use("gair_fat"), schedules={**burn_in, **friendly}
        ),
        replace(base, name="GAIR-TRADES", objective=use("gair_trades", lam=3.0)),
        replace(base, name="AT with JS", objective=use("distance_trades", distance="js")),
        replace(base, name="TRADES + AWP", objective=use("trades", beta=6.0), awp=0.005),
    ),
)
