"""Steps of timm's models for `vitjax.tools.bench.worker`; needs torch and timm, and no vitjax."""

import contextlib
import os
from typing import Any

import timm  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]


def forward(model: str, batch: int, size: int, dtype: str, device: str, compiled: bool) -> Any:
    """Build the forward pass, the whole model in `dtype`."""
    kind = getattr(torch, dtype)
    net = create(model, size, device).eval().to(kind)
    images = torch.randn(batch, 3, size, size, device=device, dtype=kind)
    call = compile_(net, compiled)

    def run(steps: int) -> float:
        out = images
        with torch.inference_mode():
            for _ in range(steps):
                out = call(images)
        wait(device)
        return float(out.float().mean())

    return run, describe(net, device), lambda: memory(device)


def train(model: str, batch: int, size: int, dtype: str, device: str, compiled: bool) -> Any:
    """Build the training step with our loss, clipping and AdamW, parameters in float32."""
    net = create(model, size, device).train()
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.arange(batch, device=device) % 1000
    rates: dict[str, Any] = dict(lr=1e-4, weight_decay=0.05, fused=device == "cuda")
    optimizer = torch.optim.AdamW(net.parameters(), **rates)
    loss_of, call = torch.nn.CrossEntropyLoss(), compile_(net, compiled)
    half = dtype != "float32"

    def run(steps: int) -> float:
        loss = images
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device, dtype=getattr(torch, dtype), enabled=half):
                loss = loss_of(call(images), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        wait(device)
        return float(loss.detach())

    return run, describe(net, device), lambda: memory(device)


def create(model: str, size: int, device: str) -> Any:
    """Create timm's model for images of a side, on a device."""
    torch.manual_seed(0)
    if device == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)
    torch.backends.cudnn.benchmark = True
    net = timm.create_model(model, num_classes=1000)
    if net.pretrained_cfg["input_size"][-1] != size:
        with contextlib.suppress(TypeError):  # those without tables by position see any size
            net = timm.create_model(model, num_classes=1000, img_size=size)
    return net.to(device)


def compile_(net: Any, compiled: bool) -> Any:
    """Compile a model when it is first called, if asked for."""
    return torch.compile(net) if compiled else net


def wait(device: str) -> None:
    """Wait until the device has done all."""
    if device == "cuda":
        torch.cuda.synchronize()


def describe(net: Any, device: str) -> dict[str, Any]:
    """Tell what a row says besides times."""
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "device": name,
        "version": f"torch {torch.__version__}, timm {timm.__version__}",
    }


def memory(device: str) -> dict[str, Any]:
    """Return the bytes that PyTorch's allocator counts; nothing on a CPU."""
    if device != "cuda":
        return {}
    peak, used = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()
    return {"peak": peak, "used": used, "of": "the device"}
