import json
import os
import struct
import subprocess
import sys

import pytest

from musictf.errors import InputError
from musictf.reporting.wandb_tracker import Tracker, resolve_mode
from musictf.run_folder import WandbConfig


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    """No key, no rank, and a home folder of its own."""
    for name in [name for name in os.environ if name.startswith("WANDB") or name in {"NETRC", "RANK", "LOCAL_RANK"}]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


def test_auto_is_offline_without_a_key_and_online_with_one(monkeypatch):
    assert resolve_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert resolve_mode("auto") == "online"


@pytest.mark.parametrize(("machine", "mode"), [("api.wandb.ai", "online"), ("github.com", "offline")])
def test_a_key_may_lie_in_netrc(tmp_path, machine, mode):
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text(f"machine {machine}\n  login user\n  password {'k' * 40}\n")
    netrc.chmod(0o600)
    assert resolve_mode("auto") == mode


def test_environment_decides_for_auto_only(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_mode("auto") == "disabled"
    assert resolve_mode("offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(InputError, match="sometimes"):
        resolve_mode("auto")


def test_online_without_a_key_is_refused_and_never_asks(tmp_path):
    with pytest.raises(InputError, match="WANDB_API_KEY"):
        Tracker.start("probe", tmp_path, {}, WandbConfig(mode="online"))


def test_disabled_does_nothing_and_does_not_import_wandb(tmp_path):
    code = (
        "import sys; from pathlib import Path; from musictf.reporting.wandb_tracker import Tracker, WandbConfig\n"
        "with Tracker.start('probe', Path('run'), {}, WandbConfig(mode='disabled')) as tracker:\n"
        "    tracker.log({'a': 1.0}, step=1); tracker.log_table('t', ['a'], [[1]])\n"
        "    tracker.use_backbone(Path('none'))\n"
        "assert 'wandb' not in sys.modules and 'torch' not in sys.modules and not Path('run').exists()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.getcwd()})


def test_only_the_first_rank_speaks(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with Tracker.start("probe", tmp_path / "run", {}, WandbConfig(mode="offline")) as tracker:
        tracker.log({"a": 1.0}, step=1)
    assert not (tmp_path / "run").exists()


SCRIPT = """
from pathlib import Path
from musictf.reporting.wandb_tracker import Tracker, WandbConfig
from matplotlib.figure import Figure
import os
Figure(figsize=(1, 1)).savefig("figure.png")
Path("b.safetensors").write_bytes(b"weights" * 1000)
with Tracker.start("probe", Path("run"), {"seed": 7}, WandbConfig(), name="named") as tracker:
    tracker.log({"train/loss": 2.5}, step=10)
    tracker.log_table("scores", ["task", "value"], [["beat", 0.7]])
    tracker.log_image("figure", Path("figure.png"))
    tracker.use_backbone(Path("b.safetensors"))
    tracker.log_backbone(Path("b.safetensors"), {"steps": 3})
    tracker.log({"train/loss": 1.5}, step=20)
tracker.finish(0)
assert "WANDB_DATA_DIR" not in os.environ
"""


@pytest.fixture(scope="module")
def offline_run(tmp_path_factory):
    """A run mirrored in a process of its own: its output, and the records wandb keeps for a later sync."""
    folder = tmp_path_factory.mktemp("tracking")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB") and name != "NETRC"}
    environment = kept | {"PYTHONPATH": os.getcwd(), "HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    return folder, done, _records(next((folder / "run" / "wandb").glob("offline-run-*/*.wandb")))


def _records(path):
    """Records of a ``.wandb`` file: a LevelDB log, blocks of 32 KiB of pieces (checksum 4, length 2, kind 1 byte)."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, pieces, records = path.read_bytes(), 7, b"", []
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        pieces += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in {1, 4}:  # the whole record, or its last piece
            records.append(Record.FromString(pieces))
            pieces = b""
    return records


def test_an_offline_run_is_silent_and_stays_in_its_folder(offline_run):
    folder, done, _ = offline_run
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {path.name for path in folder.iterdir()} <= {"home", "run", "figure.png", "b.safetensors"}
    assert not list(folder.glob("home/.local/**/*"))


def test_metrics_keep_their_names_and_steps_around_tables(offline_run):
    _, _, records = offline_run
    steps = {}
    for record in records:
        items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
        if items:
            steps.setdefault(record.history.step.num, {}).update(items)
    assert {step: json.loads(items["train/loss"]) for step, items in steps.items()} == {10: 2.5, 20: 1.5}
    assert {"scores", "figure"} <= set(steps[10])


def test_lineage_is_in_the_configuration_and_the_backbone_is_an_artifact(offline_run):
    _, _, records = offline_run
    config = {item.key: json.loads(item.value_json) for record in records for item in record.run.config.update}
    config |= {item.key: json.loads(item.value_json) for record in records for item in record.config.update}
    assert config["seed"] == 7
    assert config["input_backbone"]["artifact"] == config["output_backbone"]["artifact"]
    artifacts = [record.request.log_artifact.artifact for record in records if record.request.HasField("log_artifact")]
    artifacts += [record.artifact for record in records if record.HasField("artifact")]
    assert [artifact.type for artifact in artifacts if artifact.name == config["output_backbone"]["artifact"]] == [
        "backbone"
    ]
    (run,) = {(record.run.job_type, record.run.display_name) for record in records if record.HasField("run")}
    assert run == ("probe", "named")
