# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Where does a small ViT look in a digit?
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vitjax/vitjax/blob/main/notebooks/look_inside.ipynb)
#
# **Question: after a minute of training, do the patches that a vision transformer attends to lie on
# the ink?** Attention says which places are mixed, and not why the model decides.

# %%
import glob, importlib.util, shutil

if importlib.util.find_spec("vitjax") is None:  # as in Colab
    gpu, tpu = shutil.which("nvidia-smi"), glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    extra = "cuda" if gpu else "tpu" if tpu else ""
    # %pip install -q "vitjax[{extra}]==0.2.0"
import jax, vitjax

print("vitjax", vitjax.__version__, "on", [device.device_kind for device in jax.devices()])

# %% [markdown]
# ## Train
# A ViT with a class token, on 8×8 scans in patches of 2×2 pixels: 4×4 patches. 360 scans are held
# out.

# %%
from vitjax.cli import main

main(["train", "--config=digits", "--workdir=runs/digits", "--config.model.pool=token",
      "--config.epochs=0", "--config.steps=800", "--config.log_every=200"])

# %% [markdown]
# ## One page
# Every head of every layer from every patch: move the pointer over the image. In a shell it is
# `vitjax look photo.png --workdir=runs/digits`. The page is one file that needs no network.

# %%
import numpy as np
from vitjax.analysis.page import Page, make_view
from vitjax.data import open_source
from vitjax.tools.look import open_subject

digits, subject = open_source("digits://", "test"), open_subject("runs/digits")
pixels = np.stack([digits[i]["image"] for i in range(len(digits))])
if pixels.shape[-1] == 1:
    pixels = pixels.repeat(3, axis=-1)
view = make_view(subject.capture(pixels[:1]), pixels[0], model="ViT", image="digit",
                 classes=subject.trained.classes)
Page([view], height=700)

# %% [markdown]
# ## Answer
# Rollout carries attention through all layers to what the head reads; even attention would give
# each patch 1/16. Brightness counts as ink.

# %%
import matplotlib.pyplot as plt
from vitjax.analysis.rollout import rollout_on_image

seen = subject.capture(pixels)
last = seen[-1].on_image(0).mean(axis=1)  # of the class token, mean of the heads
maps = {"the last block": last, "all blocks (rollout)": rollout_on_image(seen)}
ink = pixels.mean(axis=-1) / 255
on_ink = {k: (m * ink).sum((1, 2)) / m.sum((1, 2)) / ink.mean((1, 2)) for k, m in maps.items()}

figure, axes = plt.subplots(3, 8, figsize=(10, 4.6), layout="constrained")
for i, column in enumerate(axes.T):
    column[0].imshow(ink[i], cmap="gray")
    for axis, m in zip(column[1:], maps.values()):
        shown = axis.imshow(100 * m[i], cmap="viridis", vmin=0, vmax=25)
for axis, name in zip(axes[:, 0], ["digit", *maps]):
    axis.set_ylabel(name.replace(" (", "\n("), fontsize=9)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
figure.colorbar(shown, ax=axes[1:], label="attention of a patch (%)", extend="max")
words = ", ".join(f"{name} {v.mean():.2f}" for name, v in on_ink.items())
figure.suptitle(f"Ink under the attention, times that under even attention: {words}", fontsize=11);
