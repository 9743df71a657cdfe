"""Train a model: `python train.py --config=configs/digits.py --workdir=runs/digits`.

The same as `vitjax train`; the run itself, top to bottom, is `run` in vitjax/training.py.
"""

import sys

from vitjax.allocator import use_keeping_allocator
from vitjax.cli import main as cli


def main(arguments: list[str]) -> int:
    """Run `vitjax train` with these arguments, and return its exit code."""
    return cli(["train", *arguments])


if __name__ == "__main__":
    use_keeping_allocator()
    sys.exit(main(sys.argv[1:]))
