"""A file imports only from entries before its own in ORDER, and no imports are circular, not even inside functions."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A file may also import from its own folder. docs/design.md explains the entries.
ORDER = [
    *("utils", "config"),
    *("jojo.config_file", "jojo.stopping", "jojo.command", "jojo.metrics", "jojo.plotting", "jojo.facts"),
    *("jojo.schedule", "jojo.kernels", "jojo.networks", "jojo.machine", "jojo.optim"),
    *("jojo.averaging", "jojo.text", "jojo.checkpoints"),
    *("model", "data_loader", "generation"),
    *("hf", "engines", "recipes", "evaluation", "serving", "training"),
    "trainer",
    *("train", "gen", "serve", "prepare", "evaluate", "export", "upload_to_huggingface"),
    "tools",
]


def place(module: str) -> int:
    """The index of a module's entry in ORDER. Raises StopIteration if it has none."""
    return next(i for i, entry in enumerate(ORDER) if f"{module}.".startswith(f"{entry}."))


def imports_of(source: str, modules: set[str]) -> set[str]:
    """The project's modules that a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & modules


def upward(sources: dict[str, str]) -> list[str]:
    """The imports from later entries, then a circle of imports if there is one."""
    graph = {module: imports_of(source, set(sources)) for module, source in sources.items()}
    wrong = [f"{a} imports {b}" for a, used in graph.items() for b in sorted(used) if place(b) > place(a)]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        wrong.append(" imports ".join(error.args[1]))
    return wrong


def project() -> dict[str, str]:
    """The text of every module: the files in the root, and all files in the folders of ORDER."""
    folders = {entry.split(".")[0] for entry in ORDER}
    files = [*ROOT.glob("*.py"), *(file for folder in folders for file in (ROOT / folder).rglob("*.py"))]
    names = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files}
    return {name: file.read_text(encoding="utf-8") for file, name in names.items()}


def test_imports_point_down() -> None:
    assert upward(project()) == []


def test_an_import_that_points_up_is_found() -> None:
    sources = {"utils": "", "model": "def f():\n    from jojo.kernels import loss\n", "jojo.kernels.loss": ""}
    assert upward(sources) == []
    assert upward(sources | {"jojo.kernels.loss": "from model import GPT"})[0] == "jojo.kernels.loss imports model"
    inside = {"jojo.text.a": "from jojo.text import b", "jojo.text.b": "if TYPE_CHECKING:\n    import jojo.text.a"}
    assert "jojo.text.a" in upward(inside)[0]
