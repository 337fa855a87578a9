"""The notebooks use the public API only, run from top to bottom on tiny sizes, and are committed without outputs."""

import ast
import json
import re
import shlex
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import musictf
from musictf.config import compose
from musictf.models.backbone import Backbone, save_backbone
from musictf.models.vit1d import ViT1DConfig

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def sources(path, kind):
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@by_name
def test_notebook_is_committed_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


@by_name
def test_text_tells_no_number_that_a_run_would_change(path):
    assert not re.findall(r"(?<!\w)[-+]?\d*\.\d{2,}", "\n".join(sources(path, "markdown")))


@by_name
def test_cells_are_short_and_use_public_names_only(path):
    cells = sources(path, "code")
    assert len(cells) <= 12
    assert all(sum(bool(line.strip()) for line in cell.splitlines()) <= 20 for cell in cells)
    tree = [node for cell in cells for node in ast.walk(ast.parse(cell))]
    names = [node.attr for node in tree if isinstance(node, ast.Attribute)]
    names += [alias.name for node in tree if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert not [name for name in names if name.startswith("_")]


@by_name
def test_cells_use_the_names_of_the_package_itself_and_no_module_below_it(path):
    tree = [node for cell in sources(path, "code") for node in ast.walk(ast.parse(cell))]
    modules = [alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in tree if isinstance(node, ast.ImportFrom)]
    assert "musictf" in modules
    assert not [module for module in modules if module.startswith("musictf.")]
    attributes = [node for node in tree if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    names = {node.attr for node in attributes if node.value.id == "musictf"}
    names |= {
        alias.name
        for node in tree
        if isinstance(node, ast.ImportFrom) and node.module == "musictf"
        for alias in node.names
    }
    assert names <= set(musictf.__all__)


@by_name
def test_commands_in_the_text_can_be_typed(path):
    lines = [line for text in sources(path, "markdown") for line in text.splitlines() if line.startswith("musictf ")]
    assert lines or path.stem == "01_quickstart"
    for line in lines:
        _, verb, *arguments = shlex.split(line)
        compose(verb, arguments)


def run(path, monkeypatch, tmp_path, prefix, **sizes):
    """Run a notebook; returns the Markdown of its outputs as one text, and the number of its pictures."""
    for name, value in sizes.items():
        monkeypatch.setenv(f"{prefix}_{name}", str(value))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    displays = [output.data for output in outputs if "data" in output]
    messages = [output.text for output in outputs if output.get("name") == "stderr"]
    # tqdm warns where widgets are not installed.
    assert not [text for text in messages if "Warning" in text and "IProgress not found" not in text]
    return "\n".join(data.get("text/markdown", "") for data in displays), sum("image/png" in data for data in displays)


def notebook(stem):
    return next(path for path in NOTEBOOKS if path.stem == stem)


slow = pytest.mark.slow
kernel = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::RuntimeWarning"
)  # Jupyter's own


@slow
@kernel
def test_quickstart_runs(tmp_path, monkeypatch):
    sizes = {"STEPS": 3, "TRACKS": 20, "SECONDS": 12, "RUNS": tmp_path}
    text, pictures = run(notebook("01_quickstart"), monkeypatch, tmp_path, "QUICKSTART", **sizes)
    assert (tmp_path / "chord" / "results.jsonl").is_file()
    assert all(f"| {system} |" in text for system in ("pretrained vit1d_mini", "random vit1d_mini", "majority"))
    assert pictures == 3


@slow
@kernel
def test_attention_onsets_runs_without_a_backbone_and_says_so(tmp_path, monkeypatch):
    sizes = {"TRACKS": 20, "SECONDS": 20, "DRAWS": 20, "STEPS": 3, "BACKBONE": tmp_path / "none", "RUNS": tmp_path}
    text, pictures = run(notebook("02_attention_onsets"), monkeypatch, tmp_path, "INSPECT", **sizes)
    assert "**pretrained here for 3 steps**" in text
    assert "hardly more than random weights and shows the method" in text
    assert "**pretrained weights, 3 steps**, 3 test tracks" in text
    assert all(f"| {target} | *flux* |" in text for target in ("onset", "beat"))
    assert pictures == 5


@slow
@kernel
def test_self_similarity_runs_with_a_backbone(tmp_path, monkeypatch):
    file = tmp_path / "backbone.safetensors"
    save_backbone(Backbone(ViT1DConfig(depth=2, embed_dim=16, num_heads=2)), file)
    sizes = {"TRACKS": 20, "SECONDS": 20, "BACKBONE": tmp_path, "RUNS": tmp_path}
    text, pictures = run(notebook("03_self_similarity"), monkeypatch, tmp_path, "INSPECT", **sizes)
    assert "random weights and shows" not in text
    assert "**pretrained weights**, 3 test tracks" in text
    assert text.count("| chroma |") == 1
    assert pictures == 4
