"""The wheel ships ``conf/`` and works where no checkout is."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_composes_and_runs_outside_the_checkout(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("musictf-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    shipped = {path.relative_to(site / "musictf" / "conf") for path in (site / "musictf" / "conf").rglob("*.yaml")}
    assert shipped == {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    modules = {path.relative_to(site) for path in (site / "musictf").rglob("*.py")}
    assert modules == {path.relative_to(ROOT) for path in (ROOT / "musictf").rglob("*.py")}
    suffixes = {".html", ".css", ".js"}  # of the page to listen to
    pages = {path.name for path in (site / "musictf" / "reporting").iterdir() if path.suffix in suffixes}
    assert pages == {path.name for path in (ROOT / "musictf" / "reporting").iterdir() if path.suffix in suffixes}
    assert len(pages) > 2
    code = (
        "import musictf, musictf.config as c; assert 'site' in musictf.__file__, musictf.__file__;"
        "print(c.compose('pretrain', ['experiment=demo']).model.preset)"
    )
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "vit1d_mini", done.stderr
