"""flis.py - flis from Python: one file over ctypes. No packages are needed; numpy arrays are taken and returned where numpy is.

    import flis
    f = flis.Flis()                                    # finds libflis.so; build it with `make shared` or `make install`
    vocab = f.vocab("models/vocab.txt")
    model = f.load("models/flis-small.safetensors")    # once
    picture = model.generate(vocab, layout="examples/harbour.json", width=128, height=128, seed=7)
    f.write_png("harbour.png", picture)

For porters, every part of the pipeline by itself: f.linear, f.conv, f.attention…; model.clip, model.unet, model.decode,
model.encode; vocab.tokens, vocab.prompt; f.rca_mask; f.randn, f.schedule, f.steps; f.digest; save_trace and load_tensors.

Arrays. Anything nested goes in: lists, numpy arrays, PyTorch tensors on the CPU. Shapes are PyTorch's: pictures and latents
[n, c, h, w], tokens [n, t, c], vectors [n, c]; weights as in the checkpoint. Values are float32; with libflis64.so, float64.
Without numpy, results are Array objects: .shape, .data (an array.array, row-major), .tolist().

Errors. What is refused raises flis.Error with a sentence: what, where, got, wanted. The context stays usable.
Threads. A Flis object is one context and belongs to one thread at a time. Models and vocabularies may be shared between
Flis objects of the same library: pass the model to `other.use(model)`. ctypes releases the interpreter lock in every call.
"""
import array
import ctypes
import ctypes.util
import json
import operator
import os
import struct

try:
    import numpy
except ImportError:
    numpy = None

__all__ = ["Flis", "Error", "Array", "save_trace", "load_tensors"]

P, SIZE, INT, BOOL, DOUBLE, TEXT = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_bool, ctypes.c_double,
                                    ctypes.c_char_p)
TOKENS, TIMESTEPS = 77, 1000
PARTS = {"none": 0, "text": 1, "unet": 2, "decoder": 4, "encoder": 8, "paint": 7, "all": 15}


class Error(Exception):
    """What the library or this file refused; str() is its sentence."""


class Array:
    """A result where numpy is not installed: shape, and row-major data as an array.array."""

    def __init__(self, shape, data):
        self.shape, self.data = tuple(shape), data

    def tolist(self):
        def rows(shape, start):
            if not shape:
                return self.data[start]
            step = _count(shape[1:])
            return [rows(shape[1:], start + i * step) for i in range(shape[0])]
        return rows(self.shape, 0)

    def __repr__(self):
        return "flis.Array(shape=%r, typecode=%r)" % (self.shape, self.data.typecode)


def _whole(value, what, low=-1 << 31, high=(1 << 31) - 1):
    """An integer of that range: ctypes would cut off the bits of one that is too large. The range of int by default."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        raise Error("%s: got %r, wanted an integer from %d to %d" % (what, value, low, high))
    return number


def _count(shape):
    count = 1
    for size in shape:
        count *= size
    return count


# numpy's name of a type, and safetensors'; by array.array's typecode.
TYPES = {"f": ("f4", "F32"), "d": ("f8", "F64"), "B": ("u1", "U8"), "b": ("i1", "I8"), "h": ("i2", "I16"), "i": ("i4", "I32"),
         "q": ("i8", "I64")}


def _shape_of(x):
    shape = []
    while isinstance(x, (list, tuple)):
        shape.append(len(x))
        x = x[0] if x else None
    return tuple(shape)


def _flat(x, shape, out):
    if not shape:
        out.append(x)
        return
    if len(x) != shape[0]:
        raise Error("array: got rows of different lengths, wanted equal ones")
    for item in x:
        _flat(item, shape[1:], out)


def _take(x, code):
    """(shape, address, keep-alive) of an array as type `code` of array.array."""
    if isinstance(x, Array) and x.data.typecode == code:
        return x.shape, x.data.buffer_info()[0], x
    if hasattr(x, "tolist") and (numpy is None or isinstance(x, Array)):
        x = x.tolist()
    try:
        if numpy is not None:
            given = numpy.asarray(x)
            if code not in "fd" and given.size:
                whole = given.dtype.kind in "iub" or (given == numpy.trunc(given)).all()
                _check_integers(given.min(), given.max(), whole, code)
            values = numpy.ascontiguousarray(given, dtype=TYPES[code][0])
            return given.shape, values.ctypes.data, values
        shape, flat = _shape_of(x), []
        _flat(x, shape, flat)
        if code not in "fd" and flat:
            _check_integers(min(flat), max(flat), all(value == int(value) for value in flat), code)
            flat = [int(value) for value in flat]
        values = array.array(code, flat)
    except (TypeError, ValueError, OverflowError, RuntimeError) as failure:
        raise Error("array: got %s, wanted rows of numbers: %s" % (type(x).__name__, failure))
    return shape, values.buffer_info()[0], values


def _check_integers(least, most, whole, code):
    bits = 8 * array.array(code).itemsize
    low, high = (0, (1 << bits) - 1) if code == "B" else (-1 << bits - 1, (1 << bits - 1) - 1)
    if not (low <= least and most <= high):
        raise Error("array: got %s, wanted integers from %d to %d" % (least if not low <= least else most, low, high))
    if not whole:
        raise Error("array: got numbers with a fraction, wanted integers from %d to %d" % (low, high))


def _give(shape, code, address):
    """A new array of that shape with the values at the address."""
    size = _count(shape) * array.array(code).itemsize
    data = ctypes.string_at(address, size) if size else b""
    if numpy is not None:
        return numpy.frombuffer(data, dtype=TYPES[code][0]).reshape(shape).copy()
    return Array(shape, array.array(code, data))


def _find():
    """libflis.so: $FLIS_LIBRARY; the tree or the installation that this file is in; the system's."""
    here = os.path.dirname(os.path.abspath(__file__))
    named = os.environ.get("FLIS_LIBRARY")
    if named:
        return named
    lib = os.path.join(here, "..", "..", "..", "lib")
    try:
        with open("/proc/cpuinfo") as info:
            fast = {"avx2", "fma", "bmi2"} <= set(info.read().split())
    except OSError:
        fast = False
    paths = [os.path.join(here, "..", "..", "libflis.so")]
    paths += [os.path.join(lib, "glibc-hwcaps", "x86-64-v3", "libflis.so.0")] if fast else []
    paths += [os.path.join(lib, "libflis.so"), os.path.join(lib, "libflis.dylib")]
    for path in paths:
        if os.path.exists(path):
            return path
    found = ctypes.util.find_library("flis")
    if found:
        return found
    raise Error("libflis.so: not found: run `make shared`, or set FLIS_LIBRARY to its path")


class _Mark(ctypes.Structure):  # flis_mark, passed by value
    _fields_ = [("chunk", P), ("fill", SIZE), ("used", SIZE)]


class _Mask(ctypes.Structure):  # flis_mask, passed by value
    _fields_ = [("causal", BOOL), ("attended", P)]


# Result and argument types of every function that is used; "*" is the real type, "!" returns a struct.
FUNCTIONS = {
    "version": (INT, []), "version_text": (TEXT, []), "init": (BOOL, [P]), "free": (None, [P]), "clear_error": (None, [P]),
    "release": (None, [P]), "here": (_Mark, [P]), "rewind": (None, [P, _Mark]), "count": (SIZE, [P]),
    "image": (P, [P, SIZE, SIZE, SIZE, SIZE]), "rows": (P, [P, SIZE, SIZE, SIZE]), "vectors": (P, [P, SIZE, SIZE]),
    "from_nchw": (P, [P, P, SIZE, SIZE, SIZE, SIZE]), "to_nchw": (None, [P, P]), "tensor_digest": (None, [P, P]),
    "param_set": (BOOL, [P, P, P, BOOL]), "free_visit": (BOOL, [P, P, TEXT, P]), "linear": (P, [P] * 5),
    "conv": (P, [P, P, P, P, INT, P]), "group_norm": (P, [P, P, P, P, DOUBLE, BOOL]), "layer_norm": (P, [P] * 4),
    "silu": (P, [P, P]), "quick_gelu": (P, [P, P]), "geglu": (P, [P, P]), "add": (P, [P] * 3), "add_to_all": (P, [P] * 3),
    "scale": (P, [P, P, DOUBLE]), "concat": (P, [P] * 3), "embed": (P, [P, P, SIZE, P, P]),
    "attention": (P, [P, P, P, P, SIZE, DOUBLE, _Mask]), "vocab_read": (P, [P, TEXT]), "vocab_free": (None, [P]),
    "vocab_parse": (P, [P, TEXT, P, SIZE]), "vocab_size": (SIZE, [P]), "tokenize": (ctypes.c_long, [P, P, TEXT, SIZE, P]),
    "prompt_make": (BOOL, [P, P, P, SIZE, P]), "prompt_free": (None, [P]), "rca_mask": (BOOL, [P, P, SIZE, SIZE, P]),
    "model_load": (P, [P, TEXT, ctypes.c_uint]), "model_load_memory": (P, [P, TEXT, P, SIZE, ctypes.c_uint]),
    "model_free": (None, [P]), "model_clip": (P, [P]), "model_unet": (P, [P]), "model_vae": (P, [P]),
    "model_generate": (BOOL, [P] * 6), "clip_encode": (P, [P, P, P, SIZE]), "unet_eps": (P, [P] * 6),
    "vae_decode": (P, [P] * 3), "vae_encode": (P, [P] * 3), "layout_read": (BOOL, [P, TEXT, P]),
    "layout_add": (BOOL, [P, P, TEXT, INT]), "layout_set_label": (BOOL, [P, P, P, SIZE, SIZE]), "layout_free": (None, [P]),
    "options_default": (None, [P]), "picture_free": (None, [P]), "write_png": (BOOL, [P, TEXT, P, P]),
    "read_label": (BOOL, [P, TEXT, P]), "rng_seed": (None, [P, INT, ctypes.c_uint64]), "randn": (None, [P, P, SIZE]),
    "schedule_make": (None, [P]), "steps_make": (BOOL, [P, P, INT, INT, DOUBLE, P]),
    "label_pil": (None, [P, SIZE, SIZE, P, SIZE, SIZE]), "label_torch": (None, [P, SIZE, SIZE, P, SIZE, SIZE]),
    "write_begin": (P, [P, TEXT]), "write_end": (BOOL, [P, P]), "write_abort": (None, [P]),
    "write_declare": (BOOL, [P, P, TEXT, INT, INT, P]), "write_raw": (BOOL, [P, P, P, SIZE]),
}
CONV = {"same": 0, "stride2": 1, "stride2_asymmetric": 2, "upsample2": 3}
SAMPLERS, GENERATORS = {"plms": 0, "ddim": 1}, {"cpu": 0, "cuda": 1}


def _choice(table, name, what):
    if name not in table:
        raise Error("%s: got %r, wanted one of %s" % (what, name, ", ".join(sorted(table))))
    return table[name]


class _Record:
    """A C struct, whose size and members' offsets the library itself reports (flis_abi): no copy of a header here."""

    def __init__(self, flis, type):
        self._flis, self._type = flis, type
        self._memory = ctypes.create_string_buffer(flis._abi(type)[1])
        self.address = ctypes.addressof(self._memory)

    def at(self, member, ctype, count=None):
        offset, size = self._flis._abi(self._type + "." + member)
        kind = ctype * count if count else ctype
        if ctypes.sizeof(kind) != size:
            raise Error("%s.%s: got %d bytes in the library, wanted %d: flis.py is of another version"
                        % (self._type, member, size, ctypes.sizeof(kind)))
        return kind.from_address(self.address + offset)

    def set(self, member, ctype, value):
        self.at(member, ctype).value = value


class _Param:
    """A weight in the library's form, for one call."""

    def __init__(self, flis, values, groups=0, table=False):
        shape, address, keep = _take(values, flis.code)
        self.flis, self.record = flis, _Record(flis, "flis_param")
        sizes = self.record.at("shape", SIZE, 4)
        if not 1 <= len(shape) <= 4:
            raise Error("weight: got %d dimensions, wanted 1 to 4" % len(shape))
        self.record.set("rank", INT, len(shape))
        for i, size in enumerate(shape):
            sizes[i] = size
        self.record.set("table", BOOL, table)
        self.record.set("groups", SIZE, groups)
        self.address = self.record.address
        flis._call("param_set", self.address, address, True)

    def free(self):
        self.flis._function["free_visit"](self.flis.ctx, None, b"", self.address)


class Flis:
    """A context of the library. library: path of libflis.so or libflis64.so; threads: None for all processors."""

    def __init__(self, library=None, threads=None):
        path = library or _find()
        try:
            self._library = ctypes.CDLL(path)
        except OSError as failure:
            raise Error("%s: cannot be loaded: %s" % (path, failure))
        for self._prefix in ("flis_", "flis64_"):
            if hasattr(self._library, self._prefix + "init"):
                break
        else:
            raise Error("%s: not a flis library: it has no function flis_init" % path)
        self._function = {}
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(self._library, self._prefix + name, None)
            if function is None:
                raise Error("%s: it has no function %s%s: flis.py is of another version" % (path, self._prefix, name))
            function.restype, function.argtypes = result, arguments
            self._function[name] = function
        self._offsets = {}
        self.real, self.code = (ctypes.c_float, "f") if self._abi("flis_real")[1] == 4 else (ctypes.c_double, "d")
        for kind, name in ((_Mark, "flis_mark"), (_Mask, "flis_mask")):
            if self._abi(name)[1] != ctypes.sizeof(kind):
                raise Error("%s: got %d bytes in the library, wanted %d" % (name, self._abi(name)[1], ctypes.sizeof(kind)))
        self._ctx = _Record(self, "flis_ctx")
        self.ctx = self._ctx.address
        if not self._function["init"](self.ctx):
            self._fail()
        if threads is not None:
            self.threads = threads

    def close(self):
        """Frees the context's memory. Models and vocabularies have a close of their own."""
        if self.ctx:
            self._function["free"](self.ctx)
        self.ctx = None

    @property
    def version(self):
        """The library's version as text, "0.1.0"."""
        return self._function["version_text"]().decode()

    @property
    def version_number(self):
        """major * 10000 + minor * 100 + patch."""
        return self._function["version"]()

    @property
    def threads(self):
        """Threads inside a call; the bits of results do not depend on it."""
        return self._ctx.at("threads", INT).value

    @threads.setter
    def threads(self, count):
        self._ctx.set("threads", INT, _whole(count, "threads"))

    # ---- Calls, records, tensors

    def _abi(self, name):
        if name not in self._offsets:
            function = getattr(self._library, self._prefix + "abi")
            function.restype, function.argtypes = BOOL, [TEXT, P, P]
            offset, size = SIZE(), SIZE()
            if not function(name.encode(), ctypes.byref(offset), ctypes.byref(size)):
                raise Error("%s: this library does not list it: flis.py is of another version" % name)
            self._offsets[name] = offset.value, size.value
        return self._offsets[name]

    def _fail(self):
        sentence = ctypes.string_at(self.ctx + self._abi("flis_ctx.error")[0]).decode("utf-8", "replace")
        self._function["clear_error"](self.ctx)
        raise Error(sentence or "flis: a call failed without a sentence")

    def _open(self):
        """The context's address."""
        if not self.ctx:
            raise Error("flis: the context was closed")
        return self.ctx

    def _call(self, name, *arguments):
        """A function whose first argument is the context, and whose false or NULL is a failure."""
        result = self._function[name](self._open(), *arguments)
        if not result or result == -1:
            self._fail()
        return result

    def _tensor(self, x):
        """An array as a tensor of the arena; None stays None."""
        if x is None:
            return None
        shape, address, keep = _take(x, self.code)
        if len(shape) == 4:
            return self._call("from_nchw", address, *shape)
        if len(shape) not in (2, 3):
            raise Error("tensor: got %d dimensions, wanted 4 [n,c,h,w], 3 [n,t,c] or 2 [n,c]" % len(shape))
        tensor = self._call("rows" if len(shape) == 3 else "vectors", *shape)
        ctypes.memmove(self._member(tensor, "x", P), address, _count(shape) * ctypes.sizeof(self.real))
        return tensor

    def _member(self, tensor, member, ctype):
        return ctype.from_address(tensor + self._abi("flis_tensor." + member)[0]).value

    def _array(self, tensor):
        """A tensor of the arena as an array."""
        rank = self._member(tensor, "rank", INT)
        n, h, w, c = (self._member(tensor, name, SIZE) for name in "nhwc")
        if rank != 4:
            return _give((n, h, c) if rank == 3 else (n, c), self.code, self._member(tensor, "x", P))
        values = (self.real * (n * c * h * w))()
        self._function["to_nchw"](tensor, values)
        return _give((n, c, h, w), self.code, ctypes.addressof(values))

    def _work(self, compute):
        """compute() returns a tensor; its array, with everything in the arena freed."""
        mark = self._function["here"](self._open())
        try:
            return self._array(compute())
        finally:
            self._function["rewind"](self.ctx, mark)

    def _operation(self, name, tensors, weights=(), before=(), after=()):
        """An operation: arrays, then weights (values or (values, options)), then numbers."""
        params = []
        try:
            for values in weights:
                params.append(None if values is None else _Param(self, values[0], **values[1]))
            return self._work(lambda: self._call(name, *[self._tensor(x) for x in tensors],
                                                 *[p.address if p else None for p in params], *_after_of(after)))
        finally:
            for param in params:
                if param:
                    param.free()

    # ---- Operations: flis.h has the equations

    def linear(self, x, weight, bias=None, add=None):
        """torch.nn.functional.linear(x, weight, bias) + add. weight [out][in]."""
        return self._operation("linear", [x], [_w(weight), _w(bias)], after=[lambda: self._tensor(add)])

    def conv(self, x, weight, bias=None, kind="same", add=None):
        """Convolution of 1x1 or 3x3. kind: same, stride2, stride2_asymmetric (zeros right and below only), upsample2."""
        return self._operation("conv", [x], [_w(weight), _w(bias)],
                               after=[_choice(CONV, kind, "conv: kind"), lambda: self._tensor(add)])

    def group_norm(self, x, weight, bias, eps=1e-5, silu=False, groups=32):
        """Group norm of [n,c,h,w], followed by SiLU if asked."""
        return self._operation("group_norm", [x], [_w(weight, groups=groups), _w(bias)], after=[eps, silu])

    def layer_norm(self, x, weight, bias):
        """Layer norm over the last dimension of [n,t,c], eps 1e-5."""
        return self._operation("layer_norm", [x], [_w(weight), _w(bias)])

    def silu(self, x):
        """x sigmoid(x)."""
        return self._operation("silu", [x])

    def quick_gelu(self, x):
        """x sigmoid(1.702 x), CLIP's."""
        return self._operation("quick_gelu", [x])

    def geglu(self, x):
        """The first half of the channels times the exact (erf) GELU of the second."""
        return self._operation("geglu", [x])

    def add(self, a, b):
        """Elementwise sum of two arrays of one shape."""
        return self._operation("add", [a, b])

    def add_to_all(self, x, vectors):
        """x [n,c,h,w] plus vectors [n,c] at every position."""
        return self._operation("add_to_all", [x, vectors])

    def scale(self, x, factor):
        """x times a number."""
        return self._operation("scale", [x], after=[factor])

    def concat(self, a, b):
        """Channels of a, then of b."""
        return self._operation("concat", [a, b])

    def embed(self, ids, token, position):
        """token[ids] + position: ids [n,t], token [vocabulary,d], position [t,d]."""
        shape, address, keep = _take(ids, "i")
        rows = _take(position, self.code)[0][:1]
        if len(shape) != 2 or shape[1:] != rows:
            raise Error("embed: got ids of shape %s, wanted [n,t], t as in position: %s" % (list(shape), list(rows)))
        tables = []
        try:
            for values in (token, position):
                tables.append(_Param(self, values, table=True))
            return self._work(lambda: self._call("embed", address, shape[0], tables[0].address, tables[1].address))
        finally:
            for table in tables:
                table.free()

    def attention(self, q, k, v, heads, scale=None, causal=False, attended=None):
        """Multi-head attention of [n,t,c]: softmax(scale q k^T) v. scale: None for 1 / sqrt(c / heads). attended: None, or
        [t_query,t_key] of 1 (attended) and 0 (masked), the same for every sample."""
        of_q, of_k = _take(q, self.code)[0], _take(k, self.code)[0]
        if len(of_q) != 3 or len(of_k) != 3:
            raise Error("attention: got q of shape %s and k of shape %s, wanted [n,t,c]" % (list(of_q), list(of_k)))
        heads = _whole(heads, "attention: heads", 1)
        mask, keep = _Mask(causal, None), None
        if attended is not None:
            shape, address, keep = _take(attended, "B")
            if tuple(shape) != (of_q[1], of_k[1]):
                raise Error("attention: got attended of shape %s, wanted [%d,%d]" % (list(shape), of_q[1], of_k[1]))
            samples = (P * of_q[0])(*[address] * of_q[0])
            mask.attended = ctypes.addressof(samples)
            keep = keep, samples
        factor = (max(of_q[2], 1) / heads) ** -0.5 if scale is None else scale
        return self._operation("attention", [q, k, v], after=[heads, factor, mask])

    def digest(self, x):
        """SHA-256 of an array's values as little-endian reals in PyTorch's order: what flis prints for a trace."""
        text = ctypes.create_string_buffer(65)
        mark = self._function["here"](self._open())
        try:
            self._function["tensor_digest"](self._tensor(x), text)
        finally:
            self._function["rewind"](self.ctx, mark)
        return text.value.decode()

    # ---- Text and layouts

    def vocab(self, path=None):
        """A vocabulary: bpe_simple_vocab_16e6.txt, its .gz, or a merges.txt. None: bytes alone."""
        return Vocab(self, self._call("vocab_read", None if path is None else os.fsencode(path)))

    def vocab_parse(self, text):
        """The same from the text of a merges.txt."""
        data = text.encode() if isinstance(text, str) else bytes(text)
        return Vocab(self, self._call("vocab_parse", b"vocabulary", ctypes.cast(TEXT(data), P), len(data)))

    def rca_mask(self, label, class_ids, h, w):
        """The mask of rectified cross-attention at one scale: [h * w, 77], 1 attended, 0 masked. label [H,W] at picture size."""
        h, w = _whole(h, "rca_mask: h", 1), _whole(w, "rca_mask: w", 1)
        record, keep = self._rca(label, class_ids)
        out = (ctypes.c_uint8 * (h * w * TOKENS))()
        self._call("rca_mask", record.address, h, w, out)
        return _give((h * w, TOKENS), "B", ctypes.addressof(out))

    def _rca(self, label, class_ids):
        shape, address, labels = _take(label, "B")
        ids, ids_at, classes = _take(class_ids, "f")
        if len(shape) != 2 or len(ids) != 1:
            raise Error("rca: got a label of %d dimensions and ids of %d, wanted 2 and 1" % (len(shape), len(ids)))
        record = _Record(self, "flis_rca")
        for member, ctype, value in (("label", P, address), ("height", SIZE, shape[0]), ("width", SIZE, shape[1]),
                                     ("class_ids", P, ids_at), ("classes", SIZE, ids[0])):
            record.set(member, ctype, value)
        return record, (labels, classes)

    def _resize(self, name, label, h, w):
        shape, address, keep = _take(label, "B")
        if len(shape) != 2 or not _count(shape):
            raise Error("label: got shape %s, wanted [H,W]" % list(shape))
        h, w = _whole(h, name + ": h", 1), _whole(w, name + ": w", 1)
        out = (ctypes.c_uint8 * (h * w))()
        self._function[name](address, shape[0], shape[1], out, h, w)
        return _give((h, w), "B", ctypes.addressof(out))

    def label_pil(self, label, h, w):
        """A label map [H,W] at another size by PIL's nearest-neighbour rule: how a file is brought to the picture's size."""
        return self._resize("label_pil", label, h, w)

    def label_torch(self, label, h, w):
        """The same by torch's rule: how the map is brought to each scale of the U-Net."""
        return self._resize("label_torch", label, h, w)

    def read_label(self, path):
        """A label map from a PNG (gray values, palette indices, or R where R = G = B) or a PGM: [H,W]."""
        return self._read("read_label", path)

    def _read(self, name, path):
        record = _Record(self, "flis_picture")
        self._call(name, os.fsencode(path), record.address)
        return self._pixels(record)

    def _pixels(self, record):
        shape = tuple(record.at(m, SIZE).value for m in ("height", "width", "channels"))
        pixels = _give(shape if shape[2] > 1 else shape[:2], "B", record.at("pixels", P).value)
        self._function["picture_free"](record.address)
        return pixels

    def write_png(self, path, pixels):
        """A picture [H,W,3] or [H,W] of bytes as PNG."""
        shape, address, keep = _take(pixels, "B")
        if len(shape) not in (2, 3):
            raise Error("picture: got %d dimensions, wanted [H,W,3] or [H,W]" % len(shape))
        record = _Record(self, "flis_picture")
        for member, value in zip(("height", "width", "channels"), tuple(shape) + (1,)):
            record.set(member, SIZE, value)
        record.set("pixels", P, address)
        self._call("write_png", os.fsencode(path), record.address, None)

    # ---- Random numbers, schedule, steps

    def randn(self, seed, count, kind="cpu"):
        """torch.manual_seed(seed); torch.randn(count), to the bit for kind "cpu"; "cuda" is the GPU's generator."""
        record = _Record(self, "flis_rng")
        self._function["rng_seed"](record.address, _choice(GENERATORS, kind, "randn: kind"), _seed(seed, "randn"))
        count = _whole(count, "randn: count", 0)
        out = (ctypes.c_float * count)()
        self._function["randn"](record.address, out, count)
        return _give((count,), "f", ctypes.addressof(out))

    def schedule(self):
        """{"beta", "alpha_bar"}: 1000 values each, float64."""
        record = _Record(self, "flis_schedule")
        self._function["schedule_make"](record.address)
        return {name: _give((TIMESTEPS,), "d", ctypes.addressof(record.at(name, DOUBLE, TIMESTEPS)))
                for name in ("beta", "alpha_bar")}

    def steps(self, steps=50, sampler="plms", eta=0.0):
        """{"t", "alpha", "alpha_prev", "sigma"} of a sampler, index 0 the smallest timestep."""
        schedule, record = _Record(self, "flis_schedule"), _Record(self, "flis_steps")
        self._function["schedule_make"](schedule.address)
        self._call("steps_make", schedule.address, _choice(SAMPLERS, sampler, "steps: sampler"),
                   _whole(steps, "steps"), eta, record.address)
        count, out = record.at("count", SIZE).value, {}
        for name, ctype, code in (("t", ctypes.c_int64, "q"), ("alpha", ctypes.c_float, "f"), ("alpha_prev", DOUBLE, "d"),
                                  ("sigma", DOUBLE, "d")):
            out[name] = _give((count,), code, ctypes.addressof(record.at(name, ctype, TIMESTEPS)))
        return out

    # ---- Models

    def load(self, source, parts="paint"):
        """A model from a path (safetensors file, sharded index, diffusers folder) or from the bytes of a safetensors file.
        parts: a name or list of names of text, unet, decoder, encoder; "paint" is the first three, "all" all four, "none"
        reads parts when they are needed and frees them after."""
        names = [parts] if isinstance(parts, str) else parts
        chosen = 0
        for name in names:
            chosen |= _choice(PARTS, name, "load: parts")
        if isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source)
            return Model(self, self._call("model_load_memory", b"model", ctypes.cast(TEXT(data), P), len(data), chosen), data)
        return Model(self, self._call("model_load", os.fsencode(source), chosen), None)

    def use(self, model):
        """The same loaded model in this context: for a second thread. Close the first one last."""
        if not isinstance(model, Model):
            raise Error("use: got %s, wanted a model" % type(model).__name__)
        return Model(self, model._open(self), model.data, owner=model)


def _seed(value, what):
    return _whole(value, what + ": seed", 0, (1 << 64) - 1)


def _w(values, **options):
    return None if values is None else (values, options)


def _after_of(arguments):
    return [a() if callable(a) else a for a in arguments]


class _Handle:
    """What a Flis object loaded, until it is closed; owner: the one that the memory belongs to, None: this one."""

    def __init__(self, flis, handle, owner=None):
        self.flis, self.handle, self.owner = flis, handle, owner

    def _open(self, flis=None):
        """The address, for a call in `flis`: a closed one, or one of another library, would end the interpreter."""
        if not self.handle or (self.owner is not None and not self.owner.handle):
            raise Error("%s: it was closed" % self.what)
        if flis is not None and flis._library._handle != self.flis._library._handle:
            raise Error("%s: it belongs to another library" % self.what)
        return self.handle


class Vocab(_Handle):
    """A vocabulary of byte-pair merges."""

    what = "vocabulary"

    def close(self):
        if self.handle:
            self.flis._function["vocab_free"](self.handle)
        self.handle = None

    def __len__(self):
        return self.flis._function["vocab_size"](self._open())

    def tokens(self, text):
        """Token ids of a text, without begin, end and padding."""
        data, ids = text.encode() if isinstance(text, str) else bytes(text), P()
        count = self.flis._function["tokenize"](self.flis._open(), self._open(), data, len(data), ctypes.byref(ids))
        if count < 0:
            self.flis._fail()
        try:
            return list((ctypes.c_int32 * count).from_address(ids.value)) if count else []
        finally:
            self.flis._function["release"](ids)

    def prompt(self, phrases):
        """Phrases [(text, class id)…], as flis joins them: {"text", "ids" [77], "tokens", "class_ids"}."""
        vocab, layout, record = self._open(), _Layout(self.flis, phrases, None), _Record(self.flis, "flis_prompt")
        try:
            self.flis._call("prompt_make", vocab, layout.record.at("phrase", P).value,
                            layout.record.at("count", SIZE).value, record.address)
        finally:
            layout.free()
        classes = record.at("classes", SIZE).value
        out = {"text": ctypes.string_at(record.at("text", P).value).decode("utf-8", "replace"),
               "ids": list(record.at("ids", ctypes.c_int32, TOKENS)), "tokens": record.at("tokens", SIZE).value,
               "class_ids": list(record.at("class_ids", ctypes.c_float, TOKENS))[:classes]}
        self.flis._function["prompt_free"](record.address)
        return out


class _Layout:
    """flis_layout from a JSON file, or from phrases and a label map."""

    def __init__(self, flis, source, label):
        self.flis, self.record = flis, _Record(flis, "flis_layout")
        try:
            if isinstance(source, (str, bytes, os.PathLike)):
                flis._call("layout_read", os.fsencode(source), self.record.address)
                source = []
            for text, number in source:
                flis._call("layout_add", self.record.address, text.encode() if isinstance(text, str) else text,
                           _whole(number, "layout: class id"))
            if label is not None:
                shape, address, keep = _take(label, "B")
                if len(shape) != 2:
                    raise Error("label: got %d dimensions, wanted 2 [H,W]" % len(shape))
                flis._call("layout_set_label", self.record.address, address, shape[1], shape[0])
        except Exception:
            self.free()
            raise

    def free(self):
        self.flis._function["layout_free"](self.record.address)


class Model(_Handle):
    """A loaded model. Close it when it is not needed any more."""

    what = "model"

    def __init__(self, flis, handle, data, owner=None):
        _Handle.__init__(self, flis, handle, owner and (owner.owner or owner))
        self.data = data

    def close(self):
        """Frees the weights. A closed model is refused with a sentence."""
        if self.handle and self.owner is None:
            self.flis._function["model_free"](ctypes.byref(P(self.handle)))
        self.handle = None

    def _part(self, name):
        part = self.flis._function["model_" + name](self._open())
        if not part:
            raise Error("model: its %s is not loaded: name it in load's parts" % {"vae": "autoencoder"}.get(name, name))
        return part

    def clip(self, ids):
        """Token ids [n,77] to text features [n,77,d]."""
        shape, address, keep = _take(ids, "i")
        if len(shape) != 2 or shape[1] != TOKENS:
            raise Error("clip: got ids of shape %s, wanted [n,77]" % list(shape))
        return self.flis._work(lambda: self.flis._call("clip_encode", self._part("clip"), address, shape[0]))

    def unet(self, x, t, context, rca=None):
        """eps of latents [n,4,h,w] at timesteps t [n] with text features [n,77,d]. rca: None, or for each sample None or
        (label [H,W], class_ids)."""
        shape, times_at, times = _take(t, "d")
        latents = _take(x, self.flis.code)[0]
        if len(latents) != 4:
            raise Error("unet: got latents of shape %s, wanted [n,4,h,w]" % list(latents))
        samples = latents[0]
        if tuple(shape) != (samples,):
            raise Error("unet: got timesteps of shape %s, wanted [%d]" % (list(shape), samples))
        records = [None if r is None else self.flis._rca(*r) for r in (rca or [])]
        if rca is not None and len(records) != samples:
            raise Error("unet: got %d layouts, wanted %d, one a sample" % (len(records), samples))
        pointers = (P * samples)(*[r[0].address if r else None for r in records]) if rca is not None else None
        return self.flis._work(lambda: self.flis._call("unet_eps", self._part("unet"), self.flis._tensor(x), times_at,
                                                       self.flis._tensor(context), pointers))

    def decode(self, z):
        """Latents divided by the scale factor [n,4,h,w] to pictures [n,3,8h,8w], values about -1..1."""
        return self.flis._work(lambda: self.flis._call("vae_decode", self._part("vae"), self.flis._tensor(z)))

    def encode(self, image):
        """Pictures [n,3,H,W] to moments [n,8,H/8,W/8]: means, then log variances."""
        return self.flis._work(lambda: self.flis._call("vae_encode", self._part("vae"), self.flis._tensor(image)))

    def generate(self, vocab, phrases=None, label=None, layout=None, width=512, height=512, steps=50, sampler="plms", seed=42,
                 scale=2.0, eta=0.0, rng="cpu", no_layout=False, noise=None, trace=None, trace_attention=False, progress=None,
                 negative=None):
        """A picture [height,width,3] of bytes. Either layout, the path of a JSON file, which names its label map, or phrases
        [(text, class id)…] and label [H,W]. noise: x_T [1,4,height/8,width/8] instead of drawing it. negative: a text in
        place of "" in the unconditional pass. trace(name, array) gets every intermediate, with trace_attention also scores
        and weights inside; progress(what, done, total) is called as work goes on."""
        flis = self.flis
        if layout is None and phrases is None:
            raise Error("generate: give layout or phrases")
        if layout is not None and not (phrases is None and label is None):
            raise Error("generate: got layout and %s, wanted one of them" % ("label" if phrases is None else "phrases"))
        if not isinstance(vocab, Vocab):
            raise Error("generate: got %s, wanted a vocabulary" % type(vocab).__name__)
        model, vocabulary, most = self._open(), vocab._open(flis), (1 << 64) - 1
        options, picture = _Record(flis, "flis_options"), _Record(flis, "flis_picture")
        sampling = _Record(flis, "flis_sampling")
        flis._function["options_default"](options.address)
        for member, ctype, value in (("kind", INT, _choice(SAMPLERS, sampler, "generate: sampler")),
                                     ("steps", INT, _whole(steps, "generate: steps")), ("eta", DOUBLE, eta),
                                     ("scale", DOUBLE, scale)):
            sampling.set(member, ctype, value)
        offset, size = flis._abi("flis_options.sampling")
        ctypes.memmove(options.address + offset, sampling.address, size)
        for member, ctype, value in (("seed", ctypes.c_uint64, _seed(seed, "generate")),
                                     ("rng", INT, _choice(GENERATORS, rng, "generate: rng")),
                                     ("width", SIZE, _whole(width, "generate: width", 0, most)),
                                     ("height", SIZE, _whole(height, "generate: height", 0, most)),
                                     ("no_layout", BOOL, no_layout)):
            options.set(member, ctype, value)
        if negative is not None:
            if not isinstance(negative, (str, bytes)):
                raise Error("generate: negative: got %s, wanted a text" % type(negative).__name__)
            text = ctypes.create_string_buffer(negative.encode() if isinstance(negative, str) else negative)
            options.set("negative", P, ctypes.addressof(text))
        if noise is not None:
            shape, address, keep = _take(noise, flis.code)
            wanted = (4, height // 8, width // 8)
            if tuple(shape) not in (wanted, (1,) + wanted):
                raise Error("generate: got noise of shape %s, wanted %s" % (list(shape), [1] + list(wanted)))
            options.set("noise_values", P, address)
            options.set("noise_count", SIZE, _count(shape))
        described = _Layout(flis, phrases if layout is None else layout, label)
        hooks = _Hooks(flis, trace, trace_attention, progress)
        try:
            flis._call("model_generate", model, vocabulary, described.record.address, options.address, picture.address)
        finally:
            hooks.remove()
            described.free()
        hooks.check()
        return flis._pixels(picture)


class _Hooks:
    """The context's trace and progress, for the time of one call. An exception in one is raised after the call."""

    def __init__(self, flis, trace, attention, progress):
        self.flis, self.failure = flis, None

        def traced(user, name, tensor):
            self.run(lambda: trace(name.decode("utf-8", "replace"), flis._array(tensor)))

        def wanted(user, name, count):
            return True

        def progressed(user, what, done, total):
            self.run(lambda: progress(what.decode(), done, total))

        kinds = (("trace", trace, traced, ctypes.CFUNCTYPE(None, P, TEXT, P)),
                 ("trace_wants", trace and attention, wanted, ctypes.CFUNCTYPE(BOOL, P, TEXT, SIZE)),
                 ("progress", progress, progressed, ctypes.CFUNCTYPE(None, P, TEXT, SIZE, SIZE)))
        self.keep = []
        for member, asked, function, kind in kinds:
            pointer = kind(function) if asked else None
            self.keep.append(pointer)
            flis._ctx.set(member, P, ctypes.cast(pointer, P).value if pointer else None)

    def run(self, work):
        try:
            if self.failure is None:
                work()
        except BaseException as failure:
            self.failure = failure

    def remove(self):
        for member in ("trace", "trace_wants", "progress"):
            self.flis._ctx.set(member, P, None)

    def check(self):
        if self.failure is not None:
            raise self.failure


# ---- Files of tensors

DTYPES = {"F64": 0, "F32": 1, "F16": 2, "BF16": 3, "I64": 4, "I32": 5, "I16": 6, "I8": 7, "U8": 8, "BOOL": 9}
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
LARGEST_HEADER = 100000000  # bytes; safetensors' own limit
NUMPY = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
         "uint8": "U8", "bool": "BOOL"}


def save_trace(path, tensors, flis=None):
    """Writes {name: array} as a safetensors file, in the order of the dictionary: what `compare` reads. The library writes it,
    so the file appears only when it is complete."""
    f = flis or Flis()
    rows = []
    for name, value in tensors.items():
        if hasattr(value, "detach"):
            value = value.detach().cpu().numpy() if numpy is not None else value.detach().cpu().tolist()
        if numpy is not None and not isinstance(value, Array):
            value = numpy.asarray(value)
            dtype = NUMPY.get(value.dtype.name)
            if dtype is None:
                raise Error("%s: tensor %r: got dtype %s, wanted one of %s" % (path, name, value.dtype, " ".join(sorted(NUMPY))))
            data = numpy.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<")).tobytes()
            rows.append((name, dtype, value.shape, data))
            continue
        if not isinstance(value, Array):
            shape, _, flat = _take(value, f.code)
            value = Array(shape, flat)
        data = value.data
        if struct.pack("=H", 1) != struct.pack("<H", 1):
            data = array.array(data.typecode, data)
            data.byteswap()
        rows.append((name, TYPES[value.data.typecode][1], value.shape, data.tobytes()))
    writer = f._call("write_begin", os.fsencode(path))
    try:
        for name, dtype, shape, data in rows:
            sizes = (ctypes.c_uint64 * max(1, len(shape)))(*shape)
            f._call("write_declare", writer, name.encode(), DTYPES[dtype], len(shape), sizes)
        for name, dtype, shape, data in rows:
            f._call("write_raw", writer, ctypes.cast(TEXT(data), P), _count(shape))
    except Exception:
        f._function["write_abort"](writer)
        raise
    f._call("write_end", writer)


def load_tensors(path):
    """{name: array} of a safetensors file. BF16 tensors become float32."""
    out = {}
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header, start = _header(path, file, size)
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            try:
                dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
                fits = all(isinstance(n, int) and n >= 0 for n in shape + [begin, end])
                fits = fits and start + end <= size and end - begin == _count(shape) * BYTES[dtype]
            except (KeyError, TypeError, ValueError):
                fits = False
            if not fits:
                raise Error("%s: tensor %r: got %.200r, wanted a dtype of %s, a shape, and offsets that fit both and the file"
                            % (path, name, entry, " ".join(sorted(BYTES))))
            file.seek(start + begin)
            out[name] = _from_bytes(dtype, shape, file.read(end - begin))
    return out


def _header(path, file, size):
    """(header, offset of the data) of a safetensors file."""
    first = file.read(8)
    if len(first) < 8:
        raise Error("%s: not a safetensors file: got %d bytes, wanted 8 or more" % (path, size))
    (length,) = struct.unpack("<Q", first)
    if length > min(size - 8, LARGEST_HEADER):
        raise Error("%s: not a safetensors file: got a header of %d bytes, wanted at most %d"
                    % (path, length, min(size - 8, LARGEST_HEADER)))
    try:
        header = json.loads(file.read(length).decode())
    except (ValueError, RecursionError) as failure:
        raise Error("%s: not a safetensors file: its header is not JSON: %s" % (path, failure))
    if not isinstance(header, dict):
        raise Error("%s: not a safetensors file: got %s as the header, wanted an object" % (path, type(header).__name__))
    return header, 8 + length


def _from_bytes(dtype, shape, data):
    if dtype in ("F16", "BF16", "BOOL") and numpy is None:
        if dtype == "F16":
            return Array(shape, array.array("f", struct.unpack("<%de" % (len(data) // 2), data)))
        if dtype == "BOOL":
            return Array(shape, array.array("B", data))
    if dtype == "BF16":
        wide = b"".join(b"\0\0" + data[i:i + 2] for i in range(0, len(data), 2))
        return _from_bytes("F32", shape, wide)
    if numpy is not None:
        kinds = {"F16": "<f2", "BOOL": "|b1"}
        kinds.update({safe: "<" + kind for kind, safe in TYPES.values()})
        return numpy.frombuffer(data, dtype=kinds[dtype]).reshape(shape).copy()
    code = {safe: code for code, (_, safe) in TYPES.items()}[dtype]
    values = array.array(code, data)
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        values.byteswap()
    return Array(shape, values)
