"""Short programs that are written beside an artefact and use it without vitjax."""

from vitjax.tools.export.given import Given, preprocessing

_HEAD = {
    "stablehlo": """
from jax import export

HERE = pathlib.Path(__file__).parent
ABOUT = json.loads((HERE / "model.json").read_text())
MODEL = export.deserialize(bytearray((HERE / "model.stablehlo").read_bytes())).call
""",
    "onnx": """
import onnxruntime

SESSION = onnxruntime.InferenceSession(pathlib.Path(__file__).parent / "model.onnx")
ABOUT = json.loads(SESSION.get_modelmeta().custom_metadata_map["vitjax"])
MODEL = lambda images: SESSION.run(None, {"images": images})[0]
""",
}
_LIBRARY = {"stablehlo": "jax", "onnx": "onnxruntime"}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_KERNELS = {"bicubic": "BICUBIC", "antialias": "BILINEAR", "bilinear": "BILINEAR", "area": "BOX"}

_SHOW = {
    "classes": """
for path, logits in zip(sys.argv[1:], np.asarray(MODEL(np.stack([*map(read, sys.argv[1:])])))):
    best = np.argsort(-logits)[:5]
    print(path, *(f"{ABOUT['classes'][k]} ({logits[k]:.3f})" for k in best), sep="\\n  ")
""",
    "features": """
for path, row in zip(sys.argv[1:], np.asarray(MODEL(np.stack([*map(read, sys.argv[1:])])))):
    print(path, *row)
""",
    "map": """
for path, logits in zip(sys.argv[1:], np.asarray(MODEL(np.stack([*map(read, sys.argv[1:])])))):
    Image.fromarray(logits.argmax(-1).astype(np.uint8)).save(f"{path}.classes.png")
""",
    "image": """
for path, image in zip(sys.argv[1:], np.asarray(MODEL(np.stack([*map(read, sys.argv[1:])])))):
    Image.fromarray(np.rint(255 * image).astype(np.uint8).squeeze()).save(f"{path}.restored.png")
""",
}
"""What a program does with the numbers."""


def runner(given: Given, to: str) -> str:
    """Build the program for an artefact of a format, "stablehlo" or "onnx"."""
    needs = f"{_LIBRARY[to]}, numpy and Pillow"
    return (
        f'"""Apply the model in this folder: python run.py FILE … (needs {needs})."""\n\n'
        f"import json\nimport pathlib\nimport sys\n\nimport numpy as np\n"
        f"from PIL import Image, ImageOps\n{_HEAD[to].lstrip()}\n\n{_read(given)}\n"
        f"{_SHOW[given.gives]}"
    )


def _read(given: Given) -> str:
    """Build the function from a file to the model's input, `[H, W, c]` of 8 bits."""
    how, (height, width) = preprocessing(given), given.size
    if given.channels not in _MODES:
        shape = f"[{height}, {width}, {given.channels}]"
        return f"def read(path):  # .npy: 8 bits, {shape}\n    return np.load(path)\n"
    mode = _MODES[given.channels]
    lines = [f'    image = ImageOps.exif_transpose(Image.open(path)).convert("{mode}")']
    crop = how["crop"]
    if crop == 0:
        lines += [f"    image = {_resize(how['interpolation'], str((width, height)))}"]
    elif crop is not None:
        short = max(int(min(height, width) / crop), 1)
        lines += [
            f"    size = [int({short} * side / min(image.size)) for side in image.size]",
            f"    image = {_resize(how['interpolation'], 'size')}",
        ]
    if crop != 0:
        lines += [
            f"    left, top = ((n - m) / 2 for n, m in zip(image.size, ({width}, {height})))",
            "    left, top = (round(x) if x >= 0 else int(np.ceil(x)) for x in (left, top))",
            f"    image = image.crop((left, top, left + {width}, top + {height}))",
        ]
    array = f"np.asarray(image).reshape({height}, {width}, {given.channels})"
    return "\n".join(["def read(path):", *lines, f"    return {array}", ""])


def _resize(interpolation: str, size: str) -> str:
    """Build the call of Pillow that resizes as `data.transforms.crops.resize` does.

    Pillow's box filter counts whole pixels, where "area" counts their parts.
    """
    kernel = f"Image.Resampling.{_KERNELS[interpolation]}"
    if interpolation == "bilinear":  # the four nearest pixels, also where it shrinks
        return f"image.transform({size}, Image.Transform.EXTENT, (0, 0, *image.size), {kernel})"
    if interpolation == "area":
        kernel = f"{kernel} if min({size}) < min(image.size) else Image.Resampling.BILINEAR"
    return f"image.resize({size}, {kernel})"
