#!/usr/bin/env python3
"""A server of numpy models in small: models come and go in a budget, requests make activations of
many sizes, and each request leaves a little behind. It marks its moments, so that `plimsoll compare`
and `check` measure it there:

    plimsoll compare -- python3 docs/tuning/server.py
    plimsoll check --baseline memory.json -- python3 docs/tuning/server.py
"""

import argparse
import os
import random
import socket

import numpy

MIB = 1 << 20


class Marks:
    """Tells moments to whoever measures this process, if anybody does."""

    def __init__(self):
        path = os.environ.get("PLIMSOLL_MARKS")
        self.socket = None
        if path:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(path)

    def tell(self, word):
        if self.socket:
            self.socket.sendall(word.encode() + b"\n")
            self.socket.recv(16)


def load(dice, name, layers):
    """Tensors as the layers of a model have them, by way of a staging buffer as loaders do."""
    model = {}
    for layer in range(layers):
        elements = dice.choice((1, 2, 4, 9, 16)) * MIB // 2
        staging = numpy.ones(elements, dtype=numpy.float32)
        model[f"{name}.{layer}"] = staging.astype(numpy.float16)
        del staging
    return model


def answer(dice, kept):
    """Activations that are let go of, and a record that stays for a while."""
    for _ in range(8):
        activation = numpy.ones(dice.randrange(MIB // 64, MIB // 2), dtype=numpy.float32)
        activation *= 2
    kept.append(bytes(dice.randrange(64, 4096)))
    del kept[:-500]


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ask.add_argument("--cycles", type=int, default=6, help="how often all models come and go")
    ask.add_argument("--models", type=int, default=4, help="how many models there are")
    ask.add_argument("--layers", type=int, default=24, help="tensors of a model, 1 to 16 MiB each")
    ask.add_argument("--requests", type=int, default=40, help="requests for each model loaded")
    ask = ask.parse_args()
    dice, kept, marks = random.Random(7), [], Marks()
    for _ in range(500):
        answer(dice, kept)
    marks.tell("baseline")
    for _ in range(ask.cycles):
        resident = []
        for number in range(ask.models):
            if len(resident) == 2:
                resident.pop(0)
            resident.append(load(dice, f"model{number}", ask.layers))
            for _ in range(ask.requests):
                answer(dice, kept)
        resident.clear()
        marks.tell("cycle")
    marks.tell("dropped")


main()
