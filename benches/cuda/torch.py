"""What PyTorch does with the same files: one JSON request a line, one JSON answer a line."""

import gc
import json
import struct
import sys
import time


def answer(**fields):
    print(json.dumps(fields), flush=True)


def read(torch, path):
    """The tensors of a safetensors file, in its order, in memory of their own."""
    dtypes = {"F16": torch.float16, "BF16": torch.bfloat16}
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        for info in header.values():
            begin, end = info["data_offsets"]
            file.seek(8 + length + begin)
            raw = torch.frombuffer(bytearray(file.read(end - begin)), dtype=torch.uint8)
            tensor = torch.empty(info["shape"], dtype=dtypes[info["dtype"]])
            tensor.view(-1).view(torch.uint8).copy_(raw)
            yield tensor


class Moved:
    """Modules that go to the device and come back."""

    def __init__(self, torch, device, files):
        self.device = device
        self.modules = []
        for path in files:
            module = torch.nn.Module()
            for number, tensor in enumerate(read(torch, path)):
                parameter = torch.nn.Parameter(tensor, requires_grad=False)
                module.register_parameter(f"p{number}", parameter)
            self.modules.append(module)

    def load(self):
        for module in self.modules:
            module.to(self.device)

    def unload(self):
        for module in self.modules:
            module.to("cpu")


class Kept:
    """A state dict that stays on the CPU, pageable or page-locked, and is copied in."""

    def __init__(self, torch, device, files, pinned):
        self.torch = torch
        self.device = device
        tensors = (tensor for path in files for tensor in read(torch, path))
        self.host = [tensor.pin_memory() if pinned else tensor for tensor in tensors]
        self.there = []

    def load(self):
        for tensor in self.host:
            there = self.torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device)
            there.copy_(tensor, non_blocking=True)
            self.there.append(there)

    def unload(self):
        self.there.clear()


def measured(torch, scheme, give_back):
    gc.collect()
    torch.cuda.synchronize()
    began = time.perf_counter()
    scheme.load()
    torch.cuda.synchronize()
    loaded = time.perf_counter()
    allocated = torch.cuda.memory_allocated()
    freeing = time.perf_counter()
    scheme.unload()
    if give_back:
        torch.cuda.empty_cache()
    torch.cuda.synchronize()
    freed = time.perf_counter()
    return {
        "load_s": loaded - began,
        "unload_s": freed - freeing,
        "allocated": allocated,
        "left": torch.cuda.memory_allocated(),
    }


def prepared(torch, device, request):
    if request["scheme"] == "to":
        return Moved(torch, device, request["files"])
    return Kept(torch, device, request["files"], request["scheme"] == "pinned")


def main():
    try:
        import torch
    except Exception as error:
        return answer(error=f"torch cannot be imported: {error}")
    try:
        device = torch.device("cuda", int(sys.argv[1]))
        torch.cuda.set_device(device)
        torch.empty(1, device=device)
        torch.cuda.empty_cache()
        name = torch.cuda.get_device_name(device)
    except Exception as error:
        return answer(error=f"torch {torch.__version__} has no such device: {error}")
    answer(torch=torch.__version__, cuda=torch.version.cuda, device=name)
    scheme = None
    for line in sys.stdin:
        try:
            request = json.loads(line)
            if request["do"] == "round":
                answer(**measured(torch, scheme, request["give_back"]))
                continue
            # What was there goes before what comes.
            scheme = None
            gc.collect()
            torch.cuda.empty_cache()
            # Page-locked memory that is no longer used is kept by PyTorch otherwise.
            internal = getattr(torch, "_C", None)
            getattr(internal, "_host_emptyCache", lambda: None)()
            if request["do"] == "prepare":
                scheme = prepared(torch, device, request)
            answer(done=True)
        except Exception as error:
            answer(error=f"{type(error).__name__}: {error}")


main()
