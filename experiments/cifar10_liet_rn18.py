"""LIET on CIFAR-10 with ResNet-18: one attack step, as in the FastAT benchmark.

eps is 8/255. The recipe of cifar10_n_fgsm_rn18 with LIET's objective: random label smoothing of 0.6,
label information renewed every 20 steps, and a weight of the divergence that rises by 1 with every
epoch, from 1 to 100. CIFAR-100 has smoothing 0.8 and twice the weight.

Command:  jaxrobust train cifar10_liet_rn18
          jaxrobust evaluate runs/cifar10_liet_rn18 --attack autoattack --norm linf --eps 8/255
Cost:     about 0.15 accelerator hours, estimated from the passes of the network at 100 TFLOP/s
          sustained (a third of an A100's bfloat16 peak); not measured. The benchmark took 2,605 seconds.
Result:   published (mean of three seeds): clean 80.68, AutoAttack 49.99.
"""

from jaxrobust.experiment import Experiment, load, replace, use

recipe = load("cifar10_n_fgsm_rn18")
assert isinstance(recipe, Experiment)
rising = [(epoch, epoch + 1.0) for epoch in range(recipe.epochs)]
config = replace(
    recipe,
    name="cifar10_liet_rn18",
    objective=use("liet", label_smoothing=0.6),
    schedules=recipe.schedules | {"objective.lam": use("stages", values=rising)},
    published={"clean": 80.68, "autoattack": 49.99},
)
