#!/usr/bin/env python3
"""A server of models in small whose memory is gated in CI, as docs/ci.md shows: 24 models of 4 MiB in
a budget of 80 MiB, requests that make activations and begin sessions, everything dropped after each
cycle. It needs nothing but Python, and marks its moments:

    plimsoll check --baseline memory.json --update -- python3 docs/ci/server.py
    plimsoll check --baseline memory.json -- python3 docs/ci/server.py

PLANT plants one of the regressions that such a gate is for:

    leak         of the bytes that a cycle loads, 0.1 % are never let go of
    survivor     one object of 600 bytes survives each load, between the tensors of a model
    threshold    malloc's mmap threshold is not set any more, and rises by itself
    over-budget  the budget is 5 % too large
"""

import ctypes
import os
import random
import socket
import sys
from collections import OrderedDict, deque

KIB, MIB = 1 << 10, 1 << 20
MODELS, MODEL, ROOM = 24, 4 * MIB, 20
CYCLES, REQUESTS, SESSIONS = 12, 4, 16
M_MMAP_THRESHOLD = -3
PLANTS = ("", "leak", "survivor", "threshold", "over-budget")


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


class Cache:
    """Models by name, the one that was not used for longest going first."""

    def __init__(self, budget, plant):
        self.budget, self.plant = budget, plant
        self.models, self.used = OrderedDict(), 0
        self.leaked, self.survivors = [], []

    def get(self, name, sizes):
        if name not in self.models:
            while self.used + sum(sizes) > self.budget:
                self.used -= sum(map(len, self.models.popitem(last=False)[1]))
            self.models[name] = self.load(sizes)
            self.used += sum(sizes)
        self.models.move_to_end(name)
        return self.models[name]

    def load(self, sizes):
        """By way of a staging buffer for each tensor, as loaders do."""
        tensors = []
        for size in sizes:
            staging = bytearray(b"w") * size
            tensors.append(bytearray(staging))
            del staging
            if self.plant == "survivor" and len(tensors) == 1:
                self.survivors.append(bytearray(600))
        if self.plant == "leak":
            self.leaked.append(bytearray(sum(sizes) // 1000))
        return tensors

    def clear(self):
        self.models.clear()
        self.used = 0


def layers(dice):
    """Sizes of the tensors of a model: norms, projections, and here and there a large one."""
    sizes, rest = [], MODEL
    while rest:
        sizes.append(min(dice.choice((16, 64, 128, 256, 512)) * KIB, rest))
        rest -= sizes[-1]
    return sizes


def answer(dice, sessions, weights):
    """Activations that are let go of, and a session that stays for a while."""
    for _ in range(2):
        activation = bytearray(b"a") * dice.randrange(16 * KIB, 512 * KIB)
        common = min(len(activation), len(weights))
        activation[:common] = memoryview(weights)[:common]
    sessions.append(bytearray(b"k") * (256 * KIB))


def main():
    plant = os.environ.get("PLANT", "")
    if plant not in PLANTS:
        sys.exit(f"PLANT is {plant!r}, and it is one of {', '.join(PLANTS[1:])}")
    if plant != "threshold":
        # glibc-mmap-128k: larger blocks go back to the system the moment they are freed.
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 * KIB)
    dice, sessions, marks = random.Random(7), deque(maxlen=SESSIONS), Marks()
    models = [layers(dice) for _ in range(MODELS)]
    cache = Cache(ROOM * MODEL * (105 if plant == "over-budget" else 100) // 100, plant)
    for _ in range(2 * SESSIONS):
        answer(dice, sessions, b"")
    marks.tell("baseline")
    for _ in range(CYCLES):
        for name, sizes in enumerate(models):
            tensors = cache.get(name, sizes)
            for request in range(REQUESTS):
                answer(dice, sessions, tensors[request % len(tensors)])
            del tensors
        cache.clear()
        marks.tell("cycle")
    marks.tell("dropped")


main()
