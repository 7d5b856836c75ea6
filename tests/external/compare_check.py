#!/usr/bin/env python3
"""bin/compare on the authors' own tensors: flis' trace of tinyB is compared with tests/golden/tinyunet_B_16, made by PyTorch,
every tensor of that file, without a layout and with both layouts, at t = 981, 500 and 1; profile f32.

    compare_check.py FLIS SYNTH COMPARE

Not part of `make check`. Needs no Python packages."""
import json
import os
import struct
import subprocess
import sys
import tempfile

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "tinyunet_B_16.safetensors")


def read(path):
    data = open(path, "rb").read()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {k: (v["dtype"], v["shape"], data[8 + length + v["data_offsets"][0]:8 + length + v["data_offsets"][1]])
            for k, v in header.items()}


def write(path, tensors):
    header, body = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(values)]}
        body += values
    text = json.dumps(header).encode()
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + body)


def main():
    flis, synth, compare = (os.path.abspath(p) for p in sys.argv[1:4])
    golden = read(GOLDEN)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        at = lambda name: os.path.join(folder, name)
        subprocess.check_call([synth, "tinyB", at("model.safetensors")])
        for case in ("plain", "boat", "mix"):
            for t in (981, 500, 1):
                inputs = {"x": golden["in.x"], "context": golden["in.context"], "t": ("F32", [1], struct.pack("<f", t))}
                if case != "plain":
                    inputs["label"], inputs["class_ids"] = golden["in.label512"], golden["in.class_ids." + case]
                write(at("in.st"), inputs)
                subprocess.check_call([flis, "stage", "unet", "-m", at("model.safetensors"), "-i", at("in.st"), "-o", at("out.st"),
                                       "--trace-match", "*", "-q"])
                prefix = "%s.t%d." % (case, t)
                write(at("ref.st"), {k[len(prefix):]: v for k, v in golden.items() if k.startswith(prefix)})
                run = subprocess.run([compare, at("ref.st"), at("out.st")], stdout=subprocess.PIPE, universal_newlines=True)
                print("%s t %d: %s" % (case, t, run.stdout.strip().splitlines()[-1]))
                if run.returncode:
                    print(run.stdout)
                    wrong += 1
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
