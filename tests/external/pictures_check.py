#!/usr/bin/env python3
"""JPEG, PNG and resizing against PIL, to the byte, over files that this script makes: sizes, qualities, subsamplings, progressive,
restart markers, gray, CMYK, 4:1:1, 4:4:0, RGB, odd scan scripts (with cjpeg and jpegtran, where they are installed), and damaged
ones. Build the program with `make check-pil`.

    pictures_check.py PROGRAM [ROUNDS [SEED [SHARED]]]

PROGRAM is tests/external/pictures.c. SHARED: a folder with jpeg/*.jpg, jpeg/expected.safetensors, jpeg/write.safetensors and
resize.safetensors. Not part of `make check`. Needs numpy and Pillow with libjpeg-turbo 2.1; says so and exits with 0 without."""
import hashlib
import io
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings

try:
    import numpy as np
    from PIL import Image, ImageFilter, features
except ImportError:
    print("pictures_check: skipped: no numpy and Pillow")
    sys.exit(0)

warnings.simplefilter("ignore")


def run(program, words, files):
    out = {}
    for start in range(0, len(files), 400):
        text = subprocess.run([program] + words + files[start:start + 400], stdout=subprocess.PIPE, check=True).stdout.decode()
        for line in text.splitlines():
            path, size, rest = line.split("\t", 2)
            out[path] = (size, rest)
    return out


def answer(image):
    return "%d %d" % image.size, hashlib.sha256(np.asarray(image).tobytes()).hexdigest()


def by_pil(path):
    try:
        with Image.open(path) as image:
            return answer(image.convert("RGB"))
    except Exception as e:
        return "error", "%s: %s" % (type(e).__name__, e)


def picture(rng, w, h):
    """Smooth areas, edges and noise."""
    g = np.random.RandomState(rng.getrandbits(32))
    kind = rng.randrange(4)
    a = g.randint(0, 256, (max(1, h // 6 + 1), max(1, w // 6 + 1), 3)).astype(np.uint8)
    image = Image.fromarray(a).resize((w, h), Image.BICUBIC if kind < 2 else Image.NEAREST)
    if kind % 2:
        noise = g.randint(-60, 61, (h, w, 3))
        image = Image.fromarray(np.clip(np.asarray(image).astype(int) + noise, 0, 255).astype(np.uint8))
    return image


def side(rng):
    return rng.choice([rng.randint(1, 20), rng.randint(1, 80), rng.randint(1, 80), rng.randint(60, 200)])


SCRIPTS = ["0,1,2: 0-0, 0, 0;", "0,1,2: 0-0, 0, 1;", "0: 0-0, 0, 0; 1,2: 0-0, 0, 0; 0: 1-5, 0, 2;",
           "0,1,2: 0-0, 0, 1; 0: 1-5, 0, 2; 2: 1-63, 0, 1; 1: 1-63, 0, 1; 0: 6-63, 0, 2; 0: 1-63, 2, 1; 0,1,2: 0-0, 1, 0;",
           "0,1,2: 0-0, 0, 0; 0: 1-9, 0, 0; 1: 1-2, 0, 0; 2: 1-63, 0, 3;", "0: 0-0, 0, 0; 1: 0-0, 0, 0; 2: 0-0, 0, 0;"]
SEQUENTIAL = ["0; 1; 2;", "0; 1 2;", "0 1; 2;", "2; 1; 0;"]
SAMPLING = ["1x1", "2x1", "1x2", "2x2", "4x1", "1x4", "4x2", "2x4", "4x4", "2x2,2x1,1x1", "2x2,1x2,2x1", "2x1,1x2,1x1", "1x1,2x1,2x2",
            "1x1,2x2,2x2", "3x1", "1x3", "3x2", "2x3", "2x2,2x2,1x1", "4x1,2x1,1x1"]


def make(rng, folder, i, cjpeg):
    path = os.path.join(folder, "%05d.jpg" % i)
    w, h = side(rng), side(rng)
    image = picture(rng, w, h)
    kind = rng.randrange(8)
    if not cjpeg or kind < 3:
        if kind == 0:
            image = image.convert(rng.choice(["L", "CMYK", "L", "RGB"]))
        image.save(path, "JPEG", quality=rng.choice([1, 5, 20, 50, 75, 90, 95, 100]), subsampling=rng.choice([-1, 0, 1, 2]),
                   progressive=rng.random() < 0.4, optimize=rng.random() < 0.3)
        return path
    ppm = io.BytesIO()
    if rng.random() < 0.15:
        image = image.convert("L")
    image.save(ppm, "PPM")
    words = ["cjpeg", "-quality", str(rng.choice([3, 30, 75, 95, 100])), "-sample", rng.choice(SAMPLING)]
    if kind == 3:
        words += ["-restart", rng.choice(["1B", "3B", "1", "7B"])]
    if kind == 4:
        words += ["-rgb"]
    if rng.random() < 0.3:
        words += ["-progressive"]
    elif rng.random() < 0.5 and image.mode == "RGB":
        script = os.path.join(folder, "script")
        open(script, "w").write(rng.choice(SCRIPTS + SEQUENTIAL))
        words += ["-scans", script]
    if rng.random() < 0.1:
        words += ["-baseline"]
    made = subprocess.run(words + ["-outfile", path], input=ppm.getvalue(), stderr=subprocess.DEVNULL)
    return path if made.returncode == 0 else make(rng, folder, i, cjpeg)


def damage(rng, path, out):
    data = bytearray(open(path, "rb").read())
    start = data.find(b"\xff\xda") + 2
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(start if rng.random() < 0.7 and start < len(data) else 2, len(data))
        how = rng.randrange(7)
        if how < 2:
            data[at] = rng.randrange(256)
        elif how == 2:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 3:
            del data[at:at + rng.choice([1, 1, 2, 10])]
        elif how == 4:
            data[at:at] = bytes([0xFF, rng.choice([0xD0 + rng.randrange(8), 0xD9, 0x00, 0xFF, rng.randrange(256)])])
        elif how == 5 and rng.random() < 0.3:
            del data[at:]
        else:
            data[at:at + 1] = bytes([rng.choice([0, 255])])
        if len(data) < 4:
            break
    open(out, "wb").write(data)


def compare(what, wanted, got, keep):
    same = bad = refused = 0
    for path in wanted:
        a, b = wanted[path], got[path]
        if (a[0] == "error") == (b[0] == "error") and (a[0] == "error" or a == b):
            same += 1
            refused += a[0] == "error"
        else:
            bad += 1
            if bad <= 5:
                print("  %s: %s, PIL %s" % (os.path.basename(path), " ".join(b), " ".join(a)))
            if keep:
                shutil.copy(path, keep)
    print("%s: %d of %d equal%s" % (what, same, same + bad, " (%d refused by both)" % refused if refused else ""))
    return bad


def marker_at(data, second, n):
    at = -1
    for _ in range(n):
        at = data.find(bytes([0xFF, second]), at + 1)
    return at if at >= 0 else len(data)


def place(data, text):
    name, sign, offset = re.match(r"([^+-]*)([+-]?)(\d*)$", text).groups()
    if name == "data":
        at = marker_at(data, 0xDA, 1)
        at += 2 + struct.unpack(">H", data[at + 2:at + 4])[0]
    elif name == "end":
        at = len(data)
    else:
        at = marker_at(data, int(name[:2], 16), int(name[3:] or 1)) if name else 0
    return at + int(sign + offset if offset else 0)


def edited(data, edits):
    """A file with the edits of tests/unit/jpeg_damages.txt."""
    for words in [e.split() for e in edits.split(";") if e.strip()]:
        verb, at = words[0], None if words[0] == "drop" else place(data, words[1])
        if verb == "cut":
            del data[at:]
        elif verb == "del":
            del data[at:at + int(words[2])]
        elif verb == "drop":
            while (at := marker_at(data, int(words[1], 16), 1)) < len(data):
                del data[at:at + 2 + struct.unpack(">H", data[at + 2:at + 4])[0]]
        else:
            new = bytes.fromhex(words[2])
            data[at:at + (len(new) if verb == "set" else 0)] = new
    return data


def listed(program, folder, tests):
    """The list of damages: ours is what the list says, and PIL does the same, except where the list names a difference."""
    bad, counts = 0, {}
    for line in open(os.path.join(tests, "unit", "jpeg_damages.txt")):
        if line.startswith("#"):
            continue
        name, base, edits, wanted, differs = (line.rstrip("\n").split(" | ") + [""])[:5]
        path = os.path.join(folder, "listed.jpg")
        data = bytearray(open(os.path.join(tests, "fuzz", "corpus", "jpeg", base + ".jpg"), "rb").read())
        open(path, "wb").write(edited(data, edits))
        size, rest = run(program, ["read"], [path])[path]
        refused = size == "error"
        ours = rest[len(path) + 2:] if refused else "%s %s" % (size.replace(" ", " x "), rest[:16])
        a = by_pil(path)
        same = (a[0] == "error") == refused and (refused or a == (size, rest))
        kind = ("refused by both" if refused else "same pixels") if same else differs or "DIFFERENT"
        counts[kind] = counts.get(kind, 0) + 1
        good = ours == wanted and same == (not differs)
        bad += not good
        print("  %-40s %-16s %s%s" % (name, kind if same else "differs", ours, "" if good else "   WANTED " + wanted))
        if not same:
            print("  %-40s %-16s %s" % ("", "PIL", " ".join(a)[:70]))
    print("listed damages: " + ", ".join("%d %s" % (n, k) for k, n in sorted(counts.items(), key=lambda x: -x[1])))
    return bad


def tensors(path):
    data = open(path, "rb").read()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {k: np.frombuffer(data[8 + length:][v["data_offsets"][0]:v["data_offsets"][1]],
                             {"U8": "u1", "F32": "<f4"}[v["dtype"]]).reshape(v["shape"]) for k, v in header.items()}


def shared(program, folder, at):
    """The files of the shared folder."""
    sha = lambda a: hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()
    bad = 0
    expected = tensors(os.path.join(at, "jpeg", "expected.safetensors"))
    files = [os.path.join(at, "jpeg", n + ".jpg") for n in expected]
    got = run(program, ["read"], files)
    wanted = {f: ("%d %d" % (a.shape[1], a.shape[0]), sha(a)) for f, a in zip(files, expected.values())}
    for f in files:
        if "refused" in f and got[f][0] == "error":
            wanted[f] = ("error", "")
    bad += compare("shared: jpeg", wanted, got, None)
    for name, words, given, result in [("write", ["write", "75"], "pixels", "file"), ("resize", ["bicubic"], "in", "bicubic"),
                                       ("resize", ["nearest"], "label", "nearest")]:
        t = tensors(os.path.join(at, "jpeg" if name == "write" else ".", name + ".safetensors"))
        wanted, got = {}, {}
        for key in t:
            if key.startswith(given):
                path = os.path.join(folder, key + ".ppm")
                a = t[key] if t[key].ndim == 3 else np.repeat(t[key][..., None], 3, 2)
                Image.fromarray(a).save(path)
                r = t[result + key[len(given):]]
                size = (a.shape if name == "write" else r.shape)[1::-1]
                r = r if r.ndim != 2 else np.repeat(r[..., None], 3, 2)
                wanted[path] = ("%d %d" % size, sha(r))
                got.update(run(program, words + ([] if name == "write" else ["%d" % s for s in size]), [path]))
        bad += compare("shared: %s" % words[0], wanted, got, None)
    return bad


def written(program, rng, folder, rounds):
    bad = 0
    files = []
    sizes = [(w, h) for w in (1, 2, 7, 8, 9, 15, 16, 17, 33, 70) for h in (1, 2, 8, 9, 16, 17, 24, 25, 50)]
    for i in range(max(rounds // 2, 100)):
        w, h = sizes[i % len(sizes)] if i < len(sizes) else (side(rng), side(rng))
        files.append(os.path.join(folder, "w%d.ppm" % i))
        picture(rng, w, h).save(files[-1])
    for quality in ["75", "GRAY", "1", "30", "95", "100"]:
        wanted = {}
        for f in files:
            with Image.open(f) as image:
                out = io.BytesIO()
                if quality == "GRAY":
                    image = Image.fromarray(np.ascontiguousarray(np.asarray(image)[..., 0]))
                image.save(out, "JPEG", **({} if quality in ("75", "GRAY") else {"quality": int(quality)}))
                wanted[f] = ("%d %d" % image.size, hashlib.sha256(out.getvalue()).hexdigest())
        bad += compare("written, quality %s" % quality, wanted, run(program, ["write", quality], files), None)
    for words, how in ((["bicubic"], Image.BICUBIC), (["nearest"], Image.NEAREST)):
        wanted, got = {}, {}
        for f in files:
            size = (side(rng), side(rng)) if rng.random() < 0.7 else (rng.choice([32, 64, 512]),) * 2
            with Image.open(f) as image:
                wanted[f] = answer(image.resize(size, how))
            got.update(run(program, words + ["%d" % s for s in size], [f]))
        bad += compare(words[0], wanted, got, None)
    return bad


def pngs(program, rng, folder):
    files = []
    for mode in ["1", "L", "LA", "P", "RGB", "RGBA"]:
        for i in range(12):
            image = picture(rng, side(rng), side(rng))
            files.append(os.path.join(folder, "%s%d.png" % (mode, i)))
            if mode == "P":
                image.quantize(rng.choice([2, 4, 13, 16, 200])).save(files[-1])
            else:
                if mode in ("LA", "RGBA"):
                    image.putalpha(image.convert("L"))
                image.convert(mode).save(files[-1])
    return compare("png", {f: by_pil(f) for f in files}, run(program, ["read"], files), None)


def main():
    program = os.path.abspath(sys.argv[1])
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 300
    rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    keep = os.environ.get("KEEP")
    print("Pillow %s, libjpeg-turbo %s" % (Image.__version__, features.version("libjpeg_turbo")))
    cjpeg = shutil.which("cjpeg")
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 4:
            bad += shared(program, folder, sys.argv[4])
        tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        bad += listed(program, folder, tests)
        corpus = os.path.join(tests, "fuzz", "corpus", "jpeg")
        seeds = []
        for f in sorted(os.listdir(corpus)):
            if f == "arithmetic.jpg":
                continue  # PIL reads it
            seeds.append(os.path.join(folder, "seed-" + f))
            shutil.copy(os.path.join(corpus, f), seeds[-1])
        bad += compare("fuzz corpus", {f: by_pil(f) for f in seeds}, run(program, ["read"], seeds), keep)
        files = [make(rng, folder, i, cjpeg) for i in range(rounds)]
        bad += compare("read", {f: by_pil(f) for f in files}, run(program, ["read"], files), keep)
        hurt = []
        for f in files * 2:
            hurt.append(os.path.join(folder, "d%d.jpg" % len(hurt)))
            damage(rng, f, hurt[-1])
        bad += compare("damaged", {f: by_pil(f) for f in hurt}, run(program, ["read"], hurt), keep)
        bad += pngs(program, rng, folder)
        bad += written(program, rng, folder, rounds)
    sys.exit(1 if bad else 0)


main()
