"""N-FGSM against TRADES at equal cost: a narrow PreActResNet-18 on CIFAR-10, two CPU cores, three seeds.

All 50,000 training images (on a re-encoding of them, results are not comparable with other results on
CIFAR-10), l_inf eps 8/255, an eighth of the published width. Both methods have the same optimizer, the
same ramp of eps over the first third of the training, and an average of the parameters, which is
evaluated. They differ in the number of epochs, so that each trains for the same time. Accuracies and
AutoAttack's are of the first 1,000 test images (in the order of TensorFlow Datasets).

Command:  jaxrobust tradeoff experiments/cifar10_narrow.py
Cost:     15.3 and 15.8 core-minutes (0.26 core-hours) for each training, by `jaxrobust bench throughput`,
          and 7 to 10 minutes of both cores for each AutoAttack. 2 h 13 min for everything, partly
          beside much other work.
Result:   experiments/results/cifar10_narrow.json; `python experiments/one_step_figure.py` prints them.
          Means of three seeds ± standard deviation, clean / AutoAttack: N-FGSM 57.2 ±0.5 / 30.5 ±0.5,
          TRADES-10 50.3 ±1.7 / 25.4 ±0.4.
"""

from dataclasses import replace

from jaxrobust.experiment import Experiment, Tradeoff, load, use

EPS = 8 / 255
EPOCHS = {"N-FGSM": 7, "TRADES-10": 2}
small = load("cifar10_one_step")
assert isinstance(small, Tradeoff)


def narrow(member: Experiment) -> Experiment:
    """A method of the comparison of small networks, on all images; its ramp ends with its epochs."""
    epochs = EPOCHS[member.name]
    return replace(
        member,
        data=use("tfds", name="cifar10", train_split="train[:50000]", test_split="test[:1000]"),
        model=use(
            "preact_resnet18",
            width=8,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2471, 0.2435, 0.2616),
        ),
        learning_rate=use("cosine", peak=0.1, warmup_epochs=0.25),
        epochs=epochs,
        schedules={"threat.eps": use("linear", start=0.0, end=EPS, to_epoch=epochs / 3)},
        validation=replace(member.validation, every=epochs),
    )


config = replace(
    small,
    name="cifar10_narrow",
    evaluators=(use("autoattack", norm="linf", eps=EPS),),
    members=tuple(narrow(member) for member in small.members if member.name in EPOCHS),
)
