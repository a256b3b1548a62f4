"""Certified training beside adversarial training on MNIST, l_inf eps 0.1 and 0.3, three seeds.

A small CNN and the first 10,000 training images, so that all networks train on two CPU cores. Each
method trains once for each eps, under the same optimizer and number of epochs, and every network is
bounded by CROWN and attacked by AutoAttack at both. Accuracies under bounds and attacks are of the
first 50 test images, clean ones of the first 1,000 (in the order of TensorFlow Datasets).

Command:  jaxrobust tradeoff experiments/mnist_certified.py
          python experiments/certified_figure.py --name mnist_certified
Cost:     36 minutes of training and about 12 of attacks and bounds, on two CPU cores with as much
          other work.
Result:   experiments/results/mnist_certified.json; `jaxrobust table` prints it. Means of three seeds of
          clean, AutoAttack and certified accuracy, of the networks trained for the eps. At 0.1: PGD-AT
          97.4, 89.3 and 21.3; TRADES 97.0, 91.3 and 40.7; IBP 94.5, 88.0 and 87.3. At 0.3: PGD-AT 96.1,
          48.0 and 0.0; TRADES 91.6, 53.3 and 1.3; IBP 87.6, 62.0 and 61.3.
"""

from dataclasses import replace

from jaxrobust.experiment import Evaluation, Experiment, Tradeoff, Validation, use

RADII = (0.1, 0.3)
EPOCHS = 15
base = Experiment(
    name="base",
    data=use("tfds", name="mnist", train_split="train[:10000]", test_split="test[:1000]"),
    model=use("digits_cnn", width=8),
    objective=use("pgd_at", steps=10),
    threat=use("linf", eps=max(RADII)),  # of the evaluation; the schedules set that of training
    optimizer=use("adam"),
    learning_rate=use("cosine", peak=2e-3, warmup_epochs=1),
    clip_norm=10.0,
    epochs=EPOCHS,
    batch_size=128,
    validation=Validation(size=500, every=EPOCHS, steps=10),
    evaluation=Evaluation(steps=20, batch_size=250),
)
METHODS = {
    "PGD-AT": use("pgd_at", steps=10),
    "TRADES": use("trades", beta=6.0, steps=10),
    "IBP": use("ibp"),
}


def member(name: str, eps: float) -> Experiment:
    """A method at a radius, which rises from 0 over the first half of the training."""
    ramp = use("smooth", start=0.0, end=eps, to_epoch=EPOCHS / 2)
    return replace(
        base,
        name=f"{name} {eps:g}",
        objective=METHODS[name],
        schedules={"threat.eps": ramp},
    )


config = Tradeoff(
    name="mnist_certified",
    seeds=(0, 1, 2),
    evaluators=(
        *(use("autoattack", norm="linf", eps=eps, images=50) for eps in RADII),
        use("bracket", norm="linf", radii=RADII, images=50, bound_batch_size=25),
    ),
    members=tuple(member(name, eps) for eps in RADII for name in METHODS),
)
