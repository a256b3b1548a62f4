"""Own parts, and a network in NNX."""

from shapes import networks, noise, parts

from jaxrobust.experiment import Evaluation, Experiment, Validation, use

config = Experiment(
    name="own_nnx",
    data=use(parts.shapes),
    model=use(networks.NnxNet),
    objective=use(parts.Pairing, steps=3),
    threat=use("compose", use(parts.brightness, eps=0.1), use("linf", eps=0.05)),
    augment=(use(parts.upside_down, p=0.25),),
    optimizer=use("chain", use("clip_by_global_norm", 1.0), use(parts.nadam)),
    learning_rate=use("cosine", peak=0.02),
    schedules={"objective.weight": use("linear_schedule", 0.0, 0.5, transition_steps=40)},
    validation=Validation(size=64, steps=3),
    evaluation=Evaluation(steps=5),
    evaluators=(use(noise.Noise, sigmas=(0.05, 0.1, 0.2)),),
    epochs=12,
    batch_size=64,
)
