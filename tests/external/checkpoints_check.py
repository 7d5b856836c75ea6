#!/usr/bin/env python3
"""checkpoints_check.py CKPT2SAFETENSORS: checkpoints that PyTorch itself wrote, converted.

Every object of a long list is saved beside weights, in every pickle protocol and in both of torch.save's formats: the
weights must come out to the bit, and nothing may be executed. Then weights are saved under any key, in modules, behind
prefixes, as views, and in archives that were zipped again. Without PyTorch it prints so and passes.
"""
import argparse
import collections
import datetime
import decimal
import enum
import fractions
import io
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import uuid
import warnings
import zipfile

sys.dont_write_bytecode = True
try:
    import numpy as np
    import torch
    from torch import nn
except ImportError as missing:
    print(f"checkpoints_check: skipped: {missing}")
    sys.exit(0)

warnings.simplefilter("ignore")
failures = checks = 0


class Color(enum.Enum):
    RED = 1


class Dict(dict):
    pass


class Ordered(collections.OrderedDict):
    pass


class List(list):
    pass


class Command:
    def __reduce_ex__(self, protocol):
        return os.system, ("echo EXECUTED >&2",)


class Keywords:
    def __new__(cls, *args, **keywords):
        return object.__new__(cls)

    def __getnewargs_ex__(self):
        return (1,), {"x": 2}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm1d(4)
        self.list = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 3)])
        self.register_buffer("table", torch.arange(3.0))
        self.register_buffer("nothing", None)


def tensors_of(path):
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    begin = 8 + size
    return {k: (v["shape"], data[begin + v["data_offsets"][0]:begin + v["data_offsets"][1]]) for k, v in header.items()}


def bytes_of(tensor):
    tensor = tensor.detach().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy().tobytes()


class Check:
    def __init__(self, converter, folder):
        self.converter, self.path, self.out = converter, f"{folder}/a.ckpt", f"{folder}/a.safetensors"

    def run(self, *options):
        if os.path.exists(self.out):
            os.remove(self.out)
        r = subprocess.run([self.converter, *options, self.path, self.out], capture_output=True, timeout=60)
        return r.returncode, r.stderr.decode("utf8", "replace")

    def report(self, name, problem, message):
        global failures, checks
        checks += 1
        if problem:
            failures += 1
            print(f"FAIL checkpoints_check: {name}: {problem}: {message.strip()[-300:]}")

    def gives(self, name, wanted, *options):
        """The file is converted to exactly these tensors."""
        status, message = self.run(*options)
        problem = f"exit {status}" if status else "it was executed" if "EXECUTED" in message else ""
        if not problem:
            got = tensors_of(self.out)
            if set(got) != set(wanted):
                problem = f"got {sorted(got)[:4]}…, wanted {sorted(wanted)[:4]}…"
            for key in set(got) & set(wanted):
                if got[key] != (list(wanted[key].shape), bytes_of(wanted[key])):
                    problem = f"other values of {key}"
        self.report(name, problem, message)

    def refuses(self, name, *words, options=()):
        status, message = self.run(*options)
        problem = f"exit {status}" if status != 1 else "it wrote a file" if os.path.exists(self.out) else ""
        for word in words:
            if word not in message:
                problem = f"the message lacks {word}"
        self.report(name, problem, message)

    def save(self, thing, **options):
        torch.save(thing, self.path, **options)

    def zip_again(self, method=zipfile.ZIP_DEFLATED, rename=lambda name: name, first=()):
        with open(self.path, "rb") as f:
            before = io.BytesIO(f.read())
        with zipfile.ZipFile(before) as old, zipfile.ZipFile(self.path, "w", method) as new:
            for name in first:
                new.writestr(name, b"")
            for entry in old.infolist():
                new.writestr(rename(entry.filename), old.read(entry))


def things():
    """What people keep beside the weights."""
    complex_ones = torch.ones(2, dtype=torch.cfloat)
    return {
        "scalar of NumPy": np.float64(1.5), "integer of NumPy": np.int64(3), "truth of NumPy": np.bool_(True),
        "array": np.zeros((2, 3)), "array of objects": np.array([{"a": 1}, None], dtype=object),
        "array of strings": np.array(["a", "b"]), "records": np.zeros(3, dtype=[("a", "f4"), ("b", "i8")]),
        "date of NumPy": np.datetime64("2020-01-01"), "dtype of NumPy": np.dtype("f4"),
        "RandomState": np.random.RandomState(0), "Generator": np.random.default_rng(0), "state": np.random.get_state(),
        "state of random": random.getstate(), "Random": random.Random(3), "path": pathlib.PosixPath("/a/b"),
        "Namespace": argparse.Namespace(a=1, b=[2]), "enum": Color.RED, "time": datetime.datetime.now(),
        "duration": datetime.timedelta(3), "zone": datetime.timezone.utc, "decimal": decimal.Decimal("1.5"),
        "fraction": fractions.Fraction(1, 3), "uuid": uuid.uuid4(), "defaultdict": collections.defaultdict(list, a=[1]),
        "Counter": collections.Counter("abca"), "deque": collections.deque([1, 2]), "subclasses":
        (Dict(a=1), Ordered(b=2), List([3])), "complex number": 1 + 2j, "large integers": (1 << 200, -(1 << 100)),
        "bytes": b"abc" * 100, "bytearray": bytearray(b"xyz"), "sets": ({1, (2, 3)}, frozenset([4])), "slice": slice(1, 2),
        "range": range(3), "ellipsis": Ellipsis, "function": os.path.join, "built-in": len, "class": nn.Linear,
        "device": torch.device("cuda:0"), "dtype": torch.float16, "Size": torch.Size([1, 2]), "layout": torch.strided,
        "random state": torch.get_rng_state(), "keys": {(1, 2): 3, Color.RED: 4, frozenset([1]): 5, 1.5: 6},
        "keywords": Keywords(), "command": Command(), "exception": ValueError("x"), "long string": "x" * 100000,
        "other letters": "äöü\n\\\u2028", "numbers": [0.5 * i for i in range(1000)], "no numbers": float("nan"),
        "sparse": torch.eye(3).to_sparse(), "sparse rows": torch.eye(3).to_sparse_csr(),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "complex": complex_ones,
        "conjugated": complex_ones.conj(), "negated": complex_ones.conj().imag, "meta": torch.ones(3, device="meta"),
        "parameter": nn.Parameter(torch.ones(2)), "module": Net(), "12 dimensions": torch.zeros([1] * 12),
    }


def beside(check):
    weights = Net().state_dict()
    for name, thing in things().items():
        for protocol in (1, 2, 3, 4, 5):
            for zipped in (True, False):
                try:
                    more = [] if isinstance(thing, nn.Module) else [thing, thing]  # a module is a set of weights
                    check.save({"epoch": 1, "hyper_parameters": {"x": thing}, "x": more, "state_dict": weights},
                               pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
                except Exception:  # not every protocol can hold every object
                    continue
                check.gives(f"{name}, protocol {protocol}, {'zip' if zipped else 'old'}", weights)


def where(check):
    net = Net()
    optimizer = torch.optim.Adam(net.parameters())
    sum(p.sum() for p in net.parameters()).backward()
    optimizer.step()
    weights, other = net.state_dict(), {k: v + 1 for k, v in net.state_dict().items()}
    parts = {"model.diffusion_model.a.weight": torch.ones(2), "first_stage_model.b": torch.zeros(1)}
    forms = {"a dictionary": weights, "Lightning's": {"state_dict": weights, "optimizer_states": [optimizer.state_dict()]},
             "an optimizer's object": {"model": weights, "optimizer": optimizer}, "a pair": (weights, 3), "a module": net,
             "deep": {"a": {"b": [{"c": weights}]}}, "a module in a dictionary": {"ema": net, "step": torch.tensor(3)},
             "a subclass": Dict(weights), "a namespace": argparse.Namespace(model=weights), "DataParallel": nn.DataParallel(net)}
    for name, form in forms.items():
        for zipped in (True, False):
            check.save(form, _use_new_zipfile_serialization=zipped)
            check.gives(name, weights)
    check.save(torch.optim.swa_utils.AveragedModel(net).state_dict())
    check.gives("AveragedModel", {**weights, "n_averaged": torch.tensor(0)})
    check.save({"generator": dict(weights), "critic": other})
    check.refuses("two sets", "'generator' (12 tensors", "'critic' (12 tensors", "--key")
    check.gives("--key", other, "--key", "critic")
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_forward_module.", "student."):
        check.save({"state_dict": {prefix + k: v for k, v in parts.items()}})
        check.gives("prefix " + prefix, parts)
    for name, thing in things().items():
        if name in ("sparse", "sparse rows", "quantised", "complex", "conjugated", "meta", "12 dimensions", "array", "command"):
            check.save({"state_dict": {**weights, "x.weight": thing}})
            check.refuses(name + " where written", "x.weight")
            check.gives(name + " left out", weights, "--without", "x.*")


def archives(check):
    base = torch.arange(24.0).reshape(2, 3, 4)
    views = {"v.a": base.transpose(0, 2), "v.b": base[:, 1], "v.c": base.expand(5, 2, 3, 4), "v.d": base[1, 2, 3],
             "v.e": base[0:0], "v.f": base.permute(2, 0, 1)[1:, :, ::2], "v.g": base.bool(), "v.h": base.half(),
             "v.i": base.bfloat16(), "v.j": base.double(), "v.k": base.short()}
    for zipped in (True, False):
        check.save(views, _use_new_zipfile_serialization=zipped)
        check.gives("views", views)
    for name, change in {"deflated": {}, "another folder": {"rename": lambda n: "my model/" + n},
                         "no folder": {"rename": lambda n: n.split("/", 1)[1]},
                         "of macOS": {"first": ("a/", "__MACOSX/a/._data.pkl", "__MACOSX/data.pkl")}}.items():
        check.save(views)
        check.zip_again(**change)
        check.gives(name, views)
    check.save(views)
    check.zip_again(zipfile.ZIP_BZIP2)
    check.refuses("bzip2", "method 12")
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), check.path)
    check.refuses("TorchScript", "TorchScript")
    check.save({"a.weight": torch.ones(100000)})
    with open(check.path, "r+b") as f:
        f.truncate(200000)
    check.refuses("cut short", "cut short", "got 200000 bytes, wanted at least 400000")


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: checkpoints_check.py CKPT2SAFETENSORS")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        check = Check(os.path.abspath(sys.argv[1]), folder)
        beside(check)
        where(check)
        archives(check)
    print(f"checkpoints_check: PyTorch {torch.__version__}: {checks - failures} passed, {failures} failed")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
