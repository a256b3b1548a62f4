"""One attack step against ten on CIFAR-10 at equal cost: seven methods, two CPU cores, three seeds.

The comparison of [mnist_one_step](mnist_one_step.py) on the first 7,000 training images of CIFAR-10
(in the order of TensorFlow Datasets; on a re-encoding of the images, results are not comparable with
other results on CIFAR-10), l_inf eps 8/255, with random crops and flips. Accuracies are of the first
1,000 test images, AutoAttack's of the first 200.

Command:  jaxrobust tradeoff experiments/cifar10_one_step.py
Cost:     1.9 to 2.1 core-minutes for each training, by `jaxrobust bench throughput cifar10_one_step`; an
          hour for everything beside as much other work, 48 minutes of it training.
Result:   experiments/results/cifar10_one_step.json; `python experiments/one_step_figure.py` prints them.
          AutoAttack, means of three seeds ± standard deviation: N-FGSM 20.5 ±0.5, FGSM-RS 20.2 ±0.6,
          PGI 19.8 ±1.0, PGD-AT-10 15.2 ±2.1, GradAlign 14.7 ±1.3, LIET 13.8 ±2.1, TRADES-10 10.3 ±2.0.
"""

from dataclasses import replace

from jaxrobust.experiment import Experiment, Tradeoff, load, use

EPS = 8 / 255
EPOCHS = {"FGSM-RS": 24, "N-FGSM": 26, "GradAlign": 6, "LIET": 16, "PGI": 18, "TRADES-10": 5,
          "PGD-AT-10": 7}  # fmt: skip
mnist = load("mnist_one_step")
assert isinstance(mnist, Tradeoff)


def on_cifar10(member: Experiment) -> Experiment:
    """A member of the comparison on MNIST; its schedules are stretched to its epochs here."""
    epochs = EPOCHS[member.name]
    schedules = {"threat.eps": use("linear", start=0.0, end=EPS, to_epoch=epochs / 3)}
    if member.name == "LIET":
        rising = [(epoch, 100 * (epoch + 1) / epochs) for epoch in range(epochs)]
        schedules["objective.lam"] = use("stages", values=rising)
    return replace(
        member,
        data=use("tfds", name="cifar10", train_split="train[:7000]", test_split="test[:1000]"),
        model=use("digits_cnn", width=16),
        threat=use("linf", eps=EPS),
        learning_rate=use("cosine", peak=0.02, warmup_epochs=0.5),
        epochs=epochs,
        schedules=schedules,
        validation=replace(member.validation, every=epochs),
        augment=(use("pad_crop", pad=4), use("flip")),
    )


config = replace(
    mnist,
    name="cifar10_one_step",
    evaluators=(use("autoattack", norm="linf", eps=EPS, images=200),),
    members=tuple(map(on_cifar10, mnist.members)),
)
