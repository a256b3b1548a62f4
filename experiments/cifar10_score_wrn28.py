"""SCORE on CIFAR-10 with a million generated images, WRN-28-10: the published recipe.

eps is 8/255. Batches of 512 hold 358 generated and 154 labelled images; 98 steps count as an epoch,
400 epochs. The attack runs on batch statistics, which it does not move. OneCycle also cycles the
momentum (0.95, 0.85, 0.95). The evaluated parameters are an average with decay 0.995 that starts
after 2.5 % of the training and uses the live running statistics. No weight decay on batch norm.
beta is 3 as in the released checkpoints (the README's command has 4). One particular is left out:
the authors' first step sets the running statistics to the batch's.

The generated images (1,000,000 of a DDPM, `image` and `label` in one npz) are published by the
authors of Rebuffi et al.; put the path into `generated`.

Command:  jaxrobust train cifar10_score_wrn28 --set generated.path=/data/1m.npz
          jaxrobust evaluate runs/cifar10_score_wrn28 --attack autoattack --norm linf --eps 8/255
Cost:     about 14 accelerator hours, estimated from the passes of the network at 100 TFLOP/s sustained
          (a third of an A100's bfloat16 peak); not measured.
Result:   published: clean 88.61, AutoAttack 61.04.
"""

from jaxrobust.experiment import Evaluation, Experiment, Validation, use

config = Experiment(
    name="cifar10_score_wrn28",
    data=use("cifar10"),
    generated=use("generated", path="cifar10_ddpm.npz", fraction=0.7),
    model=use(
        "wide_resnet",
        depth=28,
        width=10,
        activation="silu",
        padding="same",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2471, 0.2435, 0.2616),
        bn_momentum=0.99,
    ),
    objective=use("score", beta=3.0, steps=10, step_size=2 / 255),
    threat=use("linf", eps=8 / 255),
    optimizer=use("sgd", momentum=0.9, nesterov=True),
    learning_rate=use("one_cycle", peak=0.2),
    schedules={"optimizer.momentum": use("one_cycle", peak=0.85, start=0.95, end=0.95)},
    weight_decay=5e-4,
    decayed="no_norm",
    epochs=400,
    batch_size=512,
    augment=(use("pad_crop", pad=4), use("flip")),
    ema_decay=0.995,
    ema_warmup=0.025,
    validation=Validation(size=1024, steps=40),
    evaluation=Evaluation(steps=20, step_size=2 / 255),
    published={"clean": 88.61, "autoattack": 61.04},
)
