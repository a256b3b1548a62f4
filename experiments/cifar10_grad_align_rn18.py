"""GradAlign on CIFAR-10 with ResNet-18: one attack step, as in the FastAT benchmark.

eps is 8/255. The recipe of cifar10_n_fgsm_rn18 with GradAlign's objective: a step of eps from the
clean image, weight 0.2 of the alignment, label smoothing 0.4 in the loss alone. The authors' own
recipe has 30 epochs, steps of 1.25 eps and no smoothing.

Command:  jaxrobust train cifar10_grad_align_rn18
          jaxrobust evaluate runs/cifar10_grad_align_rn18 --attack autoattack --norm linf --eps 8/255
Cost:     about 0.2 accelerator hours, estimated from the passes of the network at 100 TFLOP/s sustained
          (a third of an A100's bfloat16 peak); not measured. The benchmark took 5,612 seconds.
Result:   published (mean of three seeds): clean 79.39, AutoAttack 47.99.
"""

from jaxrobust.experiment import Experiment, load, replace, use

recipe = load("cifar10_n_fgsm_rn18")
assert isinstance(recipe, Experiment)
config = replace(
    recipe,
    name="cifar10_grad_align_rn18",
    objective=use("grad_align", lam=0.2, step_size=8 / 255, label_smoothing=0.4),
    published={"clean": 79.39, "autoattack": 47.99},
)
