#!/usr/bin/env python3
"""bin/evaluate against numpy (and scipy, where it is installed) in float64, over files that this script makes.

    evaluate_check.py EVALUATE [SEED]

Fréchet distance: features as .safetensors and .npy (half, float, double, both byte orders, Fortran order, [n,d,1,1]), as .npz stored
and deflated, and the statistics mu and sigma; more and fewer samples than dimensions, features that are constant or repeat each
other, equal sets. mIoU: label maps of other sizes, kinds and data sets. Not part of `make check`. Needs numpy and Pillow; says so and
exits with 0 without."""
import json
import os
import struct
import subprocess
import sys
import tempfile

try:
    import numpy as np
    from PIL import Image
except ImportError:
    print("evaluate_check: skipped: no numpy and Pillow")
    sys.exit(0)
try:
    from scipy.linalg import sqrtm
except ImportError:
    sqrtm = None

passed = failed = 0
worst = {}  # error over size and limit


def near(name, got, want, limit, kind):
    """The JSON has 12 digits."""
    error = abs(got - want)
    worst[kind] = max(worst.get(kind, 0), error / limit)
    check(name, error <= limit + 1e-11 * abs(want), "got %r, wanted %r" % (got, want))


def check(name, good, detail=""):
    global passed, failed
    passed += bool(good)
    failed += not good
    if not good:
        print("FAIL evaluate_check: %s: %s" % (name, detail))


def run(*words):
    done = subprocess.run([program, *map(str, words), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return json.loads(done.stdout)


def save_safetensors(path, x):
    x = np.ascontiguousarray(x)
    header = json.dumps({"features": {"dtype": {"f2": "F16", "f4": "F32", "f8": "F64"}[x.dtype.str[1:]], "shape": list(x.shape),
                                      "data_offsets": [0, x.nbytes]}}).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(header)) + header + x.tobytes())


# ---- Fréchet distance ---------------------------------------------------------------------------------------------

def distance(a, b):
    """Without squaring: the singular values of the centred samples' product are those of R1 R2'."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    p, q = a.mean(0), b.mean(0)
    x, y = (a - p) / np.sqrt(len(a) - 1), (b - q) / np.sqrt(len(b) - 1)
    return ((p - q) ** 2).sum() + (x ** 2).sum() + (y ** 2).sum() - 2 * np.linalg.svd(x @ y.T, compute_uv=False).sum(), \
        (x ** 2).sum() + (y ** 2).sum() + ((p - q) ** 2).sum()


def by_scipy(mu1, s1, mu2, s2):
    root = sqrtm(s1 @ s2, disp=False)[0]
    return ((mu1 - mu2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * np.trace(root.real)


def features(g, n, d, scale=1.0, shift=0.0):
    mix = g.randn(d, d) / np.sqrt(d) * np.exp(-np.arange(d) / d * 6)
    return np.maximum(scale * (g.randn(n, d) @ mix) + 0.3 + shift, 0).astype(np.float32)


def frechet(g, folder):
    at = lambda name: os.path.join(folder, name)
    for n, m, d in ((300, 200, 40), (65, 64, 64), (64, 33, 64), (40, 300, 64), (20, 30, 100), (700, 513, 97), (2, 2, 1), (3, 5, 2),
                    (1100, 900, 33), (400, 390, 257)):
        a, b = features(g, n, d), features(g, m, d, 1.1, 0.03)
        want, size = distance(a, b)
        for ending, save in ((".st", save_safetensors), (".npy", np.save)):
            save(at("a" + ending), a), save(at("b" + ending), b)
            got = run("frechet", at("a" + ending), at("b" + ending))["frechet"]
            near("%d and %d samples of %d, %s" % (n, m, d, ending), got, want, 2e-12 * size, "samples")
        # Of itself: the distance is nothing but rounding.
        got = run("frechet", at("a.npy"), at("a.st"))["frechet"]
        check("equal sets of %d x %d" % (n, d), 0 <= got <= 2e-12 * size, "got %r" % got)
        if n > 2 * d and m > 2 * d:
            stats = [(x.astype(np.float64).mean(0), np.atleast_2d(np.cov(x.astype(np.float64), rowvar=False))) for x in (a, b)]
            np.savez(at("a.npz"), mu=stats[0][0], sigma=stats[0][1])
            np.savez_compressed(at("b.npz"), mu=stats[1][0], sigma=stats[1][1])
            # The covariances are rounded, and roots of their smallest eigenvalues are far less exact than they are.
            for x, y in (("a.npz", "b.npz"), ("a.npy", "b.npz"), ("a.npz", "b.npy")):
                got = run("frechet", at(x), at(y))["frechet"]
                near("%s and %s of %d" % (x, y, d), got, want, 1e-9 * size, "statistics")
            if sqrtm:
                other = by_scipy(*stats[0], *stats[1])
                check("scipy of %d" % d, abs(other - want) <= 1e-7 * size, "scipy %r, wanted %r" % (other, want))
    a, b = features(g, 60, 24), features(g, 50, 24, 1.2)
    want, size = distance(a, b)
    np.save(at("b.npy"), b)
    for name, x in (("f8", a.astype("<f8")), (">f8", a.astype(">f8")), (">f4", a.astype(">f4")), ("Fortran", np.asfortranarray(a)),
                    ("1,1", a[:, :, None, None]), ("1,1 Fortran", np.asfortranarray(a[:, :, None, None]))):
        np.save(at("a.npy"), x)
        got = run("frechet", at("a.npy"), at("b.npy"))["frechet"]
        near(".npy " + name, got, want, 2e-12 * size, "samples")
    half = a.astype("f2")
    np.save(at("a.npy"), half)
    want, size = distance(half, b)
    got = run("frechet", at("a.npy"), at("b.npy"))["frechet"]
    near(".npy f2", got, want, 2e-12 * size, "samples")
    # Dimensions that are constant or copies: no singular covariance is a problem.
    a[:, 3], b[:, 3], a[:, 5], b[:, 5] = 0.5, 0.25, a[:, 4], b[:, 4]
    np.save(at("a.npy"), a), np.save(at("b.npy"), b)
    want, size = distance(a, b)
    got = run("frechet", at("a.npy"), at("b.npy"))["frechet"]
    near("constant and repeated dimensions", got, want, 2e-12 * size, "samples")
    for name, x in (("a", a), ("b", b)):
        np.savez(at(name + ".npz"), mu=x.astype("f8").mean(0), sigma=np.cov(x.astype("f8"), rowvar=False))
    got = run("frechet", at("a.npz"), at("b.npz"))["frechet"]
    near("their statistics", got, want, 1e-6 * size, "statistics")
    # Known Gaussians: diagonal covariances, whose distance is sum (mu - nu)^2 + (s - t)^2.
    d = 200
    mu, nu, s, t = g.randn(d), g.randn(d), np.exp(g.randn(d)), np.exp(g.randn(d))
    np.savez(at("a.npz"), mu=mu, sigma=np.diag(s ** 2)), np.savez(at("b.npz"), mu=nu, sigma=np.diag(t ** 2))
    want = ((mu - nu) ** 2 + (s - t) ** 2).sum()
    got = run("frechet", at("a.npz"), at("b.npz"))["frechet"]
    near("diagonal covariances", got, want, 1e-12 * (s ** 2 + t ** 2).sum(), "statistics")


# ---- mIoU ---------------------------------------------------------------------------------------------------------

def scores(pairs, classes, void):
    """classes: ids; pairs of arrays of one size."""
    table = np.zeros((256, 257), np.int64)
    for truth, predicted in pairs:
        keep = truth != void
        np.add.at(table, (truth[keep], np.where(np.isin(predicted[keep], classes), predicted[keep], 256)), 1)
    both, row, column = np.diag(table)[classes], table.sum(1)[classes], table.sum(0)[classes]
    union = row + column - both
    with np.errstate(all="ignore"):
        iou = both / union
        return iou[row > 0].mean(), np.nanmean(iou), np.nan_to_num(iou).mean(), both.sum() / row.sum(), (both / row)[row > 0].mean()


def miou(g, folder):
    for name in ("truth", "predicted"):
        os.mkdir(os.path.join(folder, name))
    for data, first, count, void in (("coco", 0, 182, 255), ("ade20k", 1, 150, 0)):
        truths, predictions = [], []
        for i in range(6):
            h, w, k = g.randint(20, 70), g.randint(20, 70), g.randint(2, 9)
            few = g.choice(count, 12, replace=False) + first
            coarse = few[g.randint(0, 12, (h // k + 1, w // k + 1))]
            truth = np.kron(coarse, np.ones((k, k), int))[:h, :w]
            truth[g.rand(h, w) < 0.05] = void
            predicted = np.array(Image.fromarray(truth.astype(np.uint8)).resize((40 + i, 30 + 2 * i), Image.NEAREST)).astype(int)
            wrong = g.rand(*predicted.shape) < 0.4
            predicted[wrong] = g.randint(0, count, wrong.sum()) + first
            predicted[predicted == void] = first
            truths.append(truth)
            predictions.append(predicted)
        shift = first if data == "ade20k" else 0
        for f in os.listdir(os.path.join(folder, "predicted")):
            os.remove(os.path.join(folder, "predicted", f))
        for i, (truth, predicted) in enumerate(zip(truths, predictions)):
            stem = os.path.join(folder, "%s", "%03d")
            Image.fromarray(truth.astype(np.uint8)).save((stem % ("truth", i)) + ".png")
            np.save(stem % ("predicted", i), (predicted - shift)[None] if i % 2 else (predicted - shift).astype("u1"))
        nearest = lambda x, size: np.array(Image.fromarray(x.astype(np.uint8)).resize(size, Image.NEAREST)).astype(int)
        classes = np.arange(first, first + count)
        for size in ("truth", "predicted", "64", "50x33"):
            pairs = []
            for truth, predicted in zip(truths, predictions):
                to = {"truth": truth.shape[::-1], "predicted": predicted.shape[::-1], "64": (64, 64), "50x33": (50, 33)}[size]
                pairs.append((nearest(truth, to), nearest(predicted, to)))
            got = run("miou", "--truth", os.path.join(folder, "truth"), "--predicted", os.path.join(folder, "predicted"), "--classes", data,
                      "--size", size, *(["--predicted-first", "0"] if shift else []))
            got = [got[k] for k in ("miou_present", "miou_either", "miou_all", "pixel_accuracy", "mean_accuracy")]
            want = scores(pairs, classes, void)
            check("mIoU of %s, --size %s" % (data, size), np.allclose(got, want, rtol=1e-8, atol=0), "got %r, wanted %r" % (got, want))


program = os.path.abspath(sys.argv[1])
generator = np.random.RandomState(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
with tempfile.TemporaryDirectory() as scratch:
    frechet(generator, scratch)
    miou(generator, scratch)
print("worst error, as a part of what is allowed: " + ", ".join("%s %.2g" % x for x in worst.items()))
print("evaluate_check: %d passed, %d failed%s" % (passed, failed, "" if sqrtm else " (no scipy: its square root is left out)"))
sys.exit(failed > 0)
