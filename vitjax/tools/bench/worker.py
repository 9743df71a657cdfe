"""Process of a contestant: it builds a step, then runs as many as each line asks for.

  python -P worker.py FILE FUNCTION JSON

FUNCTION of FILE takes the keywords of JSON and returns (run, about, memory): `run(n)` runs n steps
to their end and returns a number that must be finite; `about` is what is told of the contestant;
`memory()` returns the bytes "peak" and "used" of its device, or nothing where nobody counts them.
The file needs the standard library alone, so that a contestant may be of another environment.
"""

import importlib.util
import json
import os
import pathlib
import resource
import sys
import time
from typing import Any

SHORT = ("resource_exhausted", "out of memory", "not enough memory", "can't allocate memory")
"""What libraries say where memory is short."""


def load(file: str) -> Any:
    """Import a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(pathlib.Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_short(error: BaseException) -> bool:
    """Return whether an error says that memory is short."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in SHORT)


def of_process() -> dict[str, Any]:
    """Return the memory of this process, which on a CPU holds everything."""
    pages = pathlib.Path("/proc/self/statm")  # of Linux alone
    used = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"peak": max(peak, used), "used": used, "of": "the process"}


def main() -> None:
    """Answer a line when the first step is done, and one for each line that is read."""
    file, function, arguments = sys.argv[1:4]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # exporters and compilers print

    def answer(found: dict[str, Any]) -> None:
        print(json.dumps(found), file=answers, flush=True)

    try:
        begin = time.perf_counter()
        run, about, memory = getattr(load(file), function)(**json.loads(arguments))
        run(1)
        answer({**about, "first": time.perf_counter() - begin})
        for line in sys.stdin:
            begin = time.perf_counter()
            value = run(int(line))
            seconds = time.perf_counter() - begin
            answer({"seconds": seconds, "value": value, "memory": memory() or of_process()})
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        answer({"error": text, "kind": type(error).__name__, "short": is_short(error)})


if __name__ == "__main__":
    main()
