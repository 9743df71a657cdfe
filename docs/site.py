"""Pages of the documents' site that are made and not written: README, notebooks, reference.

mkdocs calls the functions `on_…` (mkdocs.yml, `hooks`). Links of all pages are those that work in
the repository; here they become those of the site.
"""

import base64
import html
import json
import pathlib
import posixpath
import re
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
}
EXECUTED = ROOT / "build" / "notebooks"
PACKAGES = {
    "models": ("Models", "One file a family; `create_model` and `list_models` are `vitjax`'s own."),
    "attention": ("The attention menu", "One file a paper: the function of arrays, then its "
                  "module."),
    "layers": ("Layers", "What is not attention."),
    "heads": ("Heads", "From maps to a prediction for each pixel."),
    "weights": ("Weights", "Published checkpoints to parameters and back."),
    "analysis": ("Analysis", "What a model looks at, has learnt, and costs; see "
                 "[What a model looks at](../analysis.md)."),
    "tasks": ("Tasks", "What is trained: loss, measures and pictures; `vitjax.task` is what they "
              "all are."),
    "data": ("Data", "From files to batches, on the host; see [Data](../data.md)."),
    "train": ("Configuration and training", "The fields of a run and the loop; see "
              "[Training](../training.md)."),
    "scaling": ("Scaling laws", "Forms, fits and intervals; see [Scaling](../scaling.md)."),
}  # fmt: skip
"""Folder of vitjax → title of its page of the reference, and a sentence."""
FIRST = {
    "tasks": ("vitjax.task",),
    "train": ("vitjax.train.defaults",),
    "weights": ("vitjax.runs",),
}
"""What stands before a folder's own modules."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    for source, page in ROOT_PAGES.items():
        _add(files, config, page, (ROOT / source).read_text())
    for source in sorted((ROOT / "notebooks").glob("*.py")):
        _add_notebook(files, config, source.stem)
    _add(files, config, "reference/index.md", _contents())
    for name in PACKAGES:
        _add(files, config, f"reference/{name}.md", _reference(name))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn the repository's links into the site's."""
    uri = page.file.src_uri
    if uri.startswith(("notebooks/", "reference/")):
        return markdown
    own = next((source for source, at in ROOT_PAGES.items() if at == uri), f"docs/{uri}")
    base = posixpath.dirname(own)

    def link(match: re.Match[str]) -> str:
        target, mark, place = match[2].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(base, target))
        if path.startswith("docs/"):
            there = path.removeprefix("docs/")
        elif path in ROOT_PAGES:
            there = ROOT_PAGES[path]
        elif re.fullmatch(r"notebooks/\w+\.(py|ipynb)", path):
            there = posixpath.splitext(path)[0] + ".md"
        elif (ROOT / path).exists():
            return f"{match[1]}({config['repo_url']}/blob/main/{path}{mark}{place})"
        else:
            return match[0]
        return f"{match[1]}({posixpath.relpath(there, posixpath.dirname(uri) or '.')}{mark}{place})"

    # Not those that code shows.
    parts = re.split(r"(```.*?```|`[^`\n]*`)", markdown, flags=re.DOTALL)
    return "".join(
        part if i % 2 else re.sub(r"(\])\(([^)\s]+)\)", link, part) for i, part in enumerate(parts)
    )


def _add(files: Any, config: Any, uri: str, content: str | bytes) -> None:
    files.append(File.generated(config, uri, content=content))


def _add_notebook(files: Any, config: Any, name: str) -> None:
    """Add an executed notebook: its cells, what they printed, and its pictures."""
    path = EXECUTED / f"{name}.ipynb"
    if not path.exists():
        raise PluginError(f"{path} is not there: `make notebooks` executes the notebooks.")
    lines: list[str] = []
    for i, cell in enumerate(json.loads(path.read_text())["cells"]):
        source = "".join(cell["source"])
        lines += [source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```", ""]
        printed = ""
        for j, output in enumerate(cell.get("outputs", ())):
            data = output.get("data", {})
            if output["output_type"] == "stream":
                printed += "".join(output["text"])
            elif "image/png" in data:
                picture = f"{name}-{i}-{j}.png"
                _add(files, config, f"notebooks/{picture}", base64.b64decode(data["image/png"]))
                lines += [f"![{_words(source)}]({picture})", ""]
            elif "text/html" in data:
                lines += ["".join(data["text/html"]), ""]
        if printed:
            lines += [f'<pre class="printed">{html.escape(_last_states(printed))}</pre>', ""]
    _add(files, config, f"notebooks/{name}.md", "\n".join(lines))


def _words(source: str) -> str:
    """Return words for a picture: its title in the code that draws it."""
    found = re.search(r'(?:title=|title\()f?"([^"{]*)', source)
    return found[1].strip(" :") if found else "The picture that the cell draws"


def _last_states(text: str) -> str:
    """Return what a terminal shows of a text: the last state of each line."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    return "\n".join(line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n"))


def _modules(package: str) -> list[str]:
    found = sorted((ROOT / "vitjax" / package).rglob("*.py"))
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in found]
    return [*FIRST.get(package, ()), *(n.removesuffix(".__init__") for n in names)]


def _reference(package: str) -> str:
    title, sentence = PACKAGES[package]
    names = dict.fromkeys(_modules(package))
    return "\n\n".join([f"# {title}", sentence, *(f"::: {name}" for name in names)])


def _contents() -> str:
    rows = "\n".join(
        f"| [{title}]({name}.md) | `vitjax.{name}` | {re.sub(r' *see .*', '', sentence)} |"
        for name, (title, sentence) in PACKAGES.items()
    )
    return (
        "# Reference\n\nWhat the docstrings say. Most programs need three functions: "
        "[create_model][vitjax.models.create_model], [list_models][vitjax.models.list_models] and "
        "[load_pretrained][vitjax.weights.load.load_pretrained].\n\n"
        f"| page | package | holds |\n|---|---|---|\n{rows}\n"
    )
