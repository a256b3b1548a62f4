"""N-FGSM on CIFAR-10 with ResNet-18: one attack step, as in the FastAT benchmark.

eps is 8/255. 100 epochs, label smoothing 0.4 in attack and loss, OneCycle per epoch with its peak at
30 % (it also cycles the momentum), and an average of the weights and running statistics that starts
after the first step. The benchmark evaluates the better of the live and the averaged network on 1,000
held-out training images; this file evaluates the average, and holds out as many.

Command:  jaxrobust train cifar10_n_fgsm_rn18
          jaxrobust evaluate runs/cifar10_n_fgsm_rn18 --attack autoattack --norm linf --eps 8/255
Cost:     about 0.1 accelerator hours, estimated from the passes of the network at 100 TFLOP/s sustained
          (a third of an A100's bfloat16 peak); not measured. The benchmark took 1,941 seconds.
Result:   published (mean of three seeds): clean 78.59, AutoAttack 47.77.
"""

from jaxrobust.experiment import Evaluation, Experiment, Validation, use

config = Experiment(
    name="cifar10_n_fgsm_rn18",
    data=use("cifar10"),
    model=use("resnet18", mean=(0.4914, 0.4822, 0.4465), std=(0.2471, 0.2435, 0.2616)),
    objective=use("n_fgsm", noise=2.0, label_smoothing=0.4),
    threat=use("linf", eps=8 / 255),
    optimizer=use("sgd", momentum=0.9),
    learning_rate=use("one_cycle", peak=0.1, warmup=0.3),
    schedules={"optimizer.momentum": use("one_cycle", peak=0.85, start=0.95, end=0.95, warmup=0.3)},
    weight_decay=5e-4,
    epochs=100,
    batch_size=128,
    augment=(use("pad_crop", pad=4), use("flip")),
    ema_decay=0.9995,
    ema_copied_steps=1,
    ema_batch_stats="average",
    validation=Validation(size=1000, steps=10),
    evaluation=Evaluation(steps=20, step_size=2 / 255),
    published={"clean": 78.59, "autoattack": 47.77},
)
