"""Trains an experiment and logs its epochs: python train.py FILE FOLDER."""

import sys

from jaxrobust.experiment import load
from jaxrobust.training import train


def listen(step, row):
    with open("log.csv", "a") as log:
        print(step, row["loss"], sep=",", file=log)


if __name__ == "__main__":
    train(load(sys.argv[1]), sys.argv[2], on_metrics=listen)
