# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Your own photos in two minutes
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vitjax/vitjax/blob/main/notebooks/quickstart.ipynb)
#
# **Question: does a small vision transformer learn my photos, and what does it say of new ones?**
#
# Put a folder `photos/` with one subfolder for each class beside this notebook. Without one, the
# second cell writes 1,797 scanned digits there, so that the notebook runs as it is.

# %%
import glob, importlib.util, shutil

if importlib.util.find_spec("vitjax") is None:  # as in Colab
    gpu, tpu = shutil.which("nvidia-smi"), glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    extra = "cuda" if gpu else "tpu" if tpu else ""
    # %pip install -q "vitjax[{extra}]==0.2.0"
import jax, vitjax

print("vitjax", vitjax.__version__, "on", [device.device_kind for device in jax.devices()])

# %%
import pathlib
import cv2
from sklearn.datasets import load_digits

photos = pathlib.Path("photos")
if not photos.exists():
    digits = load_digits()
    for i, (scan, label) in enumerate(zip(digits.images, digits.target)):
        path = photos / str(label) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), 15.9 * scan)
print({folder.name: len(list(folder.iterdir())) for folder in sorted(photos.iterdir())})

# %% [markdown]
# ## Train
# The same as `vitjax train --config=photos …` in a shell. A fifth of each class is held out. For
# photographs take more pixels and patches of 16, `--config.data.augment=crop_flip`, and a GPU or
# TPU. Stop the cell when you like: started again, it goes on where it was.

# %%
from vitjax.cli import main

main(["train", "--config=photos", "--workdir=runs/photos", "--config.data.train=photos/",
      "--config.data.image_size=32", "--config.model.patch_size=8", "--config.model.width=64",
      "--config.model.depth=4", "--config.model.num_heads=4", "--config.epochs=30",
      "--config.data.augment=crop(area=(0.6, 1.0))", "--config.data.batch_size=64",
      "--config.schedule.learning_rate=3e-3", "--config.schedule.warmup_steps=50",
      "--config.optimizer.ema=0.99", "--config.log_every=200"])

# %% [markdown]
# ## Ask
# `vitjax predict --workdir=runs/photos photo.jpg` does the same in a shell. Here all photos are
# asked that training has not seen; those are shown of which the model is least sure.

# %%
import matplotlib.pyplot as plt
from vitjax.data import open_source
from vitjax.tools.predict import predict

held_out = open_source("photos/", "test")
files = [str(photos / held_out.example_name(i)) for i in range(len(held_out))]
answers = []
for shown in predict(pathlib.Path("runs/photos"), files).every:
    said, share = shown.presented.result["top"][0]
    answers.append((share, said, shown.path.parent.name, shown.path))
answers.sort()
figure, axes = plt.subplots(3, 8, figsize=(10, 4.9), layout="constrained")
for axis, (share, said, truth, path) in zip(axes.flat, answers):
    wrong = said != truth
    axis.imshow(cv2.imread(str(path))[..., ::-1])
    axis.set_title(f"{said} ({share:.0%})", fontsize=9)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color="#D55E00" if wrong else "0.8", linewidth=4 if wrong else 1)
top1 = sum(said == truth for _, said, truth, _ in answers) / len(answers)
figure.suptitle(f"{top1:.1%} of {len(answers)} photos that training has not seen are right.\n"
                "Those of which the model is least sure; orange frames: wrong");
