# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Two other tasks, the same loop
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vitjax/vitjax/blob/main/notebooks/segment_and_restore.ipynb)
#
# **Question: what do a SegFormer and a Uformer learn in a minute each?** One finds writing on
# photographs, of images and label files in a folder; the other takes noise off photographs.
# `vitjax train --config=scenes`, which tells ten digits apart, and `--config=denoise` take eight
# minutes, and come to 52.7 % mIoU and 30.2 dB.

# %%
import glob, importlib.util, shutil

if importlib.util.find_spec("vitjax") is None:  # as in Colab
    gpu, tpu = shutil.which("nvidia-smi"), glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    extra = "cuda" if gpu else "tpu" if tpu else ""
    # %pip install -q "vitjax[{extra}]==0.2.0"
import jax, vitjax

print("vitjax", vitjax.__version__, "on", [device.device_kind for device in jax.devices()])

# %%
if importlib.util.find_spec("skimage") is None:  # its photographs
    # %pip install -q scikit-image
    pass
import pathlib
import cv2
import numpy as np
from vitjax.data import open_source

for split in ("train", "test"):  # in your own folder: images, and label files of the same names
    source = open_source("scenes://?size=32&count=1500", split)
    for kind in ("images", "labels"):
        pathlib.Path("data", split, kind).mkdir(parents=True, exist_ok=True)
    for i in range(len(source)):
        sample = source[i]
        cv2.imwrite(f"data/{split}/images/{i}.png", sample["image"][..., ::-1])
        cv2.imwrite(f"data/{split}/labels/{i}.png", np.uint8(sample["map"] < 10))
pathlib.Path("data/classes.txt").write_text("background\nwriting\n");

# %% [markdown]
# ## Train

# %%
from vitjax.cli import main

FOLDER = f"maps://{pathlib.Path('data').resolve()}"
SMALL = "mit_b0(dims=(32, 64), num_heads=(1, 2), depths=(1, 1), drop_path_rate=0.0)"
main(["train", "--config=scenes", "--workdir=runs/writing", "--config.steps=400",
      f"--config.data.train={FOLDER}", "--config.data.test=", "--config.data.image_size=32",
      f"--config.model.backbone={SMALL}", "--config.data.augment=centre | flip",
      "--config.schedule.warmup_steps=50"])
main(["train", "--config=denoise", "--workdir=runs/denoise", "--config.steps=100",
      "--config.data.image_size=32", "--config.schedule.warmup_steps=10"])

# %% [markdown]
# ## Ask
# Images that training has not seen, as `vitjax predict --workdir=runs/writing FILES` shows them:
# each task draws its own pictures.

# %%
import matplotlib.pyplot as plt
from vitjax.tools.predict import predict


def show(axis, run, name):
    (shown,) = predict(pathlib.Path("runs", run), [name]).every
    axis.imshow(shown.presented.picture)
    axis.set_axis_off()
    return shown.presented


photograph = np.frombuffer(open_source("photos://", "test")[1]["image"], np.uint8)
photograph = cv2.imdecode(photograph, cv2.IMREAD_COLOR)[60:260, 200:440]
cv2.imwrite("photograph.png", photograph)
figure = plt.figure(figsize=(10, 4.8), layout="constrained")
axes = figure.subplot_mosaic([["0", "1", "2"], ["d", "d", "d"]], height_ratios=(1, 2))
for i in "012":
    axes[i].set_title("image, classes found", fontsize=10)
    show(axes[i], "writing", f"data/test/images/{i}.png")
(line,) = show(axes["d"], "denoise", "photograph.png").lines
axes["d"].set_title(f"noise of σ 25, restored, original: {line}", fontsize=10);
