"""HAT on CIFAR-10 with a million generated images, PreActResNet-18.

eps is 8/255. The data, averages and schedules of cifar10_score_wrn28, with batches of 1024 and a learning
rate up to 0.4; helper examples twice as far as the adversarial ones, labelled by a frozen network of
standard training. That network is trained first, by the first command.

The generated images (1,000,000 of a DDPM, `image` and `label` in one npz) are published by the
authors of Rebuffi et al.; put the path into `generated`.

Command:  jaxrobust train cifar10_hat_preact18 --set objective=standard --set helper=null --set generated=null --set epochs=50 --workdir runs/cifar10_hat_helper
          jaxrobust train cifar10_hat_preact18 --set generated.path=/data/1m.npz
          jaxrobust evaluate runs/cifar10_hat_preact18 --attack autoattack --norm linf --eps 8/255
Cost:     about 2 accelerator hours, estimated from the passes of the network at 100 TFLOP/s sustained
          (a third of an A100's bfloat16 peak); not measured.
Result:   published: clean 86.86, AutoAttack 57.09.
"""

from jaxrobust.experiment import Experiment, load, replace, use

recipe = load("cifar10_score_wrn28")
assert isinstance(recipe, Experiment)
config = replace(
    recipe,
    name="cifar10_hat_preact18",
    model=use(
        "preact_resnet18",
        activation="silu",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2471, 0.2435, 0.2616),
        bn_momentum=0.99,
    ),
    objective=use(
        "hat",
        h=2.0,
        beta=3.5,
        gamma=0.5,
        steps=10,
        step_size=2 / 255,
        label_smoothing=0.1,
        start="uniform",
        attack_statistics="batch",
    ),
    helper="runs/cifar10_hat_helper",
    learning_rate=use("one_cycle", peak=0.4),
    batch_size=1024,
    published={"clean": 86.86, "autoattack": 57.09},
)
