#!/usr/bin/env python3
"""torch_trace.py - records the intermediate tensors of a PyTorch model under flis's names, in flis's file formats.

Hooks the modules of a U-Net, autoencoder or text encoder with the names of the authors' code (CompVis) or of diffusers,
which are translated to the authors', and the intermediate tensors of attn1 and attn2: q, k, v, scores, mask, weights.
The result has the format of `flis generate --trace` and `flis stage --trace` (safetensors) or of --trace-digest (JSON),
so that bin/compare can find the first tensor that differs. Needs PyTorch and numpy; no safetensors package.

In a program:

    from torch_trace import trace
    with trace(unet, "theirs.safetensors"):                     # like `flis stage unet --trace`
        unet(x, t, context)
    with trace(unet, "theirs.safetensors", passes="guided", sampler="plms", steps=[0, 49]):
        sampler.sample(...)                                     # like `flis generate --trace`

On the command line, for a model that a function without arguments returns, with the tensors of a file as arguments:

    torch_trace.py [options] MODULE:FUNCTION INPUTS.safetensors OUT
"""
import argparse
import contextlib
import fnmatch
import hashlib
import importlib
import json
import os
import re
import struct
import sys

import numpy as np
import torch

# ---- Names -----------------------------------------------------------------------------------------------------------

PART = r"((input_blocks|output_blocks)\.\d+\.\d+|middle_block\.\d+)"
OF_PART = r"in_layers\.[02]|emb_layers\.1|out_layers\.[03]|skip_connection|norm|proj_in|proj_out"
OF_BLOCK = r"norm[123]|ff(\.net\.0(\.proj)?)?|attn[12](\.(to_)?[qkv]|\.scores|\.mask|\.weights)?"
FLIS_NAMES = re.compile("|".join((
    r"time_embed(\.0)?", r"(input_blocks|output_blocks)\.\d+", r"middle_block", r"out(\.0)?",
    rf"(?!input_blocks\.0\.){PART}(\.({OF_PART}))?", rf"{PART}\.transformer_blocks\.\d+(\.({OF_BLOCK}))?",
    r"(encoder|decoder)\.(conv_in|conv_out|norm_out|(up|down)\.\d+\.(upsample|downsample))", r"(post_)?quant_conv",
    r"(encoder|decoder)\.(mid\.block_[12]|(up|down)\.\d+\.block\.\d+)(\.(norm[12]|conv[12]|nin_shortcut))?",
    r"(encoder|decoder)\.mid\.attn_1(\.(norm|q|k|v|proj_out))?",
    r"embeddings|final_layer_norm", r"encoder\.layers\.\d+(\.(layer_norm[12]|self_attn(\.[qkv]_proj)?|mlp(\.fc1)?))?")))
ROOTS = ("model.diffusion_model.", "diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model.",
         "transformer.text_model.", "text_model.")

RES_NAMES = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
             "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
OUTER_NAMES = {"conv_in": "input_blocks.0", "time_embedding": "time_embed", "time_embedding.linear_1": "time_embed.0",
               "time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0", "conv_out": "out"}
VAE_PIECES = {"mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2",
              "mid_block.attentions.0": "mid.attn_1", "conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut",
              "group_norm": "norm", "query": "q", "key": "k", "value": "v", "proj_attn": "proj_out",
              "to_out.0": "proj_out", "to_q": "q", "to_k": "k", "to_v": "v"}


class Names:
    """The authors' names of a model's modules. A module path may have several names, or none."""

    def __init__(self, paths):
        self.paths = set(paths)
        self.root = ""
        for root in ROOTS:
            if any(p.startswith(root) for p in paths):
                self.root = root
                break
        inner = [p[len(self.root):] for p in paths if p.startswith(self.root)]
        resnets = [int(m[1]) for m in (re.match(r"down_blocks\.\d+\.resnets\.(\d+)$", p) for p in inner) if m]
        self.diffusers_unet = bool(resnets)
        self.per_level = max(resnets, default=-1) + 2
        self.inner = set(inner)
        ups = [int(m[1]) for m in (re.match(r"decoder\.up_blocks\.(\d+)\.", p) for p in inner) if m]
        self.diffusers_vae = bool(ups) or any(p.startswith("encoder.down_blocks.") for p in inner)
        self.vae_levels = max(ups, default=-1) + 1

    def of(self, path):
        if not path.startswith(self.root):
            return []
        inner = path[len(self.root):]
        if self.diffusers_unet:
            return self.unet(inner)
        return self.vae(inner) if self.diffusers_vae else [inner]

    def last_of_block(self, block, part):
        """Whether part (resnets.I, attentions.I, …) is the last of one of the authors' blocks."""
        kind, index = part.split(".")
        if kind == "resnets" and f"{block}.attentions.{index}" in self.inner:
            return False
        resnets = sum(re.fullmatch(re.escape(block) + r"\.resnets\.\d+", p) is not None for p in self.inner)
        return not (block.startswith("up_blocks") and int(index) == resnets - 1 and kind != "upsamplers"
                    and f"{block}.upsamplers.0" in self.inner)

    def unet(self, path):
        if path in OUTER_NAMES:
            return [OUTER_NAMES[path]]
        m = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)(?:\.(.+))?", path)
        if m:
            number = 1 if m[1] == "attentions" else 2 * int(m[2])
            return self.part(f"middle_block.{number}", "middle_block" if number == 2 else None, m[1], m[3])
        m = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|(?:down|up)samplers)\.(\d+)(?:\.(.+))?", path)
        if not m:
            return []
        level, kind, index, rest = int(m[2]), m[3], int(m[4]), m[5]
        block = f"{m[1]}_blocks.{level}"
        if kind == "downsamplers":
            outer = f"input_blocks.{(level + 1) * self.per_level}"
            return self.part(f"{outer}.0", outer, kind, "op" if rest == "conv" else rest)
        if kind == "upsamplers":
            outer = f"output_blocks.{level * self.per_level + self.per_level - 1}"
            number = 2 if any(p.startswith(f"{block}.attentions.") for p in self.inner) else 1
            return self.part(f"{outer}.{number}", outer, kind, rest)
        number = level * self.per_level + index
        outer = f"input_blocks.{number + 1}" if m[1] == "down" else f"output_blocks.{number}"
        last = self.last_of_block(block, f"{kind}.{index}")
        return self.part(f"{outer}.{0 if kind == 'resnets' else 1}", outer if last else None, kind, rest)

    @staticmethod
    def part(name, outer, kind, rest):
        if rest is None:
            return [name] + ([outer] if outer else [])
        if kind == "resnets":
            return [f"{name}.{RES_NAMES[rest]}"] if rest in RES_NAMES else []
        return [f"{name}.{rest}"]

    def vae(self, path):
        for old, new in VAE_PIECES.items():
            path = re.sub(rf"(^|\.){re.escape(old)}(?=\.|$)", lambda m: m[1] + new, path)
        m = re.fullmatch(r"(encoder\.down|decoder\.up)_blocks\.(\d+)\.(resnets\.(\d+)|(?:down|up)samplers\.0)(\..+)?",
                         path)
        if not m:
            return [path]
        level = int(m[2]) if m[1] == "encoder.down" else self.vae_levels - 1 - int(m[2])
        inner = f"block.{m[4]}" if m[4] else "downsample" if m[1] == "encoder.down" else "upsample"
        return [f"{m[1]}.{level}.{inner}{m[5] or ''}"]


# ---- Files -----------------------------------------------------------------------------------------------------------

DTYPES = {torch.float64: ("F64", "<f8"), torch.float32: ("F32", "<f4"), torch.float16: ("F16", "<f2"),
          torch.bfloat16: ("BF16", "<i2"), torch.uint8: ("U8", "u1"), torch.int64: ("I64", "<i8"),
          torch.int32: ("I32", "<i4")}
READ = {name: kind for name, kind in DTYPES.values()}


def raw(tensor):
    """A tensor's dtype in safetensors, and its values as a numpy array of the same width."""
    name, kind = DTYPES[tensor.dtype]
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.int16)
    return name, tensor.numpy().astype(kind, copy=False)


@contextlib.contextmanager
def output(path, mode, **options):
    """A file that gets its name when it is complete, as flis writes files: what a link points to is replaced, a pipe or device
    gets the bytes, and no other file of the user is touched."""
    if os.path.exists(path) and not os.path.isfile(path):
        if os.path.isdir(path):
            raise IsADirectoryError(f"{path}: is a folder, wanted a file name")
        with open(path, mode, **options) as file:
            yield file
        return
    target, count = os.path.realpath(path), 1
    while os.path.lexists(partial := f"{target}{f'.{count}' if count > 1 else ''}.partial"):
        count += 1
    try:
        with open(partial, mode.replace("w", "x"), **options) as file:
            yield file
        os.replace(partial, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)
        raise


def write_safetensors(path, tensors, metadata):
    """tensors: name -> CPU tensor, written in that order."""
    header, at = {"__metadata__": metadata}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype][0], "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with output(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(raw(tensor)[1].tobytes())


def read_safetensors(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[begin:end], READ[entry["dtype"]]).reshape(entry["shape"])
        tensor = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=True))
        tensors[name] = tensor.view(torch.bfloat16) if entry["dtype"] == "BF16" else tensor
    return tensors


def finite(x):
    return x if np.isfinite(x) else "NaN" if np.isnan(x) else "Infinity" if x > 0 else "-Infinity"


def digest(name, tensor):
    """One entry of flis's --trace-digest."""
    dtype, values = raw(tensor)
    flat = tensor.double().numpy().ravel()
    count, digits = flat.size, 17 if dtype == "F64" else 9
    bad = ~np.isfinite(flat)
    at = int(bad.argmax()) if bad.any() else int(np.abs(flat).argmax()) if count else 0
    stride = max(1, count // 64)
    with np.errstate(invalid="ignore", over="ignore"):
        mean, std = (float(flat.mean()), float(flat.std())) if count else (0.0, 0.0)

    def short(x):
        return finite(float(f"{x:.{digits}g}"))
    return {"name": name, "dtype": dtype, "shape": list(tensor.shape), "mean": finite(mean), "std": finite(std),
            "largest": short(abs(flat[at])) if count else 0, "largest_at": at, "not_finite": int(bad.sum()),
            "stride": stride, "samples": [short(x) for x in flat[::stride][:64]],
            "sha256": hashlib.sha256(values.tobytes()).hexdigest()}


def write_digest(path, lines, metadata):
    with output(path, "w", encoding="utf-8") as file:
        file.write('{"metadata": ' + json.dumps(metadata, ensure_ascii=False) + ',\n"tensors": [')
        file.write(",".join("\n" + json.dumps(line, ensure_ascii=False) for line in lines))
        file.write("\n]}\n")


# ---- Hooks -----------------------------------------------------------------------------------------------------------

ATTENTION = re.compile(r"transformer_blocks\.\d+\.attn[12]$")


def output_of(value):
    """The tensor in a module's output: the output, the first of a tuple, or .sample of diffusers' results."""
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    value = getattr(value, "sample", value)
    return value if isinstance(value, torch.Tensor) else None


class trace:
    """Context manager: records while the block runs, and writes `path` unless the block raises.

    model    a U-Net, an autoencoder, a text encoder, or a whole LatentDiffusion of which one part is called
    path     the file to write
    match    a glob that a whole name must match (like --trace-match: * matches dots too)
    steps    sampler steps to record, from 0; None: all
    passes   "single": names begin with the module; those of the second call with "call.1.", …
             "guided": the calls alternate conditional and unconditional within a sampler's steps, like the authors':
             names begin with "step.0.cond." and so on; "unguided": no unconditional calls
    sampler  "plms": a second evaluation in the first step ("step.0.next.cond."); "ddim": none
    batch    where one batch is several passes, their names in order: ["uncond", "cond"] for diffusers
    insides  an attention's scores and weights are recorded up to this number of values
    digest   write the JSON digest instead of the values
    every    record every module, even where flis has no name for it
    prefix   added in front of every name ("clip.", "decode.": the parts of `flis generate`)
    """

    def __init__(self, model, path, match="*", steps=None, passes="single", sampler="plms", batch=None, insides=1 << 24,
                 digest=False, every=False, prefix=""):
        if passes not in ("single", "guided", "unguided"):
            raise ValueError(f"passes: got {passes!r}, wanted single, guided or unguided")
        self.model, self.path, self.match = model, path, match
        self.passes, self.sampler, self.batch = passes, sampler, batch
        self.steps = None if steps is None else set(steps)
        self.insides, self.digest, self.every, self.prefix = insides, digest, every, prefix
        self.tensors, self.lines, self.hooks, self.calls = {}, [], [], 0
        self.attention, self.softmax, self.saved = [], [], {}

    # -- the current call

    def root_module(self, names):
        root = names.root.rstrip(".")
        return self.model.get_submodule(root) if root else self.model

    def count_call(self, module, inputs):
        self.calls += 1

    def scope(self):
        call = self.calls - 1
        if self.passes == "single":
            return self.prefix + (f"call.{call}." if call else ""), 0
        side = ""
        if self.batch is None:
            guided = self.passes == "guided"
            side = ("cond.", "uncond.")[call % 2] if guided else "cond."
            call = call // 2 if guided else call
        second = self.sampler == "plms" and call == 1
        step = max(0, call - 1) if self.sampler == "plms" else call
        return f"{self.prefix}step.{step}.{'next.' if second else ''}{side}", step

    # -- recording

    def put(self, name, tensor):
        scope, step = self.scope()
        if self.passes != "single" and self.steps is not None and step not in self.steps:
            return
        parts = [("", tensor)]
        if self.batch:
            parts = [(f"{part}.", piece) for part, piece in zip(self.batch, tensor.chunk(len(self.batch)))]
        for part, piece in parts:
            full = scope + part + name
            if not fnmatch.fnmatchcase(full, self.match):
                continue
            piece = piece.detach().to("cpu").contiguous()
            if self.digest:
                self.lines.append(digest(full, piece))
            else:
                self.tensors[full] = piece.clone()

    def wanted(self, name):
        return self.every or FLIS_NAMES.fullmatch(name)

    def hook(self, names):
        def after(module, inputs, output):
            tensor = output_of(output)
            if tensor is None or tensor.dtype not in DTYPES:
                return
            for name in names:
                if self.wanted(name):
                    self.put(name, tensor)
        return after

    # -- inside an attention: outputs of to_q, to_k, to_v are kept, calls of softmax recorded, while the module runs

    def attention_hooks(self, module, name):
        def before(module, inputs):
            self.attention.append(name)
            self.softmax.append([])
            self.saved[name] = {}

        def after(module, inputs, output):
            self.attention.pop()
            self.record_insides(module, name, self.saved.pop(name), self.softmax.pop())

        def keep(part):
            def after_part(module, inputs, output):
                if name in self.saved:
                    self.saved[name][part] = output
            return after_part
        self.hooks.append(module.register_forward_pre_hook(before))
        for part in "qkv":
            self.hooks.append(getattr(module, f"to_{part}").register_forward_hook(keep(part)))
        self.hooks.append(module.register_forward_hook(after))

    def record_insides(self, module, name, qkv, softmax):
        heads = getattr(module, "heads", None)
        if len(qkv) != 3 or not heads:
            return
        # rearrange(x, 'b n (h d) -> (b h) n d')
        split = {part: x.unflatten(2, (heads, -1)).transpose(1, 2).flatten(0, 1) for part, x in qkv.items()}
        q, k = split["q"], split["k"]
        for part in "qkv":
            self.put(f"{name}.{part}", split[part])
        shape = (q.shape[0], q.shape[1], k.shape[1])
        if np.prod(shape, dtype=np.int64) > self.insides:
            return
        scale = getattr(module, "scale", q.shape[-1] ** -0.5)
        self.put(f"{name}.scores", torch.einsum("bid,bjd->bij", q, k) * scale)
        if not softmax:
            print(f"torch_trace: note: {name}: no call of softmax was seen: mask and weights are not recorded",
                  file=sys.stderr)
            return
        masked, weights = (torch.cat([x[i].reshape(-1, *shape[1:]) for x in softmax]) for i in (0, 1))
        attended = masked > torch.finfo(masked.dtype).min / 2
        if name.endswith("attn2") and not bool(attended.all()):
            samples = attended.reshape(-1, heads, *shape[1:])[:, 0].to(torch.uint8)
            self.put(f"{name}.mask", samples[0] if samples.shape[0] == 1 and not self.batch else samples)
        self.put(f"{name}.weights", weights)

    def recording(self, softmax):
        def recorded(x, *args, **kwargs):
            before = x.detach().clone() if self.attention else None     # a copy, because softmax may work in place
            y = softmax(x, *args, **kwargs)
            if self.attention and x.dim() in (3, 4):
                self.softmax[-1].append((before, y.detach()))
            return y
        return recorded

    def recording_fused(self, fused):
        def recorded(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **kwargs):
            if self.attention and not is_causal:
                scores = q.detach() @ k.detach().transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
                if attn_mask is not None and attn_mask.dtype == torch.bool:
                    scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
                elif attn_mask is not None:
                    scores = scores + attn_mask
                self.softmax[-1].append((scores, self.plain_softmax(scores, dim=-1)))
            if scale is not None:
                kwargs["scale"] = scale
            return fused(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, **kwargs)
        return recorded

    def patch(self):
        functional = torch.nn.functional
        self.plain_softmax = torch.softmax
        self.patched = [(torch, "softmax"), (torch.Tensor, "softmax"), (functional, "softmax")]
        old = [getattr(owner, name) for owner, name in self.patched]
        self.unpatched = list(zip(self.patched, old))
        for (owner, name), function in self.unpatched:
            setattr(owner, name, self.recording(function))
        if hasattr(functional, "scaled_dot_product_attention"):
            fused = functional.scaled_dot_product_attention
            self.unpatched.append(((functional, "scaled_dot_product_attention"), fused))
            functional.scaled_dot_product_attention = self.recording_fused(fused)

    # -- the block

    def __enter__(self):
        modules = dict(self.model.named_modules())
        names = Names([path for path in modules if path])
        self.hooks.append(self.root_module(names).register_forward_pre_hook(self.count_call))
        for path, module in modules.items():
            mine = names.of(path) if path and (self.every or not isinstance(module, torch.nn.Identity)) else []
            for name in mine:
                if ATTENTION.search(name) and all(hasattr(module, f"to_{p}") for p in "qkv"):
                    self.attention_hooks(module, name)
            if mine:
                self.hooks.append(module.register_forward_hook(self.hook(mine)))
        self.patch()
        return self

    def __exit__(self, kind, value, traceback):
        for (owner, name), function in self.unpatched:
            setattr(owner, name, function)
        for hook in self.hooks:
            hook.remove()
        if kind is not None:
            return False
        metadata = {"torch": torch.__version__, "command": "torch_trace", "model": type(self.model).__name__,
                    "match": self.match}
        if self.digest:
            write_digest(self.path, self.lines, metadata)
        else:
            write_safetensors(self.path, self.tensors, metadata)
        return False


# ---- Command line ----------------------------------------------------------------------------------------------------

def parse_steps(text):
    steps = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        steps.update(range(int(first), int(last or first) + 1))
    return steps


def main():
    parser = argparse.ArgumentParser(prog="torch_trace.py", description="Runs a PyTorch model on given tensors and "
                                     "writes its intermediate tensors under flis's names.")
    parser.add_argument("model", metavar="MODULE:FUNCTION",
                        help="returns the model; MODULE is searched in the current folder first")
    parser.add_argument("inputs", metavar="INPUTS.safetensors", help="arguments of the model's forward, by name")
    parser.add_argument("out", metavar="OUT", help="the file to write")
    parser.add_argument("--match", default="*", metavar="GLOB", help="only tensors whose whole name matches")
    parser.add_argument("--steps", type=parse_steps, metavar="LIST", help="only these sampler steps: 0,49 or 0-3")
    parser.add_argument("--passes", default="single", choices=("single", "guided", "unguided"),
                        help="how the model is called")
    parser.add_argument("--sampler", default="plms", choices=("plms", "ddim"), help="the sampler that calls the model")
    parser.add_argument("--digest", action="store_true", help="write digests and statistics (JSON) instead of values")
    parser.add_argument("--every", action="store_true", help="every module, even where flis has no name for it")
    parser.add_argument("--prefix", default="", help="added in front of every name")
    parser.add_argument("--double", action="store_true", help="run in float64")
    args = parser.parse_args()
    if os.path.exists(args.out) and os.path.samefile(args.inputs, args.out):
        parser.error(f"{args.out}: the output is the input; wanted another file")
    module, _, function = args.model.partition(":")
    if not function:
        parser.error(f"got {args.model}, wanted MODULE:FUNCTION")
    sys.path.insert(0, os.getcwd())
    model = getattr(importlib.import_module(module), function)()
    inputs = read_safetensors(args.inputs)
    if args.double:
        model = model.double()
        inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    with torch.no_grad(), trace(model.eval(), args.out, args.match, args.steps, args.passes, args.sampler,
                                digest=args.digest, every=args.every, prefix=args.prefix):
        model(**inputs)


if __name__ == "__main__":
    main()
