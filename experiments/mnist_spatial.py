"""Rotations against l_inf on MNIST with the P4CNN: one point of the spatial trade-off.

The published study trains at rotation ranges up to 180 degrees and at l_inf radii up to 0.3 (eps
in image units), for an ordinary network and for the rotation-equivariant one. This file is one
such run, +-60 degrees and eps 0.1; others:

    --set transform.max_degrees=180                 another rotation range
    --set threat.eps=0.3                            another radius
    --set model=std_cnn                             the ordinary network

Command:  jaxrobust train mnist_spatial
          jaxrobust evaluate runs/mnist_spatial --degrees 60
Cost:     about 0.05 accelerator hours, estimated from the passes of the network at 100 TFLOP/s
          sustained (a third of an A100's bfloat16 peak); not measured.
Result:   the paper's numbers were not available; the same matrix on digits is in
          experiments/results/digits_spatial.json.
"""

from jaxrobust.experiment import Evaluation, Experiment, Validation, use

config = Experiment(
    name="mnist_spatial",
    data=use("mnist"),
    model=use("group_cnn", group="p4"),
    objective=use("pgd_at", steps=10, step_size=0.025),
    threat=use("linf", eps=0.1),
    transform=use("spatial", max_degrees=60.0, max_shift_px=0.0),
    optimizer=use("sgd", momentum=0.9),
    learning_rate=use("cosine", peak=0.05, warmup_epochs=0.5),
    epochs=10,
    batch_size=128,
    validation=Validation(size=1000, every=2),
    evaluation=Evaluation(steps=40, spatial_degrees=60.0),
)
