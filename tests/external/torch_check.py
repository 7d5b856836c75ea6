#!/usr/bin/env python3
"""torch_check.py FLIS SYNTH: tools/torch_trace.py against flis's own traces.

This file defines a U-Net with rectified cross-attention in PyTorch twice, with the authors' module names and with
diffusers'. It loads flis's tinyB weights into both and traces them. Both traces must have exactly the names and shapes of
`flis stage unet --trace`, and its values within float32's rounding errors. Digests, the command line and guided passes
are checked too. Not part of `make check`: `make check-torch` runs it. Without PyTorch it prints so and passes.
"""
import json
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
try:
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as missing:
    print(f"torch_check: skipped: {missing}")
    sys.exit(0)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import torch_trace  # noqa: E402

CHANNELS, MULT, ATTENDS, BLOCKS, HEADS, WIDTH = 32, (1, 2, 4, 4), (True, True, True, False), 2, 4, 48
HERE = os.path.dirname(os.path.abspath(__file__))

# Largest error over the tensor's largest value. Measured 8.3e-6: PyTorch embeds the time in float32 (6e-5 off at most).
TOLERANCE = 2e-5


# ---- The parts that both models share --------------------------------------------------------------------------------

class Attention(nn.Module):
    def __init__(self, width, source):
        super().__init__()
        self.heads, self.scale = HEADS, (width // HEADS) ** -0.5
        self.to_q, self.to_k, self.to_v = (nn.Linear(n, width, bias=False) for n in (width, source, source))
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.0))

    def forward(self, x, text=None, mask=None):
        source = x if text is None else text
        q, k, v = self.to_q(x), self.to_k(source), self.to_v(source)
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        scores = q @ k.transpose(2, 3) * self.scale
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.finfo(scores.dtype).max)
        return self.to_out((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))


class Gate(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(Gate(width), nn.Dropout(0.0), nn.Linear(4 * width, width))

    def forward(self, x):
        return self.net(x)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn1, self.attn2, self.ff = Attention(width, width), Attention(width, WIDTH), FeedForward(width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x, text, mask):
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), text, mask)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([Block(width)])

    def forward(self, x, text, masks):
        h, w = x.shape[2:]
        y = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        y = self.transformer_blocks[0](y, text, masks.get((h, w)))
        return x + self.proj_out(y.transpose(1, 2).unflatten(2, (h, w)))


def wave(t, width):
    angle = t.float()[:, None] * torch.exp(-np.log(10000) * torch.arange(width // 2) / (width // 2))
    return torch.cat([angle.cos(), angle.sin()], dim=1)


# ---- The authors' names ----------------------------------------------------------------------------------------------

class ResBlock(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * CHANNELS, out))
        self.out_layers = nn.Sequential(nn.GroupNorm(32, out), nn.SiLU(), nn.Dropout(0.0),
                                        nn.Conv2d(out, out, 3, padding=1))
        self.skip_connection = nn.Identity() if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x, emb):
        y = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(y)


class Down(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x):
        return self.op(x)


class Up(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Sequence(nn.Sequential):
    def forward(self, x, emb, text, masks):
        for part in self:
            more = (emb,) if isinstance(part, ResBlock) else (text, masks) if isinstance(part, Transformer) else ()
            x = part(x, *more)
        return x


class Authors(nn.Module):
    """UNetModel of openaimodel_FLIS.py."""

    def __init__(self):
        super().__init__()
        wide = 4 * CHANNELS
        self.time_embed = nn.Sequential(nn.Linear(CHANNELS, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.input_blocks = nn.ModuleList([Sequence(nn.Conv2d(4, CHANNELS, 3, padding=1))])
        width, skips = CHANNELS, [CHANNELS]
        for level, mult in enumerate(MULT):
            for _ in range(BLOCKS):
                parts = [ResBlock(width, CHANNELS * mult)] + [Transformer(CHANNELS * mult)] * ATTENDS[level]
                self.input_blocks.append(Sequence(*parts))
                width = CHANNELS * mult
                skips.append(width)
            if level + 1 < len(MULT):
                self.input_blocks.append(Sequence(Down(width)))
                skips.append(width)
        self.middle_block = Sequence(ResBlock(width, width), Transformer(width), ResBlock(width, width))
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(MULT))):
            for i in range(BLOCKS + 1):
                parts = [ResBlock(width + skips.pop(), CHANNELS * mult)]
                width = CHANNELS * mult
                parts += [Transformer(width)] * ATTENDS[level]
                self.output_blocks.append(Sequence(*parts, *[Up(width)] * (level > 0 and i == BLOCKS)))
        self.out = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, 4, 3, padding=1))

    def forward(self, x, t, context, masks=None):
        emb, masks, skips = self.time_embed(wave(t, CHANNELS).to(x.dtype)), masks or {}, []
        for block in self.input_blocks:
            x = block(x, emb, context, masks)
            skips.append(x)
        x = self.middle_block(x, emb, context, masks)
        for block in self.output_blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), emb, context, masks)
        return self.out(x)


# ---- diffusers' names: the same layers, in other modules --------------------------------------------------------------

class ResnetBlock2D(nn.Module):
    def __init__(self, res):
        super().__init__()
        self.norm1, self.conv1, self.time_emb_proj = res.in_layers[0], res.in_layers[2], res.emb_layers[1]
        self.norm2, self.conv2 = res.out_layers[0], res.out_layers[3]
        self.conv_shortcut = None if isinstance(res.skip_connection, nn.Identity) else res.skip_connection

    def forward(self, x, emb):
        y = self.conv1(F.silu(self.norm1(x))) + self.time_emb_proj(F.silu(emb))[:, :, None, None]
        y = self.conv2(F.silu(self.norm2(y)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + y


class Resample(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.conv, self.up = part.op if isinstance(part, Down) else part.conv, isinstance(part, Up)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest") if self.up else x)


class Level(nn.Module):
    """CrossAttnDownBlock2D and similar blocks, made of the authors' blocks."""

    def __init__(self, blocks, kind=None):
        super().__init__()
        parts = [part for block in blocks for part in block]
        self.resnets = nn.ModuleList([ResnetBlock2D(p) for p in parts if isinstance(p, ResBlock)])
        if any(isinstance(p, Transformer) for p in parts):
            self.attentions = nn.ModuleList([p for p in parts if isinstance(p, Transformer)])
        if kind and any(isinstance(p, (Down, Up)) for p in parts):
            setattr(self, kind, nn.ModuleList([Resample(p) for p in parts if isinstance(p, (Down, Up))]))


class TimeEmbedding(nn.Module):
    def __init__(self, time_embed):
        super().__init__()
        self.linear_1, self.linear_2 = time_embed[0], time_embed[2]

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class Diffusers(nn.Module):
    """UNet2DConditionModel."""

    def __init__(self, a):
        super().__init__()
        per = BLOCKS + 1
        self.conv_in, self.time_embedding = a.input_blocks[0][0], TimeEmbedding(a.time_embed)
        down = [a.input_blocks[1 + i * per:1 + (i + 1) * per] for i in range(len(MULT))]
        up = [a.output_blocks[i * per:(i + 1) * per] for i in range(len(MULT))]
        self.down_blocks = nn.ModuleList([Level(blocks, "downsamplers") for blocks in down])
        self.mid_block = Level([a.middle_block])
        self.up_blocks = nn.ModuleList([Level(blocks, "upsamplers") for blocks in up])
        self.conv_norm_out, self.conv_out = a.out[0], a.out[2]

    def forward(self, x, t, context, masks=None):
        emb, masks, x = self.time_embedding(wave(t, CHANNELS).to(x.dtype)), masks or {}, self.conv_in(x)
        skips = [x]

        def step(level, i, y):
            y = level.resnets[i](y, emb)
            return level.attentions[i](y, context, masks) if hasattr(level, "attentions") else y
        for level in self.down_blocks:
            for i in range(len(level.resnets)):
                x = step(level, i, x)
                skips.append(x)
            if hasattr(level, "downsamplers"):
                x = level.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block.resnets[0](x, emb)
        x = self.mid_block.resnets[1](self.mid_block.attentions[0](x, context, masks), emb)
        for level in self.up_blocks:
            for i in range(len(level.resnets)):
                x = step(level, i, torch.cat([x, skips.pop()], dim=1))
            if hasattr(level, "upsamplers"):
                x = level.upsamplers[0](x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


# ---- Checks ----------------------------------------------------------------------------------------------------------

class Checks:
    def __init__(self, flis, synth, directory):
        self.flis, self.directory, self.failed, self.passed = flis, directory, 0, 0
        self.model_path = self.path("model.safetensors")
        subprocess.run([synth, "tinyB", self.model_path], check=True)
        golden = torch_trace.read_safetensors(f"{HERE}/../golden/tinyunet_B_16.safetensors")
        self.x, self.context, self.label = golden["in.x"], golden["in.context"], golden["in.label512"]
        self.classes, self.eps = golden["in.class_ids.mix"].reshape(-1), golden["mix.t981.eps"]
        self.t = torch.tensor([981])
        inputs = {"x": self.x, "t": self.t, "context": self.context, "label": self.label, "class_ids": self.classes}
        torch_trace.write_safetensors(self.path("in.st"), inputs, {})
        self.model = Authors().eval()
        weights = torch_trace.read_safetensors(self.model_path)
        prefix = "model.diffusion_model."
        self.model.load_state_dict({k[len(prefix):]: v for k, v in weights.items() if k.startswith(prefix)})

    def path(self, name):
        return os.path.join(self.directory, name)

    def is_true(self, ok, what):
        self.passed += bool(ok)
        self.failed += not ok
        if not ok:
            print(f"FAIL {what}")

    def masks(self, side=16):
        out = {}
        for size in (side, side // 2, side // 4, side // 8):
            at = (torch.arange(size) * (512 // size))
            small = self.label[at][:, at].reshape(-1)
            mask = torch.ones(size * size, 77, dtype=torch.bool)
            for k, number in enumerate(self.classes):
                if number != -1:
                    mask[:, k + 1] = small == number
            out[size, size] = mask[None, None]
        return out

    def run_flis(self, *options):
        subprocess.run([self.flis, "stage", "unet", "-q", "-m", self.model_path, "-i", self.path("in.st"),
                        "-o", self.path("out.st"), *options], check=True)

    def run_torch(self, model, path, **options):
        with torch.no_grad(), torch_trace.trace(model, path, **options):
            return model(self.x, self.t, self.context, self.masks())

    def same(self, what, mine, theirs, tolerance):
        self.is_true(set(mine) == set(theirs), f"{what}: names: only in flis {sorted(set(mine) - set(theirs))[:5]}, "
                     f"only in torch {sorted(set(theirs) - set(mine))[:5]}")
        worst, where = 0.0, ""
        for name in set(mine) & set(theirs):
            a, b = mine[name], theirs[name]
            self.is_true(a.shape == b.shape and a.dtype == b.dtype,
                         f"{what}: {name}: {a.shape} {a.dtype}, {b.shape} {b.dtype}")
            if a.shape != b.shape:
                continue
            error = float((a.double() - b.double()).abs().max() / max(1.0, float(a.double().abs().max())))
            if not error <= worst:
                worst, where = error, name
        self.is_true(worst <= tolerance, f"{what}: error {worst:.3g} at {where}, tolerance {tolerance:g}")
        print(f"{what}: {len(mine)} tensors, largest error {worst:.3g} at {where}")


def check_values(c):
    c.run_flis("--trace", c.path("flis.st"), "--trace-digest", c.path("flis.json"))
    mine = torch_trace.read_safetensors(c.path("flis.st"))
    eps = c.run_torch(c.model, c.path("authors.st"))
    c.is_true(float((eps - c.eps).abs().max()) <= 2e-5, "this U-Net differs from the authors'")
    theirs = torch_trace.read_safetensors(c.path("authors.st"))
    c.same("authors' names", mine, theirs, TOLERANCE)
    c.run_torch(Diffusers(c.model).eval(), c.path("diffusers.st"))
    c.same("diffusers' names", mine, torch_trace.read_safetensors(c.path("diffusers.st")), TOLERANCE)
    whole = nn.Module()
    whole.model = nn.Module()
    whole.model.diffusion_model = c.model
    with torch.no_grad(), torch_trace.trace(whole, c.path("whole.st"), match="*attn2.mask"):
        whole.model.diffusion_model(c.x, c.t, c.context, c.masks())
    masks = torch_trace.read_safetensors(c.path("whole.st"))
    c.same("a part of a whole, and a glob", {k: v for k, v in mine.items() if k.endswith("attn2.mask")}, masks, 0.0)
    off = [float((v.sum(-1) - 1).abs().max()) for k, v in theirs.items() if k.endswith(".weights")]
    c.is_true(len(off) == 32 and max(off) < 1e-5, "weights do not add up to 1")


def check_fused(c):
    """A port that calls scaled_dot_product_attention: torch_trace computes the weights separately."""
    def fused(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False):
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.finfo(scores.dtype).max)
        e = (scores - scores.amax(-1, keepdim=True)).exp()
        return e / e.sum(-1, keepdim=True) @ v

    def forward(self, x, text=None, mask=None):
        source = x if text is None else text
        q, k, v = self.to_q(x), self.to_k(source), self.to_v(source)
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        return self.to_out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
    had, plain = getattr(F, "scaled_dot_product_attention", None), Attention.forward
    F.scaled_dot_product_attention, Attention.forward = had or fused, forward
    c.run_torch(c.model, c.path("fused.st"))
    Attention.forward = plain
    if had is None:
        del F.scaled_dot_product_attention
    mine, theirs = (torch_trace.read_safetensors(c.path(name)) for name in ("flis.st", "fused.st"))
    c.same("fused attention", mine, theirs, TOLERANCE)


def check_names(c):
    """Names that no network here has: those of diffusers' autoencoder and of text encoders."""
    vae = {"decoder.up_blocks.0.resnets.1.conv1": "decoder.up.3.block.1.conv1", "post_quant_conv": "post_quant_conv",
           "decoder.mid_block.attentions.0.to_out.0": "decoder.mid.attn_1.proj_out",
           "decoder.mid_block.attentions.0.query": "decoder.mid.attn_1.q", "decoder.conv_norm_out": "decoder.norm_out",
           "decoder.mid_block.resnets.1": "decoder.mid.block_2", "encoder.conv_in": "encoder.conv_in",
           "decoder.mid_block.attentions.0.group_norm": "decoder.mid.attn_1.norm",
           "decoder.up_blocks.3.resnets.0.conv_shortcut": "decoder.up.0.block.0.nin_shortcut",
           "decoder.up_blocks.1.upsamplers.0": "decoder.up.2.upsample",
           "encoder.down_blocks.2.downsamplers.0": "encoder.down.2.downsample",
           "encoder.down_blocks.2.resnets.0.norm2": "encoder.down.2.block.0.norm2"}
    text = ("embeddings", "encoder.layers.3.self_attn.q_proj", "encoder.layers.0.mlp.fc1", "final_layer_norm")
    text = {f"cond_stage_model.transformer.text_model.{name}": name for name in text}
    for what, table in (("autoencoder", vae), ("text encoder", text)):
        names = torch_trace.Names(list(table))
        for path, wanted in table.items():
            c.is_true(names.of(path) == [wanted], f"{what}: {path} is {names.of(path)}, wanted {wanted}")
            c.is_true(torch_trace.FLIS_NAMES.fullmatch(wanted), f"{what}: {wanted} is not recorded")
    c.is_true(not torch_trace.FLIS_NAMES.fullmatch("input_blocks.1.0.in_layers"), "a container is recorded")


def check_digest(c):
    c.run_torch(c.model, c.path("authors.json"), digest=True)
    with open(c.path("flis.json"), encoding="utf-8") as a, open(c.path("authors.json"), encoding="utf-8") as b:
        mine, theirs = ({t["name"]: t for t in json.load(f)["tensors"]} for f in (a, b))
    c.is_true(set(mine) == set(theirs), "digests: names differ")
    keys = {tuple(t) for t in list(mine.values()) + list(theirs.values())}
    c.is_true(len(keys) == 1, f"digests: fields differ: {keys}")
    for name, t in theirs.items():
        m, largest = mine[name], max(1.0, mine[name]["largest"])
        errors = [abs(x - y) for x, y in zip(t["samples"], m["samples"])]
        errors += [abs(t[k] - m[k]) for k in ("mean", "std", "largest")]
        c.is_true(max(errors) <= TOLERANCE * largest and t["stride"] == m["stride"] and t["shape"] == m["shape"],
                  f"digest of {name}")
        c.is_true(m["dtype"] != "U8" or t["sha256"] == m["sha256"], f"SHA-256 of {name}")
    print(f"digests: {len(mine)} tensors")


def check_passes(c):
    """Calls the U-Net like a PLMS sampler of two steps: step 0 twice, each conditional and unconditional."""
    with torch.no_grad(), torch_trace.trace(c.model, c.path("passes.st"), match="*middle_block", passes="guided",
                                            steps=[0]):
        for call in range(6):
            c.model(c.x * (1 + call), c.t, c.context)
    got = torch_trace.read_safetensors(c.path("passes.st"))
    names = [f"step.0.{n}{s}.middle_block" for n in ("", "next.") for s in ("cond", "uncond")]
    c.is_true(list(got) == names, f"passes: {list(got)}")
    with torch.no_grad(), torch_trace.trace(c.model, c.path("batch.st"), match="*.middle_block", passes="guided",
                                            sampler="ddim", batch=["uncond", "cond"]):
        c.model(torch.cat([2 * c.x, c.x]), c.t, c.context.expand(2, -1, -1))
    batch = torch_trace.read_safetensors(c.path("batch.st"))
    c.is_true(list(batch) == names[1::-1], f"a batch of two passes: {list(batch)}")
    for name in batch:
        error = float((batch[name] - got[name]).abs().max())
        c.is_true(error <= 1e-4, f"a batch of two passes: {name} is {error:.3g} off")
    c.is_true(not any(m._forward_hooks or m._forward_pre_hooks for m in c.model.modules()), "hooks are not removed")


def check_command(c):
    with open(c.path("port.py"), "w", encoding="utf-8") as file:
        file.write(f"import sys\nsys.path.insert(0, {HERE!r})\nsys.dont_write_bytecode = True\n"
                   "import torch, torch_check\n"
                   "def make():\n    torch.manual_seed(1)\n    return torch_check.Authors()\n")
    torch_trace.write_safetensors(c.path("plain.st"), {"x": c.x, "t": c.t, "context": c.context}, {})
    command = [sys.executable, os.path.join(HERE, "..", "..", "tools", "torch_trace.py")]
    options = ["--match", "*attn2*", "--prefix", "mine."]
    ran = subprocess.run(command + options + ["port:make", "plain.st", "out2.st"], cwd=c.directory, check=False)
    names = list(torch_trace.read_safetensors(c.path("out2.st"))) if ran.returncode == 0 else []
    c.is_true(len(names) == 16 * 9 and all(n.startswith("mine.") for n in names), f"command line: {len(names)} names")
    wrong = subprocess.run(command + ["port"], cwd=c.directory, capture_output=True, check=False)
    c.is_true(wrong.returncode == 2, f"command line: exit {wrong.returncode} for wrong usage")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as directory:
        c = Checks(os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), directory)
        for check in (check_values, check_fused, check_names, check_digest, check_passes, check_command):
            check(c)
    print(f"torch_check: {c.passed} passed, {c.failed} failed")
    sys.exit(c.failed != 0)


if __name__ == "__main__":
    main()
