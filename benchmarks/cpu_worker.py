"""Contestants of `benchmarks/cpu.py` that `vitjax bench` does not have: dense tasks, ONNX Runtime.

See `vitjax.tools.bench.worker` for what a contestant's function returns.
"""

import os
from typing import Any

import numpy as np

DENSE = {"segformer_b0": 512, "uformer_t": 128}
"""Model → the side of a training crop."""


def transformers_train(model: str, batch: int) -> Any:
    """Build the training step of transformers' SegFormer, eager, with our loss, clipping, AdamW."""
    import torch
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    config = transformers.SegformerConfig(num_labels=150)  # its defaults are B0
    net = transformers.SegformerForSemanticSegmentation(config).train()
    side = DENSE[model]
    x = torch.randn(batch, 3, side, side)
    labels = torch.randint(0, 150, (batch, side, side))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)

    def run(steps: int) -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = net(pixel_values=x, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        return float(loss.detach())

    version = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return run, {"version": version}, dict


def onnx_forward(model: str, batch: int) -> Any:
    """Build the forward pass of timm's model, exported by PyTorch's tracing exporter.

    Args:
      model: timm's name.
    """
    import io
    import warnings

    import onnxruntime
    import timm
    import torch

    net, file = timm.create_model(model, num_classes=1000).eval(), io.BytesIO()
    x = torch.randn(batch, 3, 224, 224)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), file, input_names=["x"], opset_version=18, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}

    def run(steps: int) -> float:
        for _ in range(steps):
            out = session.run(None, feed)
        return float(np.mean(out[0]))

    return run, {"version": f"onnxruntime {onnxruntime.__version__}"}, dict
