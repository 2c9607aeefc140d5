#!/usr/bin/env python3
"""A model server in small: models of some 900 MB come and go, requests are answered, and each of
them leaves a small object behind. It ends with nothing loaded, says what it holds and what is
resident, and waits: `plimsoll inspect PID`.

    python3 docs/diagnose/server.py            as it comes
    python3 docs/diagnose/server.py --trim     with malloc_trim(0) after each unload
    python3 docs/diagnose/server.py --climb    a new version of the model every few seconds, each a
                                               little larger, with requests while it loads; see oom.sh
"""

import argparse
import ctypes
import os
import random
import sys
import time

MIB = 1 << 20


class Model:
    """Tensors of 1 to 28 MiB, as the layers of a model have them."""

    def __init__(self, dice, scale):
        sizes = [dice.choice((1, 4, 9, 16, 28)) * MIB for _ in range(80 // scale)]
        self.tensors = {f"layer.{n}.weight": bytearray(b"w") * size for n, size in enumerate(sizes)}

    def bytes(self):
        return sum(len(tensor) for tensor in self.tensors.values())


def answer(dice, sessions):
    """An activation that is let go of, and a prompt that is kept."""
    activation = bytearray(b"a") * dice.randrange(MIB // 4, 2 * MIB)
    sessions.append("What does this sentence mean? " * dice.randrange(200, 600))
    del activation


def climb(dice, scale, sessions):
    """Versions of a model, each 3 % larger than the last, of which one is loaded at a time."""
    sizes = [dice.choice((4, 9, 16, 22)) * MIB for _ in range(80 // scale)]
    for version in range(1, 9):
        tensors = []
        for size in sizes:
            tensors.append(bytearray(b"w") * int(size * 1.03**version))
            # What a request keeps: a page of its cache of keys and values.
            sessions.extend(bytearray(b"k") * (MIB // 9) for _ in range(2))
            time.sleep(4 / len(sizes))
        loaded = sum(len(tensor) for tensor in tensors)
        del tensors
        print(
            f"version {version}: {loaded / MIB:.0f} MiB, served and unloaded; "
            f"{resident() / MIB:.0f} MiB is resident",
            flush=True,
        )
        time.sleep(2)


def resident():
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ask.add_argument("--trim", action="store_true", help="call malloc_trim(0) after each unload")
    ask.add_argument("--climb", action="store_true", help="load version after version")
    ask.add_argument("--scale", type=int, default=1, help="divide the size of models by this")
    ask.add_argument("--machine", action="store_true", help="say `name number` lines and `ready`")
    ask = ask.parse_args()
    dice, sessions = random.Random(7), []
    if ask.climb:
        return climb(dice, ask.scale, sessions)
    for _ in range(4):
        model = Model(dice, ask.scale)
        for _ in range(200):
            answer(dice, sessions)
        loaded = model.bytes()
        del model
        if ask.trim:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
    kept = sum(sys.getsizeof(session) for session in sessions)
    if ask.machine:
        print(f"pid {os.getpid()}\nkept {kept}\nresident {resident()}\nready", flush=True)
    else:
        print(f"the last model had {loaded / MIB:.0f} MiB, and is unloaded")
        print(f"{len(sessions)} sessions hold {kept / MIB:.1f} MiB; {resident() / MIB:.0f} MiB is resident")
        print(f"plimsoll inspect {os.getpid()}", flush=True)
    sys.stdin.read()


main()
