# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # What does another attention give?
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vitjax/vitjax/blob/main/notebooks/ablate.ipynb)
#
# **Question: one small pyramid, six token mixers: which of them learns most from the same images?**
# The data is 1,437 scanned digits of 8×8 pixels, in patches of 2×2, and 360 to be asked about.
# Three seeds each. An image more is 0.3 %; runs of seconds say how to ask, and nothing of ImageNet.

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

# %%
import jax.numpy as jnp
import numpy as np
import optax
from vitjax.data import open_source


def load(split):
    source = open_source("digits://", split)
    examples = [source[i] for i in range(len(source))]
    images = jnp.asarray(np.stack([e["image"] for e in examples]), jnp.float32) / 127.5 - 1
    return images, jnp.asarray([e["label"] for e in examples])


(images, labels), (test_images, test_labels) = load("train"), load("test")

# %% [markdown]
# ## One model, one argument changed
# `vitjax.list_models()` and `vitjax list --mixers` name what there is; `|` puts mixers into
# alternate blocks. All seeds train side by side, by `vmap`.

# %%
STEPS, BATCH = 250, 64
MIXERS = {
    "pooling": "pooling", "windows": "window(window_size=2)",
    "full": "full", "outlook": "outlook(stride=1)", "deformable": "deformable(kernel_size=3)",
    "bi-level routing": "bra(n_win=2, topk=2)",
}
optimizer = optax.adamw(optax.cosine_decay_schedule(3e-3, STEPS), weight_decay=0.05)


def train(model, key):
    variables = model.init(key, images[:1])

    def step(carry, key):
        variables, state = carry
        pick = jax.random.randint(key, (BATCH,), 0, len(images))

        def loss(v):
            logits = model.apply(v, images[pick])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[pick]).mean()

        updates, state = optimizer.update(jax.grad(loss)(variables), state, variables)
        return (optax.apply_updates(variables, updates), state), None

    keys = jax.random.split(key, STEPS)
    (variables, _), _ = jax.lax.scan(step, (variables, optimizer.init(variables)), keys)
    return (model.apply(variables, test_images).argmax(-1) == test_labels).mean()


top1 = {}
for name, mixer in MIXERS.items():
    model = vitjax.create_model("swin_tiny", 10, image_size=8, patch_size=2, dims=(24, 48),
                                depths=(1, 1), num_heads=(2, 4), mixer=mixer)
    run = jax.jit(lambda key: train(model, key))  # compiled once for all seeds
    top1[name] = np.array([100 * float(run(jax.random.key(seed))) for seed in range(3)])
    print(f"{name:18} {top1[name].round(1)}")

# %% [markdown]
# ## Answer

# %%
import matplotlib.pyplot as plt

order = sorted(top1, key=lambda name: top1[name].mean())
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
for y, name in enumerate(order):
    axis.plot(top1[name], [y] * 3, "o", color="#56B4E9", markeredgecolor="black", label="a seed")
    axis.plot(top1[name].mean(), y, "D", color="#D55E00", label="mean of the seeds")
axis.set_yticks(range(len(order)), order)
axis.set(xlabel=f"test accuracy after {STEPS} steps (%)", ylabel="token mixer")
axis.legend(*(x[:2] for x in axis.get_legend_handles_labels()), loc="lower right")
axis.grid(alpha=0.3);
