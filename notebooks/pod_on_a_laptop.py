# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # A pod on a laptop
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vitjax/vitjax/blob/main/notebooks/pod_on_a_laptop.ipynb)
#
# **Question: does a run on eight devices, split in several ways, or stopped and gone on with, train
# the same model as one device?** Eight virtual CPU devices play the pod, also where there is a GPU
# or TPU.

# %%
import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import glob, importlib.util, shutil

if importlib.util.find_spec("vitjax") is None:  # as in Colab
    gpu, tpu = shutil.which("nvidia-smi"), glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    extra = "cuda" if gpu else "tpu" if tpu else ""
    # %pip install -q "vitjax[{extra}]==0.2.0"
import jax, vitjax

print("vitjax", vitjax.__version__, "on", [device.device_kind for device in jax.devices()])

# %% [markdown]
# ## The mesh
# `data` splits the batch, `fsdp` the parameters too, `tensor` heads and hidden channels. Batch and
# seed are those of the run; the mesh changes neither.

# %%
import pathlib
import signal
import subprocess
import sys
import time
from vitjax.cli import main
from vitjax.train.report import read_metrics

BASE = ["train", "--config=digits", "--config.epochs=0", "--config.steps=40",
        "--config.model.depth=2", "--config.schedule.warmup_steps=10", "--config.log_every=1",
        "--config.checkpoint_every=10"]
SPLIT = ["--config.mesh.data=1", "--config.mesh.fsdp=4", "--config.mesh.tensor=2"]


def process(folder, *flags, devices=8):
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-m", "vitjax.cli", *BASE, f"--workdir=runs/{folder}", *flags]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def rows(folder):
    found = read_metrics(pathlib.Path("runs", folder, "metrics.jsonl"))
    return {r["step"]: r["loss"] for r in found if r["split"] == "train"}


print("one device: exit code", process("one", devices=1).wait())
print("8 × data: exit code", process("data").wait())
print("4 × fsdp, 2 × tensor: exit code", process("split", *SPLIT).wait())

# %% [markdown]
# ## Stop it, and go on
# SIGTERM is what a preemption sends. Exit code 75 says: saved, start me again.

# %%
stopped = process("stopped", *SPLIT)
while len(rows("stopped")) < 15 and stopped.poll() is None:
    time.sleep(0.05)
stopped.send_signal(signal.SIGTERM)
code, step = stopped.wait(), len(rows("stopped"))
print(f"stopped after step {step}: exit code {code}; then {process('stopped', *SPLIT).wait()}")

# %% [markdown]
# ## What a step needs, and what starts it on real machines
# With `pip install 'vitjax[plan]'` the step is compiled for TPUs that are not here; else for these
# devices. On a pod the same command runs on every host, each reads its own rows of the batch, and
# the work folder is one that all of them see; `vitjax launch` writes the script. docs/pods.md has
# the rest.

# %%
topology = "v5e:2x4" if importlib.util.find_spec("libtpu") else "cpu"
main(["plan", "--config=digits", f"--topology={topology}", *SPLIT])
main(["launch", "slurm", "--config=digits", "--workdir=/shared/digits", "--dry-run",
      "--set", "nodes=4", "gpus=8"])

# %% [markdown]
# ## Answer

# %%
import matplotlib.pyplot as plt
from vitjax.tools.info import run_info

sha = [run_info(pathlib.Path("runs", name))[0]["sha256"] for name in ("split", "stopped")]
one, looks = rows("one"), (("data", "8 × data", "#56B4E9", "-"),
                           ("split", "4 × fsdp, 2 × tensor", "#D55E00", "--"),
                           ("stopped", f"the same, stopped after step {step}", "#009E73", ":"))
figure, (above, below) = plt.subplots(2, 1, figsize=(7, 5.2), sharex=True, layout="constrained")
above.plot(one.keys(), one.values(), color="black", linewidth=4, alpha=0.3, label="one device")
for folder, name, colour, line in looks:
    found = rows(folder)
    above.plot(found.keys(), found.values(), color=colour, linestyle=line, label=name)
    away = [abs(found[k] / one[k] - 1) + 1e-9 for k in one]
    below.plot(one.keys(), away, color=colour, linestyle=line)
same = "equal" if sha[0] == sha[1] else "NOT equal"
above.set(ylabel="training loss", title=f"stopped or not: parameters are {same}, bit by bit")
below.set(yscale="log", ylim=(1e-9, 1e-2), xlabel="training step",
          ylabel="relative difference\nfrom one device + 1e-9")
above.legend()
above.grid(alpha=0.3), below.grid(alpha=0.3);
