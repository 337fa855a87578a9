"""``musictf inspect`` as a user types it: what it writes, how it goes on, how it ends on wrong input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from musictf.models.backbone import Backbone, random_backbone, save_backbone
from musictf.models.vit1d import ViT1DConfig

ROOT = Path(__file__).parents[1]
SMALL = ["dataset.num_tracks=20", "dataset.seconds=12", "wandb.mode=offline", "trainer.accelerator=cpu"]
QUICK = ["attention.draws=20", "similarity.draws=1", "seeds=[0]", "token_maps.tokens_a_track=40"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A backbone file of random weights, which nothing tells from a trained one."""
    folder = tmp_path_factory.mktemp("backbone")
    made = random_backbone(ViT1DConfig(depth=2, embed_dim=16, num_heads=2), seed=5)
    save_backbone(Backbone(made.encoder.config), folder / "other.safetensors")
    save_backbone(made, folder / "backbone.safetensors")
    return folder / "backbone.safetensors"


@pytest.fixture(scope="module")
def inspected(backbone):
    """A whole inspection by the command."""
    arguments = ["inspect", f"backbone={backbone}", *SMALL, *QUICK, "output_dir=run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "musictf", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=backbone.parent, env=environment, timeout=400)
    assert done.returncode == 0, done.stderr
    return backbone.parent / "run", done


@pytest.fixture
def quick(forked, tmp_path):
    def quick(*arguments, cwd=tmp_path):
        done = forked(arguments, cwd)
        done.wait()
        return done

    return quick


@pytest.mark.slow
def test_it_writes_tables_rows_pictures_and_a_page(inspected):
    folder, done = inspected
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    tasks = {row["task"] for row in rows}
    attention = {f"attention_{target}" for target in ("onset", "beat", "downbeat", "chord_change")}
    attention |= {"attention_downbeat_among_beats", "attention_change_among_beats"}
    assert tasks == attention | {
        "ssm_profile", "boundary", "position", "stimulus_onset", "stimulus_ssm", "token_map"
    }  # fmt: skip
    assert {row["backbone"]["kind"] for row in rows} == {
        "pretrained", "random", "silence", "noise", "classical", "mel", "mfcc", "chroma"
    }  # fmt: skip
    text = (folder / "inspection.md").read_text()
    assert text.strip() in done.stdout
    names = {path.suffix for path in (folder / "figures").iterdir()}
    assert names == {".png", ".svg"}
    (page,) = (folder / "listen").glob("*.html")
    assert str(page.relative_to(folder.parent)) in done.stdout
    assert json.loads((folder / "status.json").read_text())["status"] == "finished"
    assert list((folder / "wandb").glob("offline-run-*"))


@pytest.mark.slow
def test_the_report_reads_its_rows(inspected, quick):
    folder, _ = inspected
    done = quick("report", str(folder), "--output", "report.md", cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    text = (folder.parent / "report.md").read_text()
    for heading in ("attention_onset", "ssm_profile", "boundary"):
        assert f"## {heading} on synthetic" in text
    assert "flux" in text


@pytest.mark.slow
def test_a_finished_inspection_is_left_alone(inspected, quick):
    folder, _ = inspected
    before = (folder / "results.jsonl").read_bytes()
    backbone = folder.parent / "backbone.safetensors"
    done = quick("inspect", f"backbone={backbone}", *SMALL, *QUICK, "output_dir=run", cwd=folder.parent)
    assert done.returncode == 0
    assert "finished already" in done.stdout
    assert (folder / "results.jsonl").read_bytes() == before
    done = quick("inspect", f"backbone={folder.parent / 'other.safetensors'}", *SMALL, *QUICK, "output_dir=run",
                 cwd=folder.parent)  # fmt: skip
    assert done.returncode == 2
    assert "other values of backbone" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "inspect needs backbone=..."),
        (["backbone=/no/such/file"], "does not exist"),
        (["backbone=mel"], "neither layers nor attention"),
        (["backbone=random", "parts=[attentoin]"], "attentoin unknown"),
        (["backbone=random", "controls=[shuffle]"], "shuffle unknown"),
        (["backbone=random", "attention.targets=[onsets]"], "attention.targets"),
        (["backbone=random", "attention.draws=5"], "attention.draws=5"),
        (["backbone=random", "similarity.bin_second=1"], "did you mean 'similarity.bin_seconds'?"),
        (["backbone=random", "listen=-1"], "listen=-1"),
        (["backbone=random", "estimates=[nowhere]"], "nowhere is not the folder of a probe run"),
        (["backbone=random", "task=chord"], "unknown key 'task'"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(arguments, said, quick, tmp_path):
    done = quick("inspect", *arguments, *SMALL)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir()), "something was started"
