"""Parser of a compiled program's text: instructions, shapes, bytes and matrix products."""

import math
import re
from typing import NamedTuple

BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "s4", "u4", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("f32", "s32", "u32"), 4),
    **dict.fromkeys(("f64", "s64", "u64", "c64"), 8),
}
ARRAY = re.compile(r"\b(pred|bf16|f8e\w+|[suf]\d+|c64)\[([\d,]*)\](?:\{([^}]*)\})?")
NO_COST = frozenset(
    [
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "opt-barrier",
        "partition-id",
    ]
)
"""Instructions that move nothing."""


class Instruction(NamedTuple):
    """Instruction of a computation: one line of the text.

    Attributes:
      shape: of the result, as written, layout included.
      operands: names of the arguments.
      rest: what follows them: attributes and metadata.
    """

    name: str
    opcode: str
    shape: str
    operands: list[str]
    rest: str

    def attribute(self, name: str) -> str:
        """Return the text after `name=`; empty if there is none."""
        found = re.search(rf"\b{name}=(\{{(?:[^{{}}]|\{{[^}}]*\}})*\}}|[^,\s]+)", self.rest)
        return found[1] if found else ""


class Program(NamedTuple):
    """Computations by name, each a dict of instructions; `entry` is the first to run."""

    computations: dict[str, dict[str, Instruction]]
    entry: str

    def loops(self) -> dict[str, int]:
        """Count how often the entry and each body of its `while` loops run, by computation."""
        times, pending = {self.entry: 1}, [self.entry]
        while pending:
            here = pending.pop()
            for i in self.computations[here].values():
                if i.opcode == "while" and (body := i.attribute("body").lstrip("%")):
                    times[body] = times[here] * self._turns(i)
                    pending.append(body)
        return times

    def _turns(self, loop: Instruction) -> int:
        """Count how often a loop's body runs; 1 where the program does not say."""
        if known := re.search(r'known_trip_count[^0-9]*"?n"?[^0-9]*(\d+)', loop.rest):
            return int(known[1])
        # jax counts from 0 in steps of 1 while the counter is below a number.
        condition = self.computations[loop.attribute("condition").lstrip("%")]
        called = (i.attribute("calls").lstrip("%") for i in condition.values())
        inner = [i for name in called if name for i in self.computations[name].values()]
        bounds = {
            int(i.operands[0])
            for i in [*condition.values(), *inner]
            if i.opcode == "constant" and re.match(r"[su]32\[\]", i.shape)
        }
        return bounds.pop() if len(bounds) == 1 else 1


def parse(text: str) -> Program:
    """Parse the instructions of a program in XLA's text form."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if line[:1].strip() and line.rstrip().endswith("{"):
            name = re.split(r"[ (]", line.removeprefix("ENTRY ").lstrip("%"), maxsplit=1)[0]
            entry = name if line.startswith("ENTRY ") else entry
            current = computations.setdefault(name, {})
        elif current is not None and (i := _instruction(line)):
            current[i.name] = i
    return Program(computations, entry)


def _instruction(line: str) -> Instruction | None:
    match = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)
    if not match:
        return None
    end = _closing(line, match.end()) if line[match.end()] == "(" else line.find(" ", match.end())
    call = re.match(r"\s*([\w\-]+)\(", line[end:])
    if not call:
        return None
    begin = end + call.end() - 1
    close = _closing(line, begin)
    inside = line[begin + 1 : close - 1]
    # Before optimisation names have no mark, and operands no shapes.
    operands = re.findall(r"%([\w.\-]+)" if "%" in inside else r"([\w.\-]+)", inside)
    return Instruction(match[1], call[1], line[match.end() : end], operands, line[close:])


def _closing(line: str, begin: int) -> int:
    """Find the index after the parenthesis that closes the one at `begin`."""
    depth = 0
    for i in range(begin, len(line)):
        depth += (line[i] == "(") - (line[i] == ")")
        if not depth:
            return i + 1
    return len(line)


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """Parse the type and dimensions of each array of a shape."""
    return [
        (kind, tuple(int(n) for n in sizes.split(",") if n))
        for kind, sizes, _ in ARRAY.findall(shape)
    ]


def num_bytes(shape: str, padded: bool = False) -> int:
    """Count the bytes of all arrays of a shape; padded: as its tiles lie in memory."""
    total = 0
    for kind, sizes, layout in ARRAY.findall(shape):
        dims = [int(n) for n in sizes.split(",") if n]
        tile = re.search(r"T\(([\d,]+)\)", layout)
        if padded and tile and dims:
            order = [int(n) for n in layout.split(":")[0].split(",")]
            dims = [dims[axis] for axis in order]  # minor first
            for i, size in enumerate(reversed([int(n) for n in tile[1].split(",")])):
                if i < len(dims):
                    dims[i] = -(-dims[i] // size) * size
        total += math.prod(dims) * BYTES.get(kind, 4)
    return total


def product_flops(program: Program, computation: str, i: Instruction) -> int:
    """Count the operations of a convolution or matrix product: two per multiply-add.

    The number is 0 for anything else. A fused computation counts what it holds.
    """
    body = program.computations[computation]
    if i.opcode == "custom-call":
        return _called_flops(i, body)
    if called := i.attribute("calls").lstrip("%"):
        inner = program.computations.get(called, {})
        return sum(product_flops(program, called, j) for j in inner.values())
    if i.opcode not in ("convolution", "dot"):
        return 0
    out = math.prod(arrays(i.shape)[0][1])
    if i.opcode == "dot":
        sizes = arrays(body[i.operands[0]].shape)[0][1]
        axes = re.findall(r"\d+", i.attribute("lhs_contracting_dims"))
        return 2 * out * math.prod(sizes[int(a)] for a in axes)
    kernel = arrays(body[i.operands[1]].shape)[0][1]
    labels = i.attribute("dim_labels").split("_")[1].split("->")[0]
    inputs = kernel[labels.index("i")]
    window = i.attribute("window")

    def field(name: str, fill: str, count: int) -> list[str]:
        found = re.search(rf"\b{name}=(\S+?)[}}\s]", window)
        return found[1].split("x") if found else [fill] * count

    sizes = field("size", "1", 0) if "size=" in window else []
    pads, dilated = field("pad", "0_0", len(sizes)), field("lhs_dilate", "1", len(sizes))
    for size, pad, step in zip(sizes, pads, dilated, strict=True):
        # XLA writes batch axes as windows that see one position: dilated, or padded all around.
        alone = int(step) > 1 or (int(size) > 1 and int(pad.split("_")[0]) == int(size) - 1)
        inputs *= 1 if alone else int(size)
    return 2 * out * inputs


def _called_flops(i: Instruction, body: dict[str, Instruction]) -> int:
    """Count the operations of a product or convolution that a GPU's library computes."""
    target = i.attribute("custom_call_target").strip('"')
    if not target.startswith(("__cublas", "__cudnn$conv")):
        return 0
    shapes = [arrays(body[name].shape)[0][1] for name in i.operands[:2]]
    result = arrays(i.shape)[0][1]
    if target.startswith("__cublas"):
        contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', i.rest)
        axes = re.findall(r"\d+", contracted[1]) if contracted else []
        return 2 * math.prod(result) * math.prod(shapes[0][int(a)] for a in axes)
    outputs, kernel = result, shapes[1]  # of the convolution; a gradient has them elsewhere
    if "BackwardInput" in target:
        outputs = shapes[0]
    elif "BackwardFilter" in target:
        outputs, kernel = shapes[1], result
    labels = i.attribute("dim_labels").split("_")[1].split("->")[0]
    return 2 * math.prod(outputs) * math.prod(kernel) // kernel[labels.index("o")]


def moved_bytes(program: Program, computation: str, i: Instruction) -> int:
    """Count the bytes that an instruction reads and writes, as tiles lie in memory.

    Of an array that is only sliced, the slice is read; of one that is updated in place, as a loop
    keeps the activations of its turns, the update is written.
    """
    reads: dict[str, int] = {}
    for position, name in enumerate(i.operands):
        if name in program.computations[computation]:
            reads[name] = max(reads.get(name, 0), _read(program, computation, i, position))
    return sum(reads.values()) + _written(program, computation, i)


def _read(program: Program, computation: str, i: Instruction, position: int) -> int:
    body = program.computations[computation]
    if position == 0 and i.opcode == "dynamic-slice":
        return num_bytes(i.shape, padded=True)
    if position == 0 and i.opcode == "dynamic-update-slice":
        return 0
    whole = num_bytes(body[i.operands[position]].shape, padded=True)
    called = i.attribute("calls").lstrip("%")
    for inside in program.computations.get(called, {}).values() if i.opcode == "fusion" else ():
        if inside.opcode == "parameter" and inside.operands == [str(position)]:
            return min(whole, _read_of(program, called, inside))
    return whole


def _read_of(program: Program, computation: str, source: Instruction) -> int:
    """Count the bytes of `source` that all its users in a fused computation read."""
    total = 0
    for user in program.computations[computation].values():
        for position, name in enumerate(user.operands):
            if name == source.name and user.opcode != "parameter":
                through = user.opcode in ("bitcast", "tuple")
                total += (
                    _read_of(program, computation, user)
                    if through
                    else _read(program, computation, user, position)
                )
    return total


def _written(program: Program, computation: str, i: Instruction) -> int:
    body = program.computations[computation]
    if i.opcode == "dynamic-update-slice":
        return num_bytes(body[i.operands[1]].shape, padded=True)
    if i.opcode == "fusion" and (called := i.attribute("calls").lstrip("%")):
        return _written(program, called, list(program.computations[called].values())[-1])
    if i.opcode == "tuple":
        return sum(_written(program, computation, body[name]) for name in i.operands)
    if i.opcode == "bitcast" and body[i.operands[0]].opcode == "dynamic-update-slice":
        return _written(program, computation, body[i.operands[0]])
    if i.opcode == "custom-call" and i.shape.startswith("("):  # the last is room for the library
        return num_bytes(i.shape[: i.shape.rindex(", ")], padded=True)
    return num_bytes(i.shape, padded=True)
