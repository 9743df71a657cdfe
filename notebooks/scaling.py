# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # What would a larger model, or more data, give?
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vitjax/vitjax/blob/main/notebooks/scaling.ipynb)
#
# **Question: does L(N, D) = E + A / N^α + B / D^β, fitted to nine small runs, predict a tenth one
# that is larger than all of them?** The images are `collages://`, of which each is seen once. A law
# of nine runs of half a minute says how it is done; docs/scaling.md has what a real sweep needs.

# %%
import glob, importlib.util, shutil

if importlib.util.find_spec("vitjax") is None:  # as in Colab
    gpu, tpu = shutil.which("nvidia-smi"), glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    extra = "cuda" if gpu else "tpu" if tpu else ""
    # %pip install -q "vitjax[{extra}]==0.2.0"
import jax, vitjax

print("vitjax", vitjax.__version__, "on", [device.device_kind for device in jax.devices()])

# %% [markdown]
# ## A sweep
# A sweep is a file whose `get_sweep()` yields configs. `vitjax sweep run FILE --next` takes free
# cells until none is left; any number of workers may run it in one folder.

# %%
import pathlib
from vitjax.cli import main

SWEEP = """
def cell(width, images):
    source = "collages://?size=16&clutter=0&noise=64"
    return dict(
        steps=images // 32, log_every=1000, eval_every=100_000, checkpoint_every=100_000,
        model=dict(name="vit_ti4", width=width, depth=1, num_heads=width // 8, pool="gap"),
        data=dict(train=f"{source}&count={images}", test=f"{source}&count=500", eval_crop=1.0,
                  image_size=16, batch_size=32, eval_batch_size=500),
        evals=dict(fresh=f"{source}&split=train&seed=1&count=2000"),
        optimizer=dict(name="adamw", b2=0.99, weight_decay=0.02, clip_norm=1.0),
        schedule=dict(name="cosine", learning_rate=0.12 / width, warmup_steps=images // 320),
    )

def get_sweep(kind="small"):
    if kind == "large":
        return [cell(48, 131_072)]
    return [cell(w, d) for w in (16, 24, 32) for d in (16_384, 32_768, 65_536)]
"""
pathlib.Path("sizes.py").write_text(SWEEP)
main(["sweep", "run", "sizes.py", "--next", "--limit", "5"])

# %% [markdown]
# The rest, and the tenth run: it is larger, and sees twice as many images as the longest of nine.

# %%
main(["sweep", "run", "sizes.py", "--next"])
main(["sweep", "run", "sizes.py:large", "--next"])

# %% [markdown]
# ## The fit
# `vitjax sweep fit sizes.py --metric fresh/loss` prints all of it; here it is made of its parts.
# The loss is that of images that no run has seen, of the same kind.

# %%
import json
import numpy as np
from vitjax.scaling.fit import fit
from vitjax.scaling.intervals import intervals
from vitjax.scaling.laws import SIZE_AND_DATA


def results(folder):
    rows = map(json.loads, (folder / "cells.jsonl").read_text().splitlines())
    measured = lambda r: json.loads((folder / r["id"] / "result.json").read_text())["metrics"]
    return np.array([(r["N"], r["D"], measured(r)["fresh"]["loss"]) for r in rows])


small, large = results(pathlib.Path("runs/sizes")), results(pathlib.Path("runs/sizes-large"))
found = intervals(fit(SIZE_AND_DATA, small[:, :2], small[:, 2]), small[:, :2], small[:, 2],
                  np.arange(len(small)), 300)
print({name: round(value, 3) for name, value in found.found.parameters.items()})

# %% [markdown]
# ## Answer
# Close to the plateau with which training begins, losses fall slower than later, so that a law of
# such short runs expects too much loss of a longer one: where the largest run lies below the band,
# it did.

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
data, sizes = np.geomspace(16_000, 140_000, 40), np.unique(np.r_[small[:, 0], large[:, 0]])
for n, colour, marker in zip(sizes, ("#E69F00", "#56B4E9", "#009E73", "#D55E00"), "o^sD"):
    own = np.concatenate([small, large])
    own, x = own[own[:, 0] == n], np.stack([np.full(40, n), data], axis=1)
    axis.plot(*own[:, 1:].T, marker, color=colour, markeredgecolor="black", label=f"N = {n:,.0f}")
    axis.plot(data, found.found.predict(x), color=colour)
    if n == large[0, 0]:
        axis.fill_between(data, *found.predict(x).T, color=colour, alpha=0.2, linewidth=0)
(low, high), told = found.predict(large[:, :2])[0], found.found.predict(large[:, :2])[0]
title = f"The largest run: {told:.2f} [{low:.2f}, {high:.2f}] predicted, {large[0, 2]:.2f} measured"
axis.set(xscale="log", yscale="log", xlabel="D (images seen)", ylabel="loss on fresh images (nats)",
         title=title)
axis.yaxis.set_major_formatter("{x:g}"), axis.yaxis.set_minor_formatter("{x:g}")
axis.legend(title="lines: fit of all but the largest N; band: 95 %", fontsize=8, title_fontsize=8)
axis.grid(alpha=0.3, which="both");
