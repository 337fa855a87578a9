"""Extraction as it runs: in several processes at once, killed in the middle, over long tracks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.features.extract import FeatureConfig, extract
from musictf.features.store import is_intact

LAYERS = [0, 1, 2]
EXCERPTS_PER_TRACK, BATCH_SIZE = 5, 4

EXTRACT = """
import sys, time
from pathlib import Path
from musictf.datasets.base import Track
from musictf.models.backbone import random_backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.features.extract import FeatureConfig, extract

folder, hang_after = Path(sys.argv[1]), int(sys.argv[2])
tracks = [Track(track_id=path.stem, audio=path) for path in sorted(folder.glob("*.wav"))]
backbone = random_backbone(ViT1DConfig(depth=2, embed_dim=16, num_heads=2))
passes = 0


def count(*_):
    global passes
    passes += 1
    time.sleep(0.1)
    if passes > hang_after:
        print("hangs", flush=True)
        time.sleep(600)


backbone.register_forward_hook(count)
print("ready", flush=True)
sys.stdin.readline()
extract(backbone, tracks, [0, 1, 2], FeatureConfig(batch_size=4))
print(passes)
"""

MEASURE = """
import json, sys
from pathlib import Path
from musictf.datasets.base import Track
from musictf.models.frame_controls import MelControl
from musictf.features.extract import FeatureConfig, extract


class Wide(MelControl):
    embed_dim = 512

    def frames(self, waveform):
        return super().frames(waveform).repeat(1, 1, 4)


def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


found = []
for path in map(Path, sys.argv[1:]):
    (features,) = extract(Wide(), [Track(track_id=path.stem, audio=path)], [0], FeatureConfig(precision="float32"))
    found.append({"peak": peak(), "size": features.sequence.nbytes})
print(json.dumps(found))
"""


@pytest.fixture
def tracks(wav):
    return [wav(f"t{k:02}", seconds=12.0, seed=k) for k in range(16)]


@pytest.fixture
def start(tmp_path, cache):
    """Starts an extraction of the tracks that waits for a line before it begins."""
    started = []

    def start(hang_after=1000, **environment):
        process = subprocess.Popen(
            [sys.executable, "-c", EXTRACT, str(tmp_path), str(hang_after)],
            env=os.environ | {"MUSICTF_CACHE": str(cache)} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def begin(*processes):
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()


def entries(cache):
    return {path.name: path.read_bytes() for path in cache.rglob("*.safetensors")}


@pytest.fixture
def straight(backbone, tracks, tmp_path):
    """The entries that one process writes in one go."""

    def straight():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MUSICTF_CACHE", str(tmp_path / "straight"))
            extract(backbone, tracks, LAYERS, FeatureConfig(batch_size=BATCH_SIZE))
        return entries(tmp_path / "straight")

    return straight


def test_an_extraction_that_was_killed_goes_on_where_it_was(backbone, tracks, start, straight, cache):
    process = start(hang_after=7)
    begin(process)
    assert process.stdout.readline() == "hangs\n"
    process.kill()
    process.wait()
    finished = {path: path.stat() for path in cache.rglob("*.safetensors")}
    left = {path: path.read_bytes() for path in cache.rglob("*.tmp")}
    assert len(finished) == 7 * BATCH_SIZE // EXCERPTS_PER_TRACK
    assert len(left) == 1  # the track it died on
    assert all(map(is_intact, finished))
    passes = []
    handle = backbone.register_forward_hook(lambda *_: passes.append(1))
    extract(backbone, tracks, LAYERS, FeatureConfig(batch_size=BATCH_SIZE))
    handle.remove()
    missing = len(tracks) - len(finished)
    assert len(passes) == -(-missing * EXCERPTS_PER_TRACK // BATCH_SIZE)
    for path, status in finished.items():
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == (status.st_mtime_ns, status.st_ino)
    assert {path: path.read_bytes() for path in cache.rglob("*.tmp")} == left
    assert entries(cache) == straight()


@pytest.mark.slow
def test_processes_at_once_share_the_work_and_do_not_get_in_their_way(tracks, start, straight, cache):
    """Two ranks, and another process that goes through the tracks in step with the first."""
    processes = [start(WORLD_SIZE="2", RANK=rank) for rank in "010"]
    begin(*processes)
    passes = [int(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    alone = len(tracks) * EXCERPTS_PER_TRACK // BATCH_SIZE
    assert passes[0] + passes[1] < 1.7 * alone
    assert entries(cache) == straight()
    assert list(cache.rglob("*.tmp")) == []


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_length_of_a_track(tmp_path, cache):
    block = 0.1 * np.random.default_rng(0).normal(size=60 * 16000)
    paths = []
    for minutes in (2, 20):
        paths.append(tmp_path / f"{minutes}.wav")
        with soundfile.SoundFile(paths[-1], "w", 16000, 1) as file:
            for _ in range(minutes):
                file.write(block)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, paths)],
        # Freed memory goes back at once, so that the peak is what is needed and not what malloc keeps.
        env=os.environ | {"MUSICTF_CACHE": str(cache), "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    short, long = json.loads(done.stdout)
    assert long["size"] > 70e6
    assert long["peak"] - short["peak"] < 0.2 * long["size"]
