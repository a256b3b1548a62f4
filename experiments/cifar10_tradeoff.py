"""The five papers on CIFAR-10 with PreActResNet-18: the trade-off in one report, three seeds.

For a GPU or a pod. One data set, network and budget, eps 8/255 (l_inf): ordinary training, PGD-AT and
TRADES; SCORE; MART and GAIRAT; CuSP (rotations and eps grow together); and Adaptive Smoothing, a
mixing network between the ordinary and the TRADES member. 30 epochs with half a cosine, bfloat16
computation, an average of the parameters. Each is judged by PGD-20 on cross-entropy and on the
margin, by the worst of a grid of rotations up to 30 degrees and shifts up to 3 pixels, by the
standard AutoAttack (l_inf 8/255 and l_2 0.5) on the first 1,000 test images, class by class, by how
its accuracy falls with eps, and, smoothed by noise, by certified l_2 radii. Without
`images=1000` it is the whole test set, at ten times the price of that part.

Command:  jaxrobust tradeoff cifar10_tradeoff
          Interrupted, it goes on when given again; nothing that is finished is done twice. --set
          reaches all members at once, and may only say what all of them have. To see it run on
          images that mean nothing:
          --set data=synthetic --set data.size=32 --set data.train=640 --set data.test=64
          --set validation.size=64 --set epochs=1 --set batch_size=64 --set evaluation.steps=2
          --set 'evaluation.spatial_grid=[1,1,3]'
          Seeds and evaluators are fields of the trade-off: fewer of them in a copy of this file,
          or --set tradeoff.seeds=[0].
Cost:     not run. About 4.5 accelerator hours, estimated from the passes of the network at 100 TFLOP/s
          sustained (a third of an A100's bfloat16 peak), 1.7 of them for the evaluations.
Result:   none: this has not been run.
"""

import runpy
from dataclasses import replace

from jaxrobust import curricula, shipped
from jaxrobust.experiment import (
    Evaluation,
    Experiment,
    Tradeoff,
    Validation,
    use,
)

papers = runpy.run_path(str(shipped.experiment("digits_tradeoff")))["papers"]
EPS, DEGREES, EPOCHS = 8 / 255, 30.0, 30
base = Experiment(
    name="standard",
    data=use("cifar10"),
    model=use(
        "preact_resnet18",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2471, 0.2435, 0.2616),
        dtype="bfloat16",
    ),
    objective=use("standard"),
    threat=use("linf", eps=EPS),
    optimizer=use("sgd", momentum=0.9, nesterov=True),
    learning_rate=use("cosine", peak=0.2, warmup_epochs=2),
    weight_decay=5e-4,
    epochs=EPOCHS,
    batch_size=256,
    augment=(use("pad_crop", pad=4), use("flip")),
    ema_decay=0.995,
    ema_warmup=0.1,
    validation=Validation(size=1024, every=5),
    evaluation=Evaluation(
        steps=20,
        step_size=2 / 255,
        spatial_degrees=DEGREES,
        spatial_shift_px=3.0,
        spatial_grid=(3, 3, 31),
    ),
)
cusp = curricula.staged(
    epochs=(0, 0.6 * EPOCHS, 0.75 * EPOCHS),
    threat__eps=(2 / 255, 4 / 255, EPS),
    transform__max_degrees=(20.0, 25.0, DEGREES),
)
mixture = replace(
    base,
    name="Adaptive Smoothing",
    model=use("mixed_classifier", std="member:standard", rob="member:TRADES"),
    objective=use("adaptive_smoothing", bce=1.0, ce=0.5, product=0.1, copies=8, steps=20),
    optimizer=use("adamw", weight_decay=1e-5),
    learning_rate=use("exponential_warmup", peak=1e-3),
    clip_norm=10.0,
    weight_decay=0.0,
    ema_decay=0.0,
    ema_warmup=None,
    epochs=5,
)
autoattack = use("autoattack", norm="linf", eps=EPS, images=1000)

config = Tradeoff(
    name="cifar10_tradeoff",
    seeds=(0, 1, 2),
    evaluators=(
        autoattack,
        use("autoattack", norm="l2", eps=0.5, images=1000),
        use("per_class", attack=autoattack),
        use("eps_curve", norm="linf", radii=[i / 255 for i in (2, 4, 6, 8, 10, 12)], images=1000),
        use("certified", sigma=0.12, samples=10_000, images=500, radii=(0.1, 0.25)),
    ),
    members=(
        *papers(base, cusp, steps=10, step_size=2 / 255),
        mixture,
    ),
)
