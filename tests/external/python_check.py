"""python_check.py MODEL VOCAB DIRECTORY: the checks of tools/python/flis.py, with numpy or without it.

Every function is called once on values whose result is known, and invalid arguments must be refused. Exit 1 on any failure.
"""
import ctypes.util
import os
import struct
import sys

import flis


def same(got, wanted, what):
    got = got.tolist() if hasattr(got, "tolist") else got
    if got != wanted:
        raise AssertionError("%s: got %r, wanted %r" % (what, got, wanted))


def refused(call, sentence):
    try:
        call()
    except flis.Error as failure:
        if sentence not in str(failure):
            raise AssertionError("got %r, wanted %r" % (str(failure), sentence))
        return
    raise AssertionError("not refused: wanted %r" % sentence)


def operations(f):
    image = [[[[float(8 * i + j) for j in range(4)] for i in range(4)]]]
    middle = [[[[0, 0, 0], [0, 1, 0], [0, 0, 0]]]]
    same(f.linear([[1, 2], [3, 4]], [[1, 0], [0, 1], [1, 1]], [0, 0, 1]), [[1, 2, 4], [3, 4, 8]], "linear")
    same(f.linear([[1, 2]], [[1, 1]], add=[[10]]), [[13]], "linear, add")
    same(f.conv(image, middle), image, "conv")
    same(f.conv(image, middle, kind="stride2"), [[[[0, 2], [16, 18]]]], "conv, stride 2")
    same(f.conv(image, [[[[2]]]], [1], add=image), [[[[3 * x + 1 for x in row] for row in image[0][0]]]], "conv 1x1")
    same(f.add(image, image), f.scale(image, 2).tolist(), "add, scale")
    same(f.add_to_all([[[[1, 2]], [[3, 4]]]], [[10, 20]]), [[[[11, 12]], [[23, 24]]]], "add_to_all")
    same(f.concat([[[[1]]]], [[[[2]]]]), [[[[1]], [[2]]]], "concat")
    same(f.silu([[0]]), [[0]], "silu")
    same(f.quick_gelu([[0]]), [[0]], "quick_gelu")
    same(f.geglu([[[3, 0]]]), [[[0]]], "geglu")
    same(f.layer_norm([[[2, 2]]], [1, 1], [5, 6]), [[[5, 6]]], "layer_norm")
    same(f.group_norm([[[[2]], [[2]]]], [1, 1], [5, 6], groups=2), [[[[5]], [[6]]]], "group_norm")
    same(f.attention([[[1, 0]]], [[[1, 0], [0, 1]]], [[[1, 0], [0, 1]]], 1, attended=[[1, 0]]), [[[1, 0]]], "attention")
    same(f.embed([[0, 1]], [[1, 2], [3, 4]], [[10, 10], [20, 20]]), [[[11, 12], [23, 24]]], "embed")
    refused(lambda: f.linear([[1]], [[1, 2]]), "linear: got 1 channels, wanted 2")
    refused(lambda: f.conv(image, middle, kind="other"), "wanted one of same")
    refused(lambda: f.silu([1, 2]), "tensor: got 1 dimensions")
    one = [[[1, 0]]]
    refused(lambda: f.attention(one, one, one, 1, attended=[[1, 0]]), "got attended of shape [1, 2], wanted [1,1]")
    refused(lambda: f.attention([[1]], one, one, 1), "attention: got q of shape [1, 1]")
    refused(lambda: f.attention(one, one, one, 0), "attention: heads: got 0")
    refused(lambda: f.attention([[[]]], one, one, 1), "got")
    refused(lambda: f.embed([[0]], [[1, 2]], [[1, 2], [3, 4]]), "got ids of shape [1, 1], wanted [n,t], t as in position: [2]")
    refused(lambda: f.embed([[2, 0]], [[1, 2]], [[1, 2], [3, 4]]), "got id 2, wanted 0 to 0")
    refused(lambda: f.silu([[1], [1, 2]]), "wanted rows of numbers" if flis.numpy else "rows of different lengths")
    refused(lambda: f.silu([["x"]]), "array: got list, wanted rows of numbers")


def pieces(f):
    same([round(x, 4) for x in f.randn(42, 3).tolist()], [0.3367, 0.1288, 0.2345], "torch.manual_seed(42); torch.randn(3)")
    same(f.steps(4)["t"], [1, 251, 501, 751], "timesteps")
    same(round(f.schedule()["alpha_bar"].tolist()[0], 5), 0.99915, "alpha_bar")
    same(f.label_pil([[1, 2]], 1, 4), [[1, 1, 2, 2]], "label_pil")
    same(f.label_torch([[1, 2, 3]], 1, 2), [[1, 2]], "label_torch")
    mask = f.rca_mask([[1, 2]], [1, 2], 1, 2).tolist()
    same([row[:4] for row in mask], [[1, 1, 0, 1], [1, 0, 1, 1]], "rca_mask")
    refused(lambda: f.steps(27), "27")
    refused(lambda: f.steps(1 << 32), "steps: got 4294967296")
    refused(lambda: f.randn(-1, 3), "randn: seed: got -1")
    refused(lambda: f.randn(42, -3), "randn: count: got -3")
    refused(lambda: f.label_pil([[300]], 1, 1), "got 300, wanted integers from 0 to 255")
    refused(lambda: f.label_pil([[0.5]], 1, 1), "numbers with a fraction")
    refused(lambda: f.label_torch([[1]], 0, 1), "label_torch: h: got 0")
    refused(lambda: f.rca_mask([[-1]], [1], 1, 1), "got -1, wanted integers from 0 to 255")
    refused(lambda: f.rca_mask([[1]], [1], 1, -1), "rca_mask: w: got -1")


def files(f, folder):
    path = os.path.join(folder, "python.safetensors")
    values = {"a": f.scale([[1.5, 2]], 1), "b.c": f.label_pil([[7]], 1, 2)}
    flis.save_trace(path, values, f)
    back = flis.load_tensors(path)
    same(list(back), ["a", "b.c"], "names")
    same(back["a"], [[1.5, 2]], "values")
    same(back["b.c"], [[7, 7]], "bytes")
    if flis.numpy is not None:
        n = flis.numpy
        kinds = {t: n.arange(4).astype(t).reshape(2, 2) for t in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "bool")}
        flis.save_trace(path, kinds, f)
        for name, value in flis.load_tensors(path).items():
            same(value, kinds[name].tolist(), name)
            same(str(value.dtype), str(kinds[name].dtype), name + ": dtype")
    refused(lambda: flis.save_trace(os.path.join(folder, "absent", "x"), values, f), "cannot be written")
    entry = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,%d]}}'
    for header, sentence in ((None, "got 3 bytes"), (b"?" * 8, "not JSON"), (b"[1]", "got list as the header"),
                             (entry % 4, "tensor 'a': got {"), (entry % 8, "tensor 'a': got {")):
        with open(path, "wb") as file:
            file.write(b"no\n" if header is None else struct.pack("<Q", len(header)) + header + bytes(4))
        refused(lambda: flis.load_tensors(path), sentence)
    with open(path, "wb") as file:
        file.write(b"A text, not tensors.")
    refused(lambda: flis.load_tensors(path), "not a safetensors file: got a header of")


def model(f, path, vocab_path, folder):
    vocab = f.vocab(vocab_path)
    same(vocab.prompt([("sky", 3), ("blue sea", -1)])["class_ids"][0], 3.0, "class ids")
    same(vocab.tokens(""), [], "no tokens")
    m = f.load(path)
    picture = m.generate(vocab, [("sky", 1), ("sea", 2)], [[1], [2]], width=64, height=64, steps=2, sampler="ddim")
    same(tuple(picture.shape), (64, 64, 3), "shape")
    flat, names = f.randn(42, 256).tolist(), []
    noise = [[flat[start:start + 8] for start in range(64 * c, 64 * c + 64, 8)] for c in range(4)]
    again = m.generate(vocab, [("sky", 1), ("sea", 2)], [[1], [2]], width=64, height=64, steps=2, sampler="ddim", noise=noise,
                       trace=lambda name, value: names.append(name))
    same(again.tolist() == picture.tolist(), True, "the same noise as an array")
    again = m.generate(vocab, [("sky", 1), ("sea", 2)], [[1], [2]], width=64, height=64, steps=2, sampler="ddim", noise=[noise])
    same(again.tolist() == picture.tolist(), True, "noise of four dimensions")
    same("x_T" in names and "step.1.x_prev" in names, True, "trace")
    f.write_png(os.path.join(folder, "python.png"), picture)
    calm = dict(width=64, height=64, steps=2, sampler="ddim", noise=noise)
    same(m.generate(vocab, [("sky", 1), ("sea", 2)], [[1], [2]], negative="", **calm), again.tolist(), "an empty negative prompt")
    if m.generate(vocab, [("sky", 1), ("sea", 2)], [[1], [2]], negative="fog", **calm).tolist() == again.tolist():
        raise AssertionError("a negative prompt changes nothing")
    refused(lambda: m.generate(vocab, [("sky", 1)], negative="fog", scale=1.0, **calm), "no effect with guidance scale 1")
    refused(lambda: m.generate(vocab, [("sky", 1)], negative=5), "generate: negative: got int, wanted a text")
    refused(lambda: m.generate(vocab, [("sky", 300)], [[1]]), "got id 300")
    refused(lambda: m.generate(vocab, []), "no phrases")
    refused(lambda: m.generate(vocab, [("sky", 1)], [[1]], width=100), "multiples of 64")
    refused(lambda: m.generate(vocab, [("sky", 1)], [[1]], width=64, height=64, noise=flat),
            "generate: got noise of shape [256], wanted [1, 4, 8, 8]")
    refused(lambda: m.generate(m, [("sky", 1)]), "generate: got Model, wanted a vocabulary")
    refused(lambda: f.use(vocab), "use: got Vocab, wanted a model")
    refused(lambda: m.generate(vocab), "generate: give layout or phrases")
    refused(lambda: m.generate(vocab, [("sky", 1)], layout="x.json"), "got layout and phrases, wanted one")
    refused(lambda: m.generate(vocab, label=[[1]], layout="x.json"), "got layout and label, wanted one")
    refused(lambda: m.generate(vocab, [("sky", 1)], [[300]]), "got 300, wanted integers from 0 to 255")
    refused(lambda: m.generate(vocab, [("sky", 1 << 32)]), "class id: got 4294967296")
    refused(lambda: m.generate(vocab, [("sky", 1)], [[1]], seed=-1), "generate: seed: got -1")
    refused(lambda: m.generate(vocab, [("sky", 1)], [[1]], width=-64), "generate: width: got -64")
    with open(path, "rb") as file:
        whole = f.load(file.read(), "all")
    ids = vocab.prompt([("sky", 1)])["ids"]
    text = whole.clip([ids])
    x = [[[[0.1] * 8] * 8] * 4]
    plain, rectified = whole.unet(x, [500], text), whole.unet(x, [500], text, [([[0] * 64] * 64, [1])])
    same(tuple(plain.shape), (1, 4, 8, 8), "U-Net")
    same(plain.tolist() != rectified.tolist(), True, "a layout changes eps")
    same(tuple(whole.encode(whole.decode(x)).shape), (1, 8, 8, 8), "autoencoder")
    same(len(f.digest(plain)), 64, "digest")
    refused(lambda: whole.unet(x[0], [500], text), "unet: got latents of shape [4, 8, 8]")
    other = flis.Flis()
    third = other.use(m).generate(vocab, [("sky", 1), ("sea", 2)], [[1], [2]], width=64, height=64, steps=2, sampler="ddim")
    same(third.tolist() == picture.tolist(), True, "the same model in a second context")
    borrowed = other.use(m)
    m.close()
    for closed in (m, borrowed):
        refused(lambda: closed.generate(vocab, [("sky", 1)]), "model: it was closed")
        refused(lambda: closed.clip([ids]), "model: it was closed")
    refused(lambda: other.use(m), "model: it was closed")
    other.close()
    refused(lambda: f.load(os.path.join(folder, "absent")), "cannot be opened")
    refused(lambda: f.load(path, "picture"), "load: parts")
    vocab.close()
    refused(lambda: vocab.tokens("sky"), "vocabulary: it was closed")
    refused(lambda: vocab.prompt([("sky", 1)]), "vocabulary: it was closed")
    refused(lambda: len(vocab), "vocabulary: it was closed")
    refused(lambda: whole.generate(vocab, [("sky", 1)]), "vocabulary: it was closed")
    whole.close()


def main(arguments):
    f = flis.Flis()
    refused(lambda: flis.Flis(arguments[0]), arguments[0] + ": cannot be loaded")
    libm = ctypes.util.find_library("m")
    if libm:
        refused(lambda: flis.Flis(libm), libm + ": not a flis library")
        found, flis._find = flis._find, lambda: libm
        refused(flis.Flis, libm + ": not a flis library")
        flis._find = found
    same(f.version_number, sum(int(n) * w for n, w in zip(f.version.split("."), (10000, 100, 1))), "version")
    f.threads = 0
    refused(lambda: f.load(arguments[0]), "got 0 threads")
    f.threads = 2
    operations(f)
    pieces(f)
    files(f, arguments[2])
    model(f, arguments[0], arguments[1], arguments[2])
    f.close()
    refused(lambda: f.silu([[1]]), "closed")
    print("python: all passed")


if __name__ == "__main__":
    main(sys.argv[1:])
