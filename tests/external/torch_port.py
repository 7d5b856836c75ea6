#!/usr/bin/env python3
"""torch_port.py FLIS SYNTH: the conformance vectors answered by PyTorch and graded by `flis conformance`.

An independent port, written from manifest.json: operations, label maps, masks, text encoder, U-Net (that of
torch_check.py), autoencoder, random numbers, schedule and samplers. Inputs are computed from the manifest's rules and
must equal inputs.safetensors. Every vector that is answered here must pass. Not part of `make check`: `make check-torch`
runs it. Without PyTorch it prints so and passes.
"""
import json
import math
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
try:
    import numpy as np
    import torch
    from torch.nn import functional as F
except ImportError as missing:
    print(f"torch_port: skipped: {missing}")
    sys.exit(0)

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "tools")]
import torch_check  # noqa: E402
import torch_trace  # noqa: E402

torch_check.CHANNELS, torch_check.MULT, torch_check.ATTENDS = 32, (1, 2, 2), (True, True, True)
torch_check.BLOCKS, torch_check.HEADS, torch_check.WIDTH = 1, 2, 32


def formula(name, count):
    """u of the manifest, exact in float64."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.int64) - 2**23) * 2.0**-23


def by_rule(entry):
    """An input from its rule; None if the rule is given in words."""
    rule, shape = entry["rule"], entry["shape"]
    x = formula(entry["name"], int(np.prod(shape)))
    if rule == "formula weights":
        if len(shape) > 1:
            x = x * 2.0 ** round(math.log2(math.sqrt(3 / np.prod(shape[1:]))))
        else:
            x = 1 + x * 2**-4 if entry["name"].endswith("weight") else x * 2**-6
    elif rule.startswith("u * "):
        x = x * float(rule[4:])
    elif rule.startswith("u / "):
        x = x / float(rule[4:])
    elif rule != "u":
        return None
    return torch.from_numpy(x.astype(np.float32).reshape(shape))


class Port:
    def __init__(self, manifest, inputs, model):
        self.vectors = {v["id"]: v for v in manifest["vectors"]}
        self.inputs, self.model, self.answers = inputs, model, {}

    def inp(self, name):
        return self.inputs[name]

    def part(self, prefix):
        return {k[len(prefix):]: v for k, v in self.model.items() if k.startswith(prefix)}


def operations(p):
    def of(op):
        return [p.inp(f"op.{op}/{name}") for name in ("x", "weight", "bias")]

    def say(op, y):
        p.answers[f"op.{op}/y"] = y

    def conv(kind, x=None, **options):
        own, w, b = of("conv." + kind)
        say("conv." + kind, F.conv2d(own if x is None else x, w, b, **options))

    def double(x):
        return F.interpolate(x, scale_factor=2, mode="nearest")

    say("linear", F.linear(*of("linear")))
    conv("same", padding=1)
    conv("1x1")
    conv("down-both", stride=2, padding=1)
    conv("down-after", F.pad(p.inp("op.conv.down-after/x"), (0, 1, 0, 1)), stride=2)
    conv("upsampled", double(p.inp("op.conv.upsampled/x")), padding=1)
    x, w, b = of("group-norm")
    say("group-norm", F.group_norm(x, 32, w, b, 1e-5))
    x, w, b = of("group-norm.silu")
    say("group-norm.silu", F.silu(F.group_norm(x, 32, w, b, 1e-6)))
    x, w, b = of("layer-norm")
    say("layer-norm", F.layer_norm(x, x.shape[-1:], w, b, 1e-5))
    x = p.inp("op.quick-gelu/x")
    say("quick-gelu", x * torch.sigmoid(1.702 * x))
    say("silu", F.silu(p.inp("op.silu/x")))
    value, gate = p.inp("op.geglu/x").chunk(2, dim=-1)
    say("geglu", value * F.gelu(gate))
    say("add", p.inp("op.add/a") + p.inp("op.add/b"))
    say("add-to-all", p.inp("op.add-to-all/x") + p.inp("op.add-to-all/v").transpose(1, 2)[..., None])
    say("scale", 1 / 0.18215 * p.inp("op.scale/x"))
    say("concat", torch.cat([p.inp("op.concat/h"), p.inp("op.concat/skip")], dim=1))
    say("embed", p.inp("op.embed/token.weight")[p.inp("op.embed/ids")] + p.inp("op.embed/position.weight")[:3])
    for kind, mask in (("attention", None), ("attention.causal", torch.ones(6, 6).tril().bool()),
                       ("attention.masked", p.inp("op.attention.masked/open").bool())):
        q, k, v = (p.inp(f"op.{kind}/{name}") for name in "qkv")
        say(kind, attention(q, k, v, 0.25, mask))
    t = torch.tensor([1, 500, 981])
    p.answers["time-embedding/y"] = torch_check.wave(t, 32)


def attention(q, k, v, scale, mask):
    q, k, v = (x.unflatten(2, (2, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(2, 3) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.finfo(scores.dtype).max)
    return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


def nearest(label, h, w):
    return F.interpolate(label[None, None].float(), size=(h, w), mode="nearest")[0, 0]


def mask(p, label, h, w):
    small = nearest(p.inp(f"rca/label.{label}"), h, w).reshape(-1)
    out = torch.ones(h * w, 77, dtype=torch.bool)
    for k, number in enumerate(p.inp("rca/class_ids")):
        if number != -1:
            out[:, k + 1] = small == number
    return out


def layouts(p):
    # PIL's rule, in numpy, so that PIL is not needed.
    at = [np.floor((np.arange(64) + 0.5) * n / 64).astype(int) for n in (44, 50)]
    p.answers["label.pil/y"] = p.inp("label.pil/places")[at[0]][:, at[1]]
    p.answers["label.torch/y"] = nearest(p.inp("label.torch/places"), 11, 7).byte()
    for name in ("0", "1", "2", "3", "not-square"):
        given = p.vectors[f"rca.mask.{name}"]["given"]
        label = "128x64" if name == "not-square" else "128x128"
        p.answers[f"rca.mask.{name}/mask"] = mask(p, label, given["h"], given["w"]).byte()


def text_encoder(p):
    w, prefix = p.part("cond_stage_model.transformer.text_model."), "clip.{}/encoder.layers."

    def linear(x, name):
        return F.linear(x, w[name + ".weight"], w[name + ".bias"])

    def norm(x, name):
        return F.layer_norm(x, (32,), w[name + ".weight"], w[name + ".bias"])

    x = w["embeddings.token_embedding.weight"][p.inp("clip/ids")] + w["embeddings.position_embedding.weight"]
    for i in range(2):
        layer = f"encoder.layers.{i}."
        n = norm(x, layer + "layer_norm1")
        q, k, v = (linear(n, f"{layer}self_attn.{name}_proj") for name in "qkv")
        a = linear(attention(q * 16**-0.5, k, v, 1.0, torch.ones(77, 77).tril().bool()), layer + "self_attn.out_proj")
        n = linear(norm(x + a, layer + "layer_norm2"), layer + "mlp.fc1")
        m = linear(n * torch.sigmoid(1.702 * n), layer + "mlp.fc2")
        x = x + a + m
        if i == 0:
            p.answers.update({prefix.format("q") + "0.self_attn.q_proj": q,
                              prefix.format("attention") + "0.self_attn": a, prefix.format("mlp") + "0.mlp": m})
    p.answers[prefix.format("last-layer") + "1"] = x
    p.answers["clip/last_hidden_state"] = norm(x, "final_layer_norm")


def unet(p, directory):
    def model(divisor=1):
        made = torch_check.Authors().eval()
        made.load_state_dict({k: v / divisor for k, v in p.part("model.diffusion_model.").items()})
        return made

    def masks(label, h, w):
        return {(h // s, w // s): mask(p, label, h // s, w // s)[None, None] for s in (1, 2, 4)}

    def traced(run, net, x, t, masks):
        path = os.path.join(directory, "trace.st")
        with torch_trace.trace(net, path):
            p.answers[run + "/eps"] = net(x, torch.tensor([t]), text, masks)
        trace = torch_trace.read_safetensors(path)
        for v in p.vectors.values():
            if v.get("given", {}).get("run") == run:
                p.answers.update({o["name"]: trace[o["name"].split("/", 1)[1]] for o in v["outputs"]})

    x, text, square = p.inp("unet/x.8x8"), p.inp("unet/context"), masks("64x64", 8, 8)
    traced("unet.layout", model(), x, 981, square)
    traced("unet.small", model(64), x / 64, 500, None)
    net = model()
    p.answers["unet.plain/eps"] = net(x, torch.tensor([500]), text)
    p.answers["unet.not-square/eps"] = net(p.inp("unet/x.8x16"), torch.tensor([500]), text, masks("64x128", 8, 16))
    p.answers["unet.guided/eps"] = net(x, torch.tensor([261]), text, square)[0]
    p.answers["unet.guided/uncond"] = net(x, torch.tensor([261]), p.inp("unet/uncond"))[0]


class Autoencoder:
    """model.py's Encoder and Decoder for tinyA: four levels of one width, so no shortcut has weights."""

    def __init__(self, weights, divisor=1):
        self.w, self.kept = {k: v / divisor for k, v in weights.items()}, {}

    def keep(self, name, x):
        return self.kept.setdefault(name, x)

    def conv(self, x, name, **options):
        return F.conv2d(x, self.w[name + ".weight"], self.w[name + ".bias"], **options)

    def norm(self, x, name):
        return self.keep(name, F.group_norm(x, 32, self.w[name + ".weight"], self.w[name + ".bias"], 1e-6))

    def resnet(self, x, name):
        y = self.conv(F.silu(self.norm(x, name + ".norm1")), name + ".conv1", padding=1)
        y = self.conv(F.silu(self.norm(y, name + ".norm2")), name + ".conv2", padding=1)
        return self.keep(name, x + y)

    def middle(self, x, half):
        x, name = self.resnet(x, half + ".mid.block_1"), half + ".mid.attn_1"
        n = self.norm(x, name + ".norm")
        q, k, v = (self.conv(n, f"{name}.{part}").flatten(2).transpose(1, 2) for part in "qkv")
        y = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v
        x = self.keep(name, x + self.conv(y.transpose(1, 2).reshape(x.shape), name + ".proj_out"))
        return self.resnet(x, half + ".mid.block_2")

    def out(self, x, half):
        return self.conv(F.silu(self.norm(x, half + ".norm_out")), half + ".conv_out", padding=1)

    def decode(self, z):
        x = self.middle(self.conv(self.conv(z, "post_quant_conv"), "decoder.conv_in", padding=1), "decoder")
        for level in reversed(range(4)):
            for i in range(2):
                x = self.resnet(x, f"decoder.up.{level}.block.{i}")
            if level:
                name = f"decoder.up.{level}.upsample"
                x = self.keep(name, self.conv(F.interpolate(x, scale_factor=2, mode="nearest"), name + ".conv", padding=1))
        return self.out(x, "decoder")

    def encode(self, image):
        x = self.conv(image, "encoder.conv_in", padding=1)
        for level in range(4):
            x = self.resnet(x, f"encoder.down.{level}.block.0")
            if level < 3:
                name = f"encoder.down.{level}.downsample"
                x = self.keep(name, self.conv(F.pad(x, (0, 1, 0, 1)), name + ".conv", stride=2))
        return self.conv(self.out(self.middle(x, "encoder"), "encoder"), "quant_conv")


def autoencoder(p):
    weights = p.part("first_stage_model.")

    def run(name, output, divisor, work):
        vae = Autoencoder(weights, divisor)
        p.answers[f"{name}/{output}"] = work(vae)
        for v in p.vectors.values():
            if v.get("given", {}).get("run") == name:
                p.answers.update({o["name"]: vae.kept[o["name"].split("/", 1)[1]] for o in v["outputs"]})

    run("vae.decode", "image", 1, lambda vae: vae.decode(p.inp("vae/z")))
    run("vae.decode.small", "image", 64, lambda vae: vae.decode(p.inp("vae/z")))
    run("vae.encode", "moments", 1, lambda vae: vae.encode(p.inp("vae/image")))
    x = Autoencoder(weights).decode(1 / 0.18215 * p.inp("vae/latents"))
    x = torch.clamp((x + 1.0) / 2.0, min=0.0, max=1.0)[0].permute(1, 2, 0)
    p.answers["vae.bytes/bytes"] = torch.from_numpy((255.0 * x.numpy()).astype(np.uint8))


def random_numbers(p):
    for name, v in p.vectors.items():
        if name.startswith("rng.cpu"):
            torch.manual_seed(v["given"]["seed"])
            p.answers[name + "/y"] = torch.cat([torch.randn(n) for n in v["given"]["randn"]])
    words = np.random.RandomState(42).randint(0, 2**32, 8, dtype=np.uint64)
    p.answers["rng.mt19937/words"] = torch.from_numpy(words.astype(np.int64))


class Steps:
    """The authors' arrays: ddpm.py register_schedule, util.py make_ddim_sampling_parameters."""
    beta = torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64).numpy() ** 2
    product = np.cumprod(1 - beta)
    alpha = torch.from_numpy(product.astype(np.float32))

    def __init__(self, count, eta):
        self.t = np.arange(0, 1000, 1000 // count) + 1
        self.a = self.alpha[self.t]
        self.before = np.asarray([float(self.alpha[0])] + self.alpha[self.t[:-1]].tolist())
        self.sigma = eta * np.sqrt((1 - self.before) / (1 - self.a.numpy()) * (1 - self.a.numpy() / self.before))


def schedule(p):
    p.answers["schedule/beta"] = torch.from_numpy(Steps.beta)
    p.answers["schedule/alphas_cumprod"] = torch.from_numpy(Steps.product)
    p.answers["schedule/alphas_cumprod.f32"] = Steps.alpha
    for name in ("steps.50", "steps.30", "steps.first"):
        s = Steps(p.vectors[name]["given"]["steps"], p.vectors[name]["given"]["eta"])
        for part, values in (("t", s.t), ("alpha", s.a), ("alpha_prev", s.before), ("sigma", s.sigma)):
            p.answers[f"{name}/{part}"] = torch.as_tensor(values)
    last = [range(0, 1000, 1000 // n)[-1] + 1 for n in range(1, 1001)]
    refused = torch.tensor([t >= 1000 for t in last])
    counts = torch.tensor([len(range(0, 1000, 1000 // n)) for n in range(1, 1001)])
    p.answers["steps.refused/refused"] = refused.byte()
    p.answers["steps.refused/count"] = counts * ~refused


def sample(p, name, given):
    """plms.py and ddim.py, with the manifest's model."""
    s, guidance, old, kept = Steps(given["steps"], given["eta"]), given["scale"], [], []
    x, evaluated = p.inp("sampler/x_T"), []
    torch.manual_seed(given["seed"])

    def eps(x, t):
        evaluated.append(-t if guidance == 1 else t)
        e = x / 2 + p.inp("sampler/cond") * t / 1024
        if guidance == 1:
            return e
        without = x / 4 + p.inp("sampler/uncond") * t / 1024
        return without + guidance * (e - without)

    def step(x, e, i):
        a, before, sigma = (torch.full((1, 1, 1, 1), float(of[i])) for of in (s.a, s.before, s.sigma))
        pred = (x - (1 - s.a[i]).sqrt() * e) / a.sqrt()
        return before.sqrt() * pred + (1 - before - sigma**2).sqrt() * e + sigma * torch.randn(x.shape), pred

    for i in reversed(range(len(s.t))):
        e = mixed = eps(x, int(s.t[i]))
        if given["sampler"] == "plms":
            if not old:
                mixed = (e + eps(step(x, e, i)[0], int(s.t[max(i - 1, 0)]))) / 2
            elif len(old) == 1:
                mixed = (3 * e - old[-1]) / 2
            elif len(old) == 2:
                mixed = (23 * e - 16 * old[-1] + 5 * old[-2]) / 12
            else:
                mixed = (55 * e - 59 * old[-1] + 37 * old[-2] - 9 * old[-3]) / 24
        old = (old + [e])[-3:]
        x, pred = step(x, mixed, i)
        kept.append((e, pred, x))
    p.answers[name + "/evaluated"] = torch.tensor(evaluated)
    for part, values in zip(("e_t", "pred_x0", "x_prev"), zip(*kept)):
        p.answers[f"{name}/{part}"] = torch.cat(values)
    p.answers[name + "/next_randn"] = torch.randn(4)


def main():
    flis, synth = sys.argv[1:]
    with open(f"{HERE}/../golden/manifest.json", encoding="utf-8") as file:
        manifest = json.load(file)
    inputs = torch_trace.read_safetensors(f"{HERE}/../golden/inputs.safetensors")
    rules = wrong = 0
    for entry in (entry for v in manifest["vectors"] for entry in v.get("inputs", [])):
        x = by_rule(entry)
        rules += x is not None
        if x is not None and not torch.equal(x, inputs[entry["name"]]):
            print(f"FAIL {entry['name']} differs from its rule")
            wrong += 1
    with tempfile.TemporaryDirectory() as directory, torch.no_grad():
        model, answers = os.path.join(directory, "model.st"), os.path.join(directory, "answers.st")
        subprocess.run([synth, "tinyA", model], check=True)
        p = Port(manifest, inputs, torch_trace.read_safetensors(model))
        for part in (operations, layouts, text_encoder, autoencoder, random_numbers, schedule):
            part(p)
        unet(p, directory)
        for name, v in p.vectors.items():
            if name.startswith("sampler."):
                sample(p, name, v["given"])
        torch_trace.write_safetensors(answers, p.answers, {"generator": "PyTorch " + torch.__version__})
        report = subprocess.run([flis, "conformance", answers, "--manifest", f"{HERE}/../golden"], check=False,
                                stdout=subprocess.PIPE, universal_newlines=True).stdout
    answered = {v["id"] for v in manifest["vectors"] if all(o["name"] in p.answers for o in v["outputs"])}
    passed = {line.split()[1] for line in report.splitlines() if line.startswith("pass ")}
    for name in sorted(answered - passed):
        print(f"FAIL {name}: see flis conformance")
    if answered - passed or os.environ.get("VERBOSE"):
        print(report)
    failed = len(answered - passed) + wrong + (len(answered) < 88)
    print(f"torch_port: {rules} inputs by rule, {len(answered & passed)} of {len(manifest['vectors'])} vectors answered "
          f"and passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
