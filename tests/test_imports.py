"""Imports run one way, and nothing heavy is imported before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mtlkit

ROOT = Path(mtlkit.__file__).parent

# From the bottom up; a module imports from its own row and those below it.
LAYERS = [
    ["errors", "blob"],
    ["guarded"],
    ["registry", "source", "option", "writing"],
    ["part", "feature", "naming", "batching"],
    ["trunk", "label", "spec", "balancing"],
    ["encoder", "head", "sharing", "balancer", "loss", "metric", "data"],
    ["schema", "graph"],
    ["border", "grouping", "inputs", "making"],
    ["plan", "selecting"],
    ["freezing"],
    ["model"],
    ["blueprint"],
    ["build"],
    ["saving"],
    ["adapting"],
    ["train"],
    ["testing"],
    ["runfile", "show", "exporting"],
    ["bench", "prediction", "suggest", "hub"],
    ["cli"],
    ["__main__"],
]
PARTS = set(LAYERS[5])
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}


def imports() -> list[tuple[str, str]]:
    """(importer, imported) of all imports of mtlkit by mtlkit, by the module or package right below it."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        importer = path.relative_to(ROOT).with_suffix("").parts[0]
        if importer == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom) and node.module == "mtlkit":
                names = [f"mtlkit.{alias.name}" for alias in node.names]
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: a relative import"
            found += [(importer, name.split(".")[1]) for name in names if name.startswith("mtlkit.")]
    return found


# Imports inside functions or for type checkers that close a circle on purpose.
UPWARD = {
    ("model", "saving"),  # model.save() is the door to what loads models
    ("model", "hub"),  # and to what publishes them
    ("model", "adapting"),  # model.add_task() and its like, to what makes another model of it
    ("plan", "model"),  # what a plan is run on, for type checkers
    ("selecting", "model"),  # what parts are selected of, too
    ("freezing", "model"),
}


def test_every_module_has_its_layer() -> None:
    modules = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert modules - {"__init__", "__main__", "__pycache__"} <= set(HEIGHT)


def test_imports_run_one_way() -> None:
    wrong = {
        f"{importer} imports {imported}"
        for importer, imported in imports()
        if HEIGHT.get(imported, 0) > HEIGHT.get(importer, 0) and (importer, imported) not in UPWARD
    }
    assert not wrong


def test_parts_of_different_kinds_do_not_import_each_other() -> None:
    wrong = {pair for pair in imports() if set(pair) <= PARTS and pair[0] != pair[1]}
    assert not wrong


HEAVY = "huggingface_hub torch timm torchvision torchmetrics sklearn matplotlib pandas accelerate scipy"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import mtlkit", f"{HEAVY} pydantic yaml rich numpy"),
        ("import mtlkit; list(mtlkit.encoders), mtlkit.encoders.describe('timm').owner", HEAVY),
        ("import mtlkit; mtlkit.SpecError, mtlkit.registries", HEAVY),
        (
            "import mtlkit; mtlkit.build_model()",
            "huggingface_hub timm torchvision torchmetrics sklearn matplotlib pandas accelerate",
        ),
        (
            "import mtlkit; m = mtlkit.build_model(); m.save('m'); mtlkit.load('m')",
            "huggingface_hub timm torchvision torchmetrics sklearn matplotlib pandas accelerate",
        ),
        ("import mtlkit; mtlkit.Trainer", "timm torchvision sklearn matplotlib pandas"),
        (
            "import mtlkit; mtlkit.build_model().save('m'); mtlkit.Model.from_pretrained('m')",
            "huggingface_hub timm torchvision torchmetrics sklearn matplotlib pandas accelerate",
        ),
        ("import mtlkit; mtlkit.build_model().save_pretrained('m')", "timm torchvision sklearn matplotlib pandas"),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(code: str, absent: str, tmp_path: Path) -> None:
    check = f"import sys; print(*sorted(set({absent.split()!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
