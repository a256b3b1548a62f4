"""One attack step against ten on MNIST at equal cost: seven methods, two CPU cores, three seeds.

A small CNN, the first 10,000 training images, l_inf eps 0.2 (image units). All methods have the same
optimizer, the same ramp of eps over the first third of the training, and an average of the
parameters, which is evaluated; the rest of each method is as published. They differ in the number of
epochs, so that each trains for the same time: `jaxrobust bench throughput` measured the images per
second of each method's step. Accuracies are of the first 1,000 test images, AutoAttack's of the first
150 (in the order of TensorFlow Datasets).

Command:  jaxrobust tradeoff experiments/mnist_one_step.py
Cost:     1.4 to 1.5 core-minutes for each training, by `jaxrobust bench throughput mnist_one_step`; an
          hour for everything beside as much other work, 36 minutes of it training.
Result:   experiments/results/mnist_one_step.json; `python experiments/one_step_figure.py` prints them.
          AutoAttack, means of three seeds ± standard deviation: PGI 88.4 ±0.8, N-FGSM 86.7 ±0.7,
          TRADES-10 82.9 ±0.8, PGD-AT-10 82.9 ±1.7, FGSM-RS 73.6 ±10.8, LIET 57.1 ±4.0, GradAlign 44.0
          ±13.5.
"""

from dataclasses import replace

from jaxrobust.experiment import Evaluation, Experiment, Tradeoff, Validation, use
from jaxrobust.spec import Spec

EPS = 0.2
base = Experiment(
    name="base",
    data=use("tfds", name="mnist", train_split="train[:10000]", test_split="test[:1000]"),
    model=use("digits_cnn", width=16),
    objective=use("standard"),
    threat=use("linf", eps=EPS),
    optimizer=use("sgd", momentum=0.9, nesterov=True),
    learning_rate=use("cosine", peak=0.05, warmup_epochs=0.5),
    weight_decay=5e-4,
    batch_size=128,
    ema_decay=0.99,
    ema_batch_stats="average",
    validation=Validation(size=500, steps=10),
    evaluation=Evaluation(steps=20, batch_size=250),
)


METHODS = {
    "FGSM-RS": (use("fgsm_rs"), 31),
    "N-FGSM": (use("n_fgsm"), 30),
    "GradAlign": (use("grad_align"), 6),
    "LIET": (use("liet"), 14),
    "PGI": (use("pgi"), 14),
    "TRADES-10": (use("trades", beta=6.0, steps=10), 6),
    "PGD-AT-10": (use("pgd_at", steps=10), 7),
}


def member(name: str, objective: Spec, epochs: int) -> Experiment:
    """A method with its share of the time; eps rises over the first third of it."""
    schedules = {"threat.eps": use("linear", start=0.0, end=EPS, to_epoch=epochs / 3)}
    if name == "LIET":
        rising = [(epoch, 100 * (epoch + 1) / epochs) for epoch in range(epochs)]
        schedules["objective.lam"] = use("stages", values=rising)
    return replace(
        base,
        name=name,
        objective=objective,
        epochs=epochs,
        schedules=schedules,
        validation=replace(base.validation, every=epochs),
    )


config = Tradeoff(
    name="mnist_one_step",
    seeds=(0, 1, 2),
    evaluators=(use("autoattack", norm="linf", eps=EPS, images=150),),
    members=tuple(member(name, *method) for name, method in METHODS.items()),
)
