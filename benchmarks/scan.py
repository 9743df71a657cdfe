"""Measure the effect of `scan=True` on compile time, memory, and time of value and gradient.

    python benchmarks/scan.py                                  # this machine
    python benchmarks/scan.py --topology=v5e:2x2 --no-steps    # the TPU compiler (extra `plan`)

Each model is compiled in a separate process, unrolled and scanned, without a cache. Compile times
are given in processor seconds too, which depend less on other programs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

MODELS = ("swin_small", "biformer_small", "debiformer_small")


def measure(name: str, scan: bool, topology: str, batch: int, size: int, steps: int) -> Any:
    """Compile one form of a model, and time its steps."""
    from vitjax.plan.topology import open_topology

    devices = open_topology(topology).devices
    import jax
    import jax.numpy as jnp

    from vitjax.models import create_model

    model = create_model(name, scan=scan, dtype=None if topology == "cpu" else "bfloat16")
    place = jax.sharding.SingleDeviceSharding(devices[0])

    def described(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    images = jnp.zeros((batch, size, size, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def loss(params: Any, rest: Any, x: Any) -> Any:
        out, _ = model.apply({"params": params, **rest}, x, mutable=["batch_stats"])
        return jnp.mean(jnp.asarray(jax.tree.leaves(out)[0], jnp.float32) ** 2)

    params, rest = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    wall, cpu = time.perf_counter(), time.process_time()
    given = jax.tree.map(described, (params, rest, jax.eval_shape(lambda: images)))
    compiled = jax.jit(jax.value_and_grad(loss)).lower(*given).compile()
    found = {
        "seconds": time.perf_counter() - wall,
        "processor": time.process_time() - cpu,
        "memory": compiled.memory_analysis().temp_size_in_bytes,
    }
    if steps:
        # One value for all parameters: a step takes as long with any numbers.
        values = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), (params, rest))
        times = []
        for _ in range(steps + 1):
            begin = time.perf_counter()
            jax.block_until_ready(compiled(*values, images))
            times.append(time.perf_counter() - begin)
        found["step"] = statistics.median(times[1:])
    return found


def main() -> None:
    """Measure each model unrolled and scanned, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="cpu", help="cpu, or a TPU slice such as v5e:2x2")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--no-steps", dest="steps", action="store_const", const=0)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.one:
        name, scan = o.one.split(":")
        found = measure(name, scan == "1", o.topology, o.batch_size, o.image_size, o.steps)
        print(json.dumps(found))
        return
    print("| model | | compile, s (processor) | temporaries, GB | step, s |\n|---|---|---|---|---|")
    for name in o.models:
        for scan in (0, 1):
            out = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], f"--one={name}:{scan}"],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            r = json.loads(out.stdout.splitlines()[-1])
            step = f"{r['step']:.2f}" if "step" in r else ""
            print(
                f"| {name} | {'scanned' if scan else 'unrolled'} | {r['seconds']:.0f} "
                f"({r['processor']:.0f}) | {r['memory'] / 1e9:.2f} | {step} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
