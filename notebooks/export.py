# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Does an exported model say the same?
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vitjax/vitjax/blob/main/notebooks/export.ipynb)
#
# **Question: how far from the trained model are the numbers of its StableHLO program, and of its
# weights in the layout of PyTorch's checkpoints, read again?** Neither needs the training code;
# docs/export.md has ONNX and folders for timm.

# %%
import glob, importlib.util, shutil

if importlib.util.find_spec("vitjax") is None:  # as in Colab
    gpu, tpu = shutil.which("nvidia-smi"), glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    extra = "cuda" if gpu else "tpu" if tpu else ""
    # %pip install -q "vitjax[{extra}]==0.2.0"
import jax, vitjax

print("vitjax", vitjax.__version__, "on", [device.device_kind for device in jax.devices()])

# %% [markdown]
# ## Train and export
# In a shell: `vitjax export runs/digits --to stablehlo out/program`.

# %%
if importlib.util.find_spec("flatbuffers") is None:  # how jax.export stores programs
    # %pip install -q flatbuffers
    pass
from vitjax.cli import main

main(["train", "--config=digits", "--workdir=runs/digits", "--config.epochs=0",
      "--config.steps=300", "--config.log_every=100"])
main(["export", "runs/digits", "out/program", "--to=stablehlo"])
main(["export", "runs/digits", "out/hub", "--to=hub"])

# %% [markdown]
# ## Use
# The program takes 8-bit images, in batches of any size, on CPUs, CUDA GPUs and TPUs.
# `out/program/run.py` shows it in a file that needs jax alone. The folder for the hub has a
# `config.json` by which the model is chosen, here as for weights of others.

# %%
import pathlib
import numpy as np
from jax import export
from vitjax.data import open_source
from vitjax.runs import forward, open_trained

digits = open_source("digits://", "test")
images = np.stack([np.asarray(digits[i]["image"]) for i in range(len(digits))])
trained = open_trained("runs/digits")
model, variables = vitjax.load_pretrained("out/hub")
again = trained._replace(model=model, variables=variables)
logits = np.asarray(forward(trained, trained.variables, images))
program = export.deserialize(bytearray(pathlib.Path("out/program/model.stablehlo").read_bytes()))
others = {
    "StableHLO program": np.asarray(jax.jit(program.call)(images)),
    "weights in timm's layout, read again": np.asarray(forward(again, again.variables, images)),
}

# %% [markdown]
# ## Answer
# A difference of 1e-6 of numbers of size 1 to 10 is float32's rounding, 1.2e-7 for each operation.

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
bins = np.geomspace(1e-9, 1e-4, 51)
for (name, found), colour, hatch in zip(others.items(), ("#56B4E9", "#D55E00"), ("", "//")):
    same = (found.argmax(1) == logits.argmax(1)).sum()
    away = np.abs(found - logits).max(axis=1)
    axis.hist(away.clip(bins[0]), bins, color=colour, hatch=hatch, edgecolor="black", linewidth=0.4,
              label=f"{name}: at most {away.max():.2g}; {same} of {len(images)} classes the same")
axis.set(xscale="log", xlabel="largest difference of a logit of an image", ylabel="test images")
axis.set_xticks(10.0 ** np.arange(-9, -3), ["0", *(f"1e{n}" for n in range(-8, -3))])
figure.legend(loc="outside upper center", frameon=False)
axis.grid(alpha=0.3);
