#!/usr/bin/env python3
"""truth.py FLIS64 SYNTH ORACLE [DIRECTORY]: flis64 against the authors' PyTorch code in float64, full size.

Makes the model of formula weights (4.3 GB) in DIRECTORY (default: a temporary one), runs the stages of flis64 on the
oracle's inputs, and prints for each result the largest absolute error and, of the inner layers, the largest error of
their 64 samples, mean and standard deviation, in units of the layer's largest value. Everything must be within 1e-9.
Takes 12 GB of memory if DIRECTORY lies in memory, and some minutes. Needs numpy; not part of `make check`.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

TYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1"}
NAMES = {np.dtype(v): k for k, v in TYPES.items()}
TOLERANCE = 1e-9


def read(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    header.pop("__metadata__", None)
    return {k: np.frombuffer(data[v["data_offsets"][0]:v["data_offsets"][1]], TYPES[v["dtype"]]).reshape(v["shape"])
            for k, v in header.items()}


def write(path, tensors):
    header, at = {}, 0
    for name, x in tensors.items():
        header[name] = {"dtype": NAMES[x.dtype], "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for x in tensors.values():
            f.write(np.ascontiguousarray(x).tobytes())


class Check:
    def __init__(self, flis, model, directory):
        self.flis, self.model, self.directory, self.worst, self.results = flis, model, directory, 0.0, 0

    def path(self, name):
        return os.path.join(self.directory, name)

    def run(self, stage, inputs):
        write(self.path("in.st"), inputs)
        subprocess.run([self.flis, "stage", stage, "-q", "-m", self.model, "-i", self.path("in.st"),
                        "-o", self.path("out.st"), "--trace-digest", self.path("digest.json")], check=True)
        with open(self.path("digest.json")) as f:
            digest = {t["name"]: t for t in json.load(f)["tensors"]}
        return read(self.path("out.st")), digest

    def result(self, what, got, wanted):
        error = np.abs(got - wanted)
        self.results += 1
        self.worst = max(self.worst, float(error.max())) if np.isfinite(error).all() else float("inf")
        print(f"{what}: largest {error.max():.3g}, rms {np.sqrt((error ** 2).mean()):.3g} "
              f"(of {np.sqrt((wanted ** 2).mean()):.3g}), {got.size} values", flush=True)

    def layers(self, what, digest, oracle, prefix):
        worst, where, count = 0.0, "", 0
        for key in oracle:
            if not (key.startswith(prefix) and key.endswith(".stats")):
                continue
            name = key[len(prefix):-len(".stats")]
            if name not in digest:
                print(f"{what}: flis does not trace {name}")
                self.worst = float("inf")
                continue
            d, stats = digest[name], oracle[key]
            mine = np.array(d["samples"] + [d["mean"], d["std"], d["largest"]])
            error = np.abs(mine - np.append(oracle[prefix + name + ".samples"], stats)).max() / max(1.0, stats[2])
            count += 1
            if not error <= worst:
                worst, where = float(error), name
        self.worst = max(self.worst, worst)
        print(f"{what}: {count} layers, worst {worst:.3g} at {where}", flush=True)


def clip(check, oracle):
    wanted, ids = read(f"{oracle}/sd14_clip_f64.safetensors"), read(f"{oracle}/sd14_clip_f32.safetensors")
    for case in ("boat", "empty", "full"):
        key = case + ".in.ids"
        got, digest = check.run("clip", {"ids": (wanted.get(key) if key in wanted else ids[key]).astype("<i4")})
        check.result(f"clip {case}", got["last_hidden_state"], wanted[case + ".out.last_hidden_state"])
        check.layers(f"clip {case}", digest, wanted, case + ".")


def unet(check, oracle):
    f32, wanted = read(f"{oracle}/sd14_unet_f32.safetensors"), read(f"{oracle}/sd14_unet_f64.safetensors")
    inputs = {"x": f32["in.x"], "t": np.array([981], "<i8"), "context": f32["in.context"], "label": f32["in.label512"],
              "class_ids": f32["in.class_ids"].reshape(-1)}
    got, digest = check.run("unet", inputs)
    check.result("unet rca t=981, time embedding in double", got["eps"], wanted["rca_emb64.t981.eps"])
    check.layers("unet rca t=981, time embedding in double", digest, wanted, "rca_emb64.t981.")
    other = np.abs(got["eps"] - wanted["rca.t981.eps"]).max()
    print(f"unet rca t=981, time embedding in float32 (not checked): largest {other:.3g}")


def vae(check, oracle):
    f32, wanted = read(f"{oracle}/sd14_vae_f32.safetensors"), read(f"{oracle}/sd14_vae_f64.safetensors")
    z = f32["dec.in.z"]
    got, digest = check.run("decode", {"z": (np.float32(1 / 0.18215) * z).astype("<f4")})
    check.result("decode", got["image"][:, :, ::4, ::4], wanted["dec.out.image_every4"])
    check.layers("decode", digest, wanted, "dec.")
    got, digest = check.run("encode", {"image": f32["enc.in.image"]})
    check.result("encode", got["moments"], wanted["enc.out.moments"])
    check.layers("encode", digest, wanted, "enc.")


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(dir=sys.argv[4] if len(sys.argv) == 5 else None) as directory:
        model = os.path.join(directory, "sd14.safetensors")
        subprocess.run([sys.argv[2], "sd14", model], check=True)
        check = Check(os.path.abspath(sys.argv[1]), model, directory)
        for part in (clip, vae, unet):
            part(check, sys.argv[3])
    print(f"{check.results} results, worst error {check.worst:.3g}, tolerance {TOLERANCE:g}")
    sys.exit(0 if check.worst <= TOLERANCE else 1)


if __name__ == "__main__":
    main()
