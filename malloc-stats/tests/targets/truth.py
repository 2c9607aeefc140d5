"""CPython that tells its own truth of malloc, in one line of JSON, and waits.

Commands on standard input, a line each: again, trim, exit. The numbers are taken until they are
the same before and after the line was made, so the line changes nothing it tells.
"""

import ctypes
import gc
import json
import os
import sys

try:
    import numpy
except ImportError:
    numpy = None

FIELDS = (
    "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
)


class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


libc = ctypes.CDLL(None)
libc.gnu_get_libc_version.restype = ctypes.c_char_p
VERSION = libc.gnu_get_libc_version().decode()
try:
    mallinfo2 = libc.mallinfo2
except AttributeError:
    # glibc 2.32 or older: mallinfo counts modulo 2**32, which would be no truth.
    print(json.dumps({"skipped": f"glibc {VERSION} has no mallinfo2"}), flush=True)
    sys.exit(0)
mallinfo2.restype = Mallinfo2


def array(size):
    return numpy.ones(size, dtype=numpy.uint8) if numpy else bytearray(size)


def fill():
    """What loads and frees models leaves: arrays, lists and dicts, some of each gone."""
    kept = [array(size) for size in range(100, 40_000, 700)]
    gone = [array(size) for size in range(150, 100_000, 900)]
    big = [array(24 << 20), array(3 << 20), array(300_000)]
    tables = [{str(key): [key] * 40 for key in range(size)} for size in range(10, 2_000, 90)]
    texts = ["x" * size for size in range(600, 30_000, 410)]
    del gone[::3], big[0], tables[::2], texts[1::2]
    # The threshold has risen: this one lies in the heap now.
    big.append(array(20 << 20))
    return kept, gone, big, tables, texts


def take():
    info = mallinfo2()
    return {name: getattr(info, name) for name in FIELDS}


def tell(sequence):
    for _ in range(50):
        before = take()
        line = json.dumps(
            {
                "pid": os.getpid(),
                "version": VERSION,
                "sequence": sequence,
                "numpy": numpy.__version__ if numpy else None,
                "mallinfo": before,
            }
        )
        line = (line + "\n").encode()
        if take() == before:
            os.write(1, line)
            return
    sys.exit("the numbers never hold still")


def anonymous():
    with open("/proc/self/smaps_rollup", "rb", buffering=0) as file:
        for line in file.read().splitlines():
            if line.startswith(b"Anonymous:"):
                return int(line.split()[1]) << 10
    sys.exit("no Anonymous in /proc/self/smaps_rollup")


def trim():
    before = anonymous()
    returned = libc.malloc_trim(0)
    answer = {
        "returned": returned,
        "anonymous_before": before,
        "anonymous_after": anonymous(),
    }
    os.write(1, (json.dumps(answer) + "\n").encode())


held = fill()
gc.collect()
gc.disable()
sequence = 0
tell(sequence)
while True:
    command = os.read(0, 64)
    if command == b"again\n":
        sequence += 1
        tell(sequence)
    elif command == b"trim\n":
        trim()
    else:
        break
