#!/usr/bin/env python3
"""train_check.py TRAIN SYNTH [SHARED]: `train layout --recipe authors` against PyTorch.

Makes stand-in data in the folders of COCO-Stuff and ADE20K, and lets TRAIN record (--record) every step of the recipe on the
U-Net of preset tinyB. Then, with PyTorch, from what the authors' code does (FreestyleNet@5dcb8b8 ldm/data/COCO.py, ADE20K.py,
ldm/models/diffusion/ddpm.py, main.py):
  samples     the recorded pictures and label maps are PIL's, to the bit; each epoch has every picture once; classes and
              their tokens are in place; z is the posterior's sample of the autoencoder, scaled
  loss, gradients, weights after torch.optim.AdamW, step by step, from the same z, t, noise, text features and layouts: in
              float32, and in float64, which says whose rounding a difference is
Each of the three (flis, float32, float64) keeps its own weights from step to step. `make check-train` runs it; without PyTorch or
Pillow it prints so and passes. SHARED (the oracle's folder) adds CLIP's vocabulary and the counts of tokens.
"""
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
try:
    import numpy as np
    import torch
    from PIL import Image
    from torch.nn import functional as F
except ImportError as missing:
    print(f"train_check: skipped: {missing}")
    sys.exit(0)

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "tools")]
import torch_check  # noqa: E402
import torch_trace  # noqa: E402

# Bounds, about three times what was measured.
#   loss    |difference| / loss
#   grad    largest |difference| of the gradients of a weight / its largest gradient
#   weight  largest |difference| of the values of a weight / its largest value; in units of the rate, since AdamW moves a value
#           whose gradient is hardly more than rounding by up to the rate, either way
#   update  |difference| of all changes since the start / |changes|, as vectors: at rate 1e-6 the rounding of the weights
LIMITS = {"loss": 1.2e-6, "grad": 1e-4, "weight": 50.0, "update": 6e-3}
PREFIX = "model.diffusion_model."


# ---- Stand-in data ---------------------------------------------------------------------------------------------------

KINDS = {"coco": (("stuffthingmaps_trainval2017/train2017", "train_img"), (0, 2, 10, 68, 109, 156, 157, 171), 255, 182),
         "ade20k": (("annotations/training", "images/training"), (1, 2, 3, 22, 49, 57, 120, 150), 0, 151)}


def make_data(kind, root, count):
    """Pictures of odd sizes as JPEG (one is gray), label maps with void, and a list with absolute and relative paths."""
    (labels, pictures), classes, void, _ = KINDS[kind]
    random = np.random.RandomState(len(kind))
    for folder in (labels, pictures):
        os.makedirs(os.path.join(root, folder))
    lines = []
    for i in range(count):
        size = [(97, 130), (240, 320), (301, 200), (64, 64), (333, 500)][i % 5][::-1]
        small = random.randint(0, 256, (9, 7, 3) if i != 1 else (9, 7)).astype(np.uint8)
        picture = Image.fromarray(small).resize(size, Image.BICUBIC)
        label = random.choice(classes[i % 3:i % 3 + 5] + (void,), (7, 5)).astype(np.uint8)
        picture.save(os.path.join(root, pictures, f"p{i:05}.jpg"))
        Image.fromarray(label).resize(size, Image.NEAREST).save(os.path.join(root, labels, f"p{i:05}.png"))
        lines.append(os.path.join(*([root] if i % 2 else []), pictures, f"p{i:05}.jpg"))
    with open(os.path.join(root, "train.txt"), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return lines


def examples(kind, root, lines, side):
    """What the authors' __getitem__ returns for each line, mirrored or not: image [3, h, w], label [h, w]."""
    out = []
    for line in lines:
        picture = Image.open(os.path.join(root, line)).convert("RGB")
        stem = os.path.splitext(os.path.basename(line))[0]
        label = Image.open(os.path.join(root, KINDS[kind][0][0], stem + ".png"))
        picture, label = picture.resize((side, side), Image.BICUBIC), label.resize((side, side), Image.NEAREST)
        for turn in (None, Image.FLIP_LEFT_RIGHT):
            pair = [x if turn is None else x.transpose(turn) for x in (picture, label)]
            image = (np.array(pair[0]).astype(np.uint8) / 127.5 - 1.0).astype(np.float32)
            out.append((torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(np.array(pair[1]))))
    return out


# ---- The same in PyTorch ---------------------------------------------------------------------------------------------

def wave(t, width):
    """timestep_embedding, in float64 where the model is."""
    real = wave.real
    angle = t.to(real)[:, None] * torch.exp(-math.log(10000) * torch.arange(width // 2, dtype=real) / (width // 2))
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def masks(label, class_ids, side):
    """attention_COCO.py's mask of each scale, {(h, w): [n, 1, h w, 77]}."""
    out = {}
    for size in (side, side // 2, side // 4, side // 8):
        mask = torch.ones(len(label), 1, size * size, 77, dtype=torch.bool)
        for i, one in enumerate(label):
            for k, number in enumerate(class_ids[i]):
                if number != -1:
                    here = F.interpolate((one == number).float()[None, None], (size, size), mode="nearest")
                    mask[i, 0, :, k + 1] = here.reshape(-1) > 0.5
        out[size, size] = mask
    return out


class Trainer:
    """The authors' training loop, on recorded samples."""

    def __init__(self, weights, real, options):
        self.real, self.accumulate = real, options["accumulate"]
        self.model = torch_check.Authors().to(real).train()
        self.model.load_state_dict({k[len(PREFIX):]: v.to(real) for k, v in weights.items() if k.startswith(PREFIX)})
        self.optimizer = torch.optim.AdamW(list(self.model.parameters()), lr=options["rate"])
        bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=np.float64) ** 2)
        self.signal, self.noise = (torch.tensor(x, dtype=torch.float32).to(real) if real == torch.float32 else
                                   torch.tensor(x, dtype=real) for x in (np.sqrt(bar), np.sqrt(1 - bar)))

    def step(self, batches):
        wave.real, losses = self.real, []
        self.optimizer.zero_grad()
        for b in batches:
            t = b["t"].long()
            z, noise, context = (b[name].to(self.real) for name in ("z", "noise", "context"))
            noisy = self.signal[t, None, None, None] * z + self.noise[t, None, None, None] * noise
            eps = self.model(noisy, t, context, masks(b["label"], b["class_ids"].long(), z.shape[2]))
            simple = F.mse_loss(eps, noise, reduction="none").mean([1, 2, 3])
            logvar = torch.zeros(1000, dtype=self.real)[t]
            loss = 1.0 * (simple / torch.exp(logvar) + logvar).mean() + 0.0
            (loss / self.accumulate).backward()
            losses.append(float(loss))
        grads = {PREFIX + k: p.grad.clone() for k, p in self.model.named_parameters()}
        self.optimizer.step()
        return losses, grads, {PREFIX + k: p.detach().clone() for k, p in self.model.named_parameters()}


class Encoder:
    """model.py's Encoder and quant_conv, for tinyB, in float64."""

    def __init__(self, weights):
        self.w = {k: v.double() for k, v in weights.items() if k.startswith("first_stage_model.")}

    def conv(self, x, name, **options):
        name = "first_stage_model." + name
        return F.conv2d(x, self.w[name + ".weight"], self.w[name + ".bias"], **options)

    def norm(self, x, name):
        name = "first_stage_model." + name
        return F.group_norm(x, 32, self.w[name + ".weight"], self.w[name + ".bias"], 1e-6)

    def block(self, x, name):
        y = self.conv(F.silu(self.norm(x, name + ".norm1")), name + ".conv1", padding=1)
        y = self.conv(F.silu(self.norm(y, name + ".norm2")), name + ".conv2", padding=1)
        shortcut = name + ".nin_shortcut"
        return y + (self.conv(x, shortcut) if f"first_stage_model.{shortcut}.weight" in self.w else x)

    def moments(self, image):
        x = self.conv(image.double(), "encoder.conv_in", padding=1)
        for level in range(4):
            for i in range(2):
                x = self.block(x, f"encoder.down.{level}.block.{i}")
            if level < 3:
                x = self.conv(F.pad(x, (0, 1, 0, 1)), f"encoder.down.{level}.downsample.conv", stride=2)
        x, name = self.block(x, "encoder.mid.block_1"), "encoder.mid.attn_1"
        n = self.norm(x, name + ".norm")
        q, k, v = (self.conv(n, f"{name}.{part}").flatten(2).transpose(1, 2) for part in "qkv")
        y = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v
        x = self.block(x + self.conv(y.transpose(1, 2).reshape(x.shape), name + ".proj_out"), "encoder.mid.block_2")
        x = self.conv(F.silu(self.norm(x, "encoder.norm_out")), "encoder.conv_out", padding=1)
        return self.conv(x, "quant_conv")

    def latents(self, image, noise):
        mean, logvar = self.moments(image).chunk(2, dim=1)
        return 0.18215 * (mean + torch.exp(0.5 * logvar.clamp(-30.0, 20.0)) * noise.double())


# ---- Checks ----------------------------------------------------------------------------------------------------------

passed = failed = 0


def is_true(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print(f"FAIL {what}")


def metadata(path):
    with open(path, "rb") as file:
        return json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))["__metadata__"]


def tokens_of(shared, kind):
    """Tokens of each class, from the oracle."""
    with open(os.path.join(shared, "datasets", kind + ".tsv"), encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    return {int(r[0]): int(r[2]) for r in rows if r[0].isdigit()}


def check_samples(run, batches, known, encoder, tokens):
    """Pictures, labels, classes, latents of all batches; known: examples, two for each picture."""
    seen, count, worst = [], len(known) // 2, 0.0
    for b in batches:
        for k in range(len(b["image"])):
            found = [i for i, (image, label) in enumerate(known)
                     if torch.equal(image, b["image"][k]) and torch.equal(label, b["label"][k])]
            is_true(len(found) == 1, f"{run}: a picture and its label map are not PIL's ({len(found)} are the same)")
            seen += found[:1]
            ids = [int(c) for c in np.unique(b["label"][k].numpy()) if int(c) != KINDS[run.split()[0]][2]]
            got = [int(c) for c in b["class_ids"][k] if c != -1]
            is_true(sorted(set(got)) == ids and got == sorted(got), f"{run}: classes {got}, wanted {ids}")
            if tokens:
                wanted = [c for c in ids for _ in range(tokens[c])]
                is_true(got == wanted, f"{run}: classes of tokens {got}, wanted {wanted}")
        z = encoder.latents(b["image"], b["posterior_noise"])
        worst = max(worst, float((z - b["z"]).abs().max() / z.abs().max()))
    for first in range(0, len(seen) - count + 1, count):
        epoch = [i // 2 for i in seen[first:first + count]]
        is_true(sorted(epoch) == list(range(count)), f"{run}: an epoch has the pictures {epoch}")
    is_true(worst <= 2e-6, f"{run}: z differs by {worst:.3g} of its largest value")
    print(f"{run}: pictures {' '.join(str(i // 2) + '|m'[i % 2] for i in seen)} (m: mirrored), z {worst:.2g}")


def largest(a, b, names):
    """Over some weights: largest difference over the largest value of b."""
    worst = 0.0
    for name in names:
        error = float((a[name].double() - b[name].double()).abs().max() / b[name].double().abs().max())
        worst = error if not error <= worst else worst
    return worst


def compare(mine, theirs, start, live):
    """Loss, gradients and weights of two of (flis, float32, float64), theirs the truth; over the weights with a gradient."""
    loss = max(abs(a - b) / b for a, b in zip(mine[0], theirs[0]))
    moved = [torch.cat([(w[name].double() - start[name].double()).reshape(-1) for name in live])
             for w in (mine[2], theirs[2])]
    return {"loss": loss, "grad": largest(mine[1], theirs[1], live), "weight": largest(mine[2], theirs[2], live),
            "update": float((moved[0] - moved[1]).norm() / moved[1].norm())}


def check_run(run, kind, options, directory, train, synth, vocab, tokens):
    root, model = (os.path.join(directory, f"{run.replace(' ', '-')}{end}") for end in ("", ".safetensors"))
    os.mkdir(root)
    lines = make_data(kind, root, options["pictures"])
    subprocess.run([synth, "tinyB", model] + (["--tokens", "49408"] if tokens else []), check=True)
    record = root + ".record"
    command = [train, "layout", "--recipe", "authors", "--model", model, "--vocab", vocab, "--dataset", kind, "--data_root",
               root, "--train_txt_file", os.path.join(root, "train.txt"), "--steps", str(options["steps"]), "--size",
               str(options["side"]), "--f32", "-q", "-o", root + ".tuned", "--record", record]
    for name in ("batch", "accumulate", "rate"):
        if options[name] != {"batch": 1, "accumulate": 1, "rate": 1e-6}[name]:
            command += ["--" + name, str(options[name])]
    subprocess.run(command, check=True)

    def recorded(step, what):
        return torch_trace.read_safetensors(f"{record}/step-{step}-{what}.safetensors")

    start = torch_trace.read_safetensors(model)
    steps = [[recorded(s, f"batch-{k + 1}") for k in range(options["accumulate"])] for s in range(1, options["steps"] + 1)]
    check_samples(run, [b for batches in steps for b in batches], examples(kind, root, lines, options["side"]),
                  Encoder(start), tokens)
    single, double = (Trainer(start, real, options) for real in (torch.float32, torch.float64))
    for number, batches in enumerate(steps, 1):
        names = [f"{record}/step-{number}-batch-{k + 1}.safetensors" for k in range(len(batches))]
        flis = ([float(metadata(n)["train.loss"]) for n in names], recorded(number, "gradients"),
                recorded(number, "weights"))
        is_true(set(flis[1]) == set(k for k in start if k.startswith(PREFIX)), f"{run}: names of gradients")
        truth, other = double.step(batches), single.step(batches)
        # A bias before a norm whose groups have one channel has no gradient in exact arithmetic: rounding alone moves it.
        most = max(float(g.abs().max()) for g in truth[1].values())
        live = [k for k, g in truth[1].items() if float(g.abs().max()) > 1e-9 * most]
        noise = max((float(flis[1][k].abs().max()) for k in truth[1] if k not in live), default=0.0) / most
        is_true(noise <= 1e-6, f"{run}: step {number}: a gradient that is 0 is {noise:.3g} of the largest")
        rows = (("flis", compare(flis, truth, start, live)), ("float32", compare(other, truth, start, live)),
                ("flis to float32", compare(flis, other, start, live)))
        print(f"{run}: step {number}: {len(live)} of {len(truth[1])} weights have a gradient; the others' {noise:.2g} of the largest")
        for who, row in rows:
            print(f"{run}: step {number}: {who:15}: " + ", ".join(f"{k} {v:.2g}" for k, v in row.items()))
        for what, limit in LIMITS.items():
            limit *= options["rate"] if what == "weight" else 1
            is_true(rows[0][1][what] <= limit, f"{run}: step {number}: {what}: {rows[0][1][what]:.3g}, at most {limit:g}")
    tuned = torch_trace.read_safetensors(root + ".tuned")
    is_true(all(torch.equal(tuned[k], v) for k, v in flis[2].items()), f"{run}: --f32 does not write the last weights")
    is_true(all(torch.equal(tuned[k], v) for k, v in start.items() if k in tuned and not k.startswith(PREFIX)),
            f"{run}: --f32 changes the text encoder or the autoencoder")


# ---- The fixed case of tests/unit/test_recipe.c ----------------------------------------------------------------------

FIXED = {"steps": 2, "side": 64, "batch": 1, "accumulate": 2, "rate": 1e-4, "decay": 0.1}
WATCHED = ("input_blocks.0.0.weight", "input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight",
           "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", "middle_block.1.transformer_blocks.0.attn2.to_v.weight",
           "middle_block.1.transformer_blocks.0.norm2.weight", "time_embed.0.weight", "output_blocks.5.0.out_layers.3.weight",
           "out.2.bias")


def fixed_lines(directory, train, synth):
    """The lines of the table that PyTorch gives for the folder that the C file makes, in float64."""
    root, model = os.path.join(directory, "fixed"), os.path.join(directory, "fixed.safetensors")
    os.mkdir(root)
    subprocess.run([synth, "tinyA", model], check=True)
    y, x = np.mgrid[0:48, 0:80]
    for i in range(2):
        rgb = np.stack([(3 * x + 5 * y + 60 * c + 40 * i) % 256 for c in range(3)], axis=-1).astype(np.uint8)
        Image.fromarray(rgb).save(os.path.join(root, f"{i}.ppm"))
        label = np.where(x < 24 + 20 * i, 1, np.where(y < 20, 2, np.where(x < 70, 7, 255))).astype(np.uint8)
        Image.fromarray(label).save(os.path.join(root, f"{i}.png"))
    for name, text in (("classes.tsv", "1\tsea\n2\tsky\n7\tred boat\n"), ("list.txt", "0.ppm\n1.ppm\n")):
        with open(os.path.join(root, name), "w", encoding="utf-8") as file:
            file.write(text)
    record = root + ".record"
    subprocess.run([train, "layout", "--recipe", "authors", "--model", model, "--vocab",
                    os.path.join(HERE, "..", "..", "models", "vocab.txt"), "--dataset", os.path.join(root, "classes.tsv"),
                    "--data-root", root, "--train-txt-file", os.path.join(root, "list.txt"), "--steps", "2", "--size", "64",
                    "--accumulate", "2", "--rate", "1e-4", "--decay", "0.1", "-q", "-o", root + ".tuned", "--record", record],
                   check=True)
    saved = {name: getattr(torch_check, name) for name in ("CHANNELS", "MULT", "ATTENDS", "BLOCKS", "HEADS", "WIDTH")}
    torch_check.CHANNELS, torch_check.MULT, torch_check.ATTENDS = 32, (1, 2, 2), (True, True, True)
    torch_check.BLOCKS, torch_check.HEADS, torch_check.WIDTH = 1, 2, 32
    trainer, losses, lines = Trainer(torch_trace.read_safetensors(model), torch.float64, FIXED), [], []
    trainer.optimizer.param_groups[0]["weight_decay"] = FIXED["decay"]
    for step in range(1, FIXED["steps"] + 1):
        batches = [torch_trace.read_safetensors(f"{record}/step-{step}-batch-{k + 1}.safetensors") for k in range(2)]
        more, grads, weights = trainer.step(batches)
        losses += more
        if step == 1:
            at = {name: int(grads[PREFIX + name].abs().argmax()) for name in WATCHED}
    norm = math.sqrt(sum(float((g * g).sum()) for g in grads.values()))
    lines.append(f"LOSS = {np.mean(losses):.9f}, NORM = {norm:.8f}")
    for name in WATCHED:
        lines.append(f'{{"{name}", {at[name]}, {float(weights[PREFIX + name].reshape(-1)[at[name]]):.10f}}}')
    for name, value in saved.items():
        setattr(torch_check, name, value)
    return lines


def adamw_lines():
    """Six weights, four steps of torch.optim.AdamW, in float64: gradients far below eps, about eps, far above, and zero."""
    w = torch.tensor([0.5, -0.25, 1.0, -2.0, 0.125, 3.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([w], lr=1e-3, weight_decay=0.1)
    lines = []
    for step in range(1, 5):
        w.grad = torch.tensor([3e-9, -1e-8, 2e-6, 1e-3, -0.5, 0.0], dtype=torch.float64) * (5 - step) * (-1) ** (step == 3)
        optimizer.step()
        lines.append("{" + ", ".join(f"{x:.12f}" for x in w.tolist()) + "}")
    return lines


def check_fixed(directory, train, synth):
    with open(os.path.join(HERE, "..", "unit", "test_recipe.c"), encoding="utf-8") as file:
        text = " ".join(file.read().split())
    for line in fixed_lines(directory, train, synth) + adamw_lines():
        is_true(" ".join(line.split()) in text, f"tests/unit/test_recipe.c lacks {line}")


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    train, synth = (os.path.abspath(path) for path in sys.argv[1:3])
    shared = sys.argv[3] if len(sys.argv) == 4 else ""
    clip = os.path.join(shared, "clip", "bpe_simple_vocab_16e6.txt.gz")
    small = os.path.join(HERE, "..", "..", "models", "vocab.txt")
    with_clip = os.path.isfile(clip)
    torch.set_num_threads(2)
    torch_check.wave = wave
    side = int(os.environ.get("SIDE", "128"))
    with tempfile.TemporaryDirectory() as directory:
        runs = [("coco", "coco", {"steps": int(os.environ.get("STEPS", "5")), "side": side, "pictures": 3, "batch": 1, "accumulate": 1, "rate": 1e-6}),
                ("ade20k accumulated", "ade20k", {"steps": 2, "side": 64, "pictures": 5, "batch": 2, "accumulate": 2, "rate": 1e-4})]
        for run, kind, options in runs:
            check_run(run, kind, options, directory, train, synth, clip if with_clip else small,
                      tokens_of(shared, kind) if with_clip else None)
        check_fixed(directory, train, synth)
    print(f"train_check: {passed} passed, {failed} failed")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
