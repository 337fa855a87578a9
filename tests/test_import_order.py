"""The house rules that a reader relies on: arrows point down, and each module is named for its subject."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import musictf

PACKAGE = Path(musictf.__file__).parent
LEVELS = [
    {"errors"},
    {"annotations", "files", "distributed"},
    {"run_folder"},
    {"results"},
    {"audio", "objectives", "tasks"},
    {"models", "datasets"},
    {"corpora", "packing", "synthesis"},
    {"features"},
    {"pretraining", "probing"},
    {"evaluation"},
    {"inspection", "reporting"},
    {"config"},
    {"sweep"},
    {"commands"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# the package itself only hands on the names of its public surface; __main__ only calls the command line
ENTRANCES = {"__init__": {"commands", "errors", "models", "reporting"}, "__main__": {"cli"}}
BORDER = {"config.py", "sweep.py"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in MODULES]


def imports(source):
    """Dotted names that a source imports, wherever it does: in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module
            if node.module == "musictf":
                yield from (f"musictf.{alias.name}" for alias in node.names)


def room(path):
    """First-level package or module that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def upward_imports(here, source):
    """Rooms that a source in room ``here`` must not import."""
    rooms = {name.split(".")[1] for name in imports(source) if name.startswith("musictf.")} - {here, "__version__"}
    if here in ENTRANCES:
        return rooms - ENTRANCES[here]
    return {other for other in rooms if LEVEL.get(other, len(LEVELS)) >= LEVEL[here]}


def test_every_module_has_a_level():
    assert {room(path) for path in MODULES} - ENTRANCES.keys() <= LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_imports_point_down(path):
    assert not upward_imports(room(path), path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("here", "source", "upward"),
    [
        ("models", "from musictf.audio.io import read_excerpt", set()),
        ("models", "import musictf.datasets.base", {"datasets"}),
        ("tasks", "def f():\n    from musictf import cli", {"cli"}),
        ("probing", "if TYPE_CHECKING:\n    from musictf.pretraining.pretrain_run import pretrain", {"pretraining"}),
        (
            "evaluation",
            "from musictf.probing.heads import Head\nfrom musictf.evaluation.study import Study",
            set(),
        ),
        ("config", "from musictf.unknown_room import thing", {"unknown_room"}),
        ("sweep", "from musictf.commands.probe import probe", {"commands"}),
        ("commands", "from musictf.sweep import sweep\nimport musictf.cli", {"cli"}),
        ("__init__", "from musictf.audio import io", {"audio"}),
    ],
)
def test_an_arrow_upward_is_seen_wherever_it_hides(here, source, upward):
    assert upward_imports(here, source) == upward


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_lightning_goes_by_one_name(path):
    # lightning.pytorch and pytorch_lightning are two trees of classes: callbacks of one are strangers to the other
    assert "pytorch_lightning" not in {name.split(".")[0] for name in imports(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_only_the_border_knows_hydra(path):
    if path.relative_to(PACKAGE).as_posix() not in BORDER:
        packages = {name.split(".")[0] for name in imports(path.read_text(encoding="utf-8"))}
        assert not {"hydra", "omegaconf"} & packages


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_modules_are_named_for_their_subject_and_fit_in_one_sitting(path):
    assert not {"utils", "helpers", "misc", "common"} & {part.removesuffix(".py") for part in path.parts[-3:]}
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
