"""As much of PyTorch's interface as the benchmark's side asks for, over bytes in RAM: it shows that
both sides understand each other, and measures nothing."""

import math

__version__ = "stand-in"
float16, bfloat16, uint8 = ("f16", 2), ("bf16", 2), ("u8", 1)


class device:
    def __init__(self, kind, index=0):
        self.kind, self.index = kind, index


class version:
    cuda = None


class Storage:
    def __init__(self, data, on):
        self.data, self.is_there = data, isinstance(on, device)
        cuda.allocated += len(data) * self.is_there

    def __del__(self):
        cuda.allocated -= len(self.data) * self.is_there


class Tensor:
    def __init__(self, shape, dtype, storage):
        self.shape, self.dtype, self.storage = list(shape), dtype, storage

    def view(self, to):
        if to == -1:
            return Tensor([math.prod(self.shape)], self.dtype, self.storage)
        return Tensor([len(self.storage.data) // to[1]], to, self.storage)

    def copy_(self, other, non_blocking=False):
        assert self.shape == other.shape and self.dtype == other.dtype
        self.storage.data[:] = other.storage.data

    def pin_memory(self):
        return Tensor(self.shape, self.dtype, Storage(bytearray(self.storage.data), "cpu"))


def empty(shape, dtype=uint8, device="cpu"):
    shape = [shape] if isinstance(shape, int) else shape
    return Tensor(shape, dtype, Storage(bytearray(math.prod(shape) * dtype[1]), device))


def frombuffer(data, dtype):
    return Tensor([len(data) // dtype[1]], dtype, Storage(data, "cpu"))


class nn:
    def Parameter(tensor, requires_grad=True):
        assert not requires_grad
        return tensor

    class Module:
        def __init__(self):
            self.parameters = {}

        def register_parameter(self, name, parameter):
            assert "." not in name
            self.parameters[name] = parameter

        def to(self, on):
            for parameter in self.parameters.values():
                parameter.storage = Storage(bytearray(parameter.storage.data), on)


class cuda:
    allocated = 0

    def set_device(to):
        if to.index > 0:
            raise RuntimeError("invalid device ordinal")

    def get_device_name(of):
        return "RAM"

    def synchronize():
        pass

    def empty_cache():
        pass

    def memory_allocated():
        return cuda.allocated
