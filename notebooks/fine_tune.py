# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # What do pretrained weights give?
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vitjax/vitjax/blob/main/notebooks/fine_tune.ipynb)
#
# **Question: with eight labelled images for each class, how much better is a model that starts from
# pretrained weights, and must all of it be trained?** Weights come in as they are published;
# classes and resolution are others than in pretraining, so the head is new and positions are
# interpolated.

# %%
import glob, importlib.util, shutil

if importlib.util.find_spec("vitjax") is None:  # as in Colab
    gpu, tpu = shutil.which("nvidia-smi"), glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    extra = "cuda" if gpu else "tpu" if tpu else ""
    # %pip install -q "vitjax[{extra}]==0.2.0"
import jax, vitjax

print("vitjax", vitjax.__version__, "on", [device.device_kind for device in jax.devices()])

# %% [markdown]
# ## Data
# Scanned digits in folders: 0 to 4 for pretraining, 5 to 9 to fine-tune on; there, all but eight
# scans of each class are held out.

# %%
import pathlib
import cv2
from sklearn.datasets import load_digits

digits, seen = load_digits(), {}
for i, (scan, label) in enumerate(zip(digits.images, digits.target)):
    seen[label] = seen.get(label, 0) + 1
    split = "train" if seen[label] <= 8 else "test"
    folder = f"old/{label}" if label < 5 else f"new/{split}/{label}"
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(f"{folder}/{i}.png", 15.9 * scan)

# %% [markdown]
# ## Weights
# **Published**: a ViT-Ti/16 of ImageNet-21k (AugReg, by timm). **Where the hub cannot be reached**,
# as in our checks, a small stand-in is pretrained here on the digits 0 to 4, and written by `vitjax
# export --to hub` in the same layout. The picture's title says which of them
# it shows: 900 scans of five digits teach little of the five others.

# %%
from vitjax.cli import main
from vitjax.weights.files import read

try:
    WEIGHTS, SIZE, MODEL = "hf://timm/vit_tiny_patch16_224.augreg_in21k", 64, []
    read(WEIGHTS)
except (ImportError, OSError) as error:
    print(f"A stand-in is made: {error}")
    WEIGHTS, SIZE = "pretrained/model.safetensors", 48
    MODEL = ["--config.model.patch_size=8", "--config.model.width=64", "--config.model.depth=4",
             "--config.model.num_heads=4"]
BASE = ["train", "--config=photos", "--config.model.name=vit_ti16", "--config.model.pool=token",
        "--config.model.position=learned", "--config.data.augment=digits",
        "--config.epochs=0", "--config.optimizer.ema=0", *MODEL]
if WEIGHTS.startswith("pretrained"):
    main([*BASE, "--workdir=runs/old", "--config.data.train=old/", "--config.data.image_size=32",
          "--config.steps=600", "--config.log_every=200"])
    main(["export", "runs/old", "pretrained", "--to=hub"])

# %% [markdown]
# ## Fine-tune, three ways

# %%
FROZEN = '--config.optimizer.freeze=("(?!head/).*",)'
WAYS = {
    "from random weights": [],
    "pretrained, head alone": [f"--config.init={WEIGHTS}", FROZEN,
                               "--config.schedule.learning_rate=0.03"],
    "pretrained, all of it": [f"--config.init={WEIGHTS}"],
}
for i, flags in enumerate(WAYS.values()):
    main([*BASE, f"--workdir=runs/new{i}", "--config.data.train=new/",
          "--config.data.batch_size=20", f"--config.data.image_size={SIZE}", "--config.steps=120",
          "--config.eval_every=20", "--config.schedule.warmup_steps=10", "--config.data.mean=()",
          "--config.data.std=()", "--config.log_every=1000", *flags])

# %% [markdown]
# ## Answer

# %%
import matplotlib.pyplot as plt
from vitjax.train.report import read_metrics

figure, axis = plt.subplots(figsize=(9, 3.8), layout="constrained")
for i, (name, colour, marker) in enumerate(zip(WAYS, ("#000000", "#56B4E9", "#D55E00"), "so^")):
    rows = read_metrics(pathlib.Path(f"runs/new{i}/metrics.jsonl"))
    top1 = {row["step"]: 100 * row["top1"] for row in rows if row["split"] == "test"}
    axis.plot(top1.keys(), top1.values(), color=colour, marker=marker,
              label=f"{name}: {top1[max(top1)]:.1f} %")
axis.axhline(20, color="0.5", linestyle=":", label="chance")
axis.set(xlabel="training step (20 images each)", ylabel="test accuracy (%)",
         ylim=(0, 100), title=f"weights: {WEIGHTS}")
figure.legend(loc="outside right center", frameon=False)
axis.grid(alpha=0.3);
