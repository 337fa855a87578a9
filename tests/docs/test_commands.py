"""Every command and every piece of Python in README and documentation runs as pasted, with sizes made small."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import warnings

import doc_pages as docs
import matplotlib.pyplot as plt
import pytest
import soundfile

import musictf
from musictf.config import compose
from musictf.synthesis.synthetic import Synthetic

PAGES = docs.pages()
README = docs.ROOT / "README.md"
TARGETS = re.findall(r"^([a-z]+):", (docs.ROOT / "Makefile").read_text(), re.MULTILINE)

NO_SERVICE = {"wandb.mode": "disabled", "trainer.accelerator": "cpu"}
FEW_SONGS = {"dataset.num_tracks": "20", "dataset.seconds": "12"}  # of dataset=synthetic
SMALL_MODEL = {"model.embed_dim": "16", "model.num_heads": "2"}  # four layers, as pages name layer 4
FEW_PROBES = {"seeds": "[0]", "probe.steps": "20", "probe.valid_every": "10", "probe.learning_rates": "[1e-2]"}
SHORT = {
    "pretrain": {"max_steps": "2", "batch_size": "4", "valid_every": "2", "num_workers": "0", "checkpoint.every": "2"}
    | SMALL_MODEL
    | NO_SERVICE,
    "probe": FEW_PROBES | {"baselines": "[random,majority]"} | SMALL_MODEL | NO_SERVICE,
    "inspect": {"attention.draws": "20", "similarity.draws": "2", "seeds": "[0]", "controls": "[random]"}
    | {"parts": "[attention,similarity]"}  # tests/test_inspect.py has all of them
    | SMALL_MODEL
    | NO_SERVICE,
}
DEMO = ["pretrain_tracks=20", "num_tracks=20", "seconds=10", "max_steps=2", "batch_size=4", "tasks=[chord,beat]"]
# The demo has no keys for these: it runs beside a configuration of its own.
DEMO_CONF = {
    "probe": "probe: {steps: 20, valid_every: 10, learning_rates: [1e-2]}\nbaselines: [random, majority]\n",
    "inspect": "attention: {draws: 20}\nsimilarity: {draws: 2}\ncontrols: [random]\nparts: [attention]\n",
    "model/vit1d_mini": "embed_dim: 16\nnum_heads: 2\n",
}
# Functions of the API that take the keys of a verb.
VERBS = ("pretrain", "probe", "inspect")


def shortened(arguments):
    """Arguments of a command with small sizes appended, which win; lists that a sweep or a page varies stay."""
    verb, *given = arguments
    if verb not in SHORT or "--help" in given:
        return arguments
    keys = {argument.partition("=")[0] for argument in given}
    small = dict(SHORT[verb])
    if not keys & {"dataset", "like"}:
        small |= FEW_SONGS
    if "-m" in given or verb != "pretrain":
        small = {key: value for key, value in small.items() if key not in keys}
    return [*arguments, *(f"{key}={value}" for key, value in small.items())]


class Workspace:
    """A folder in which pages are followed, with the music and corpora that they speak of."""

    def __init__(self, folder, forked):
        self.folder, self.home, self.forked, self.done = folder, folder / "home", forked, {}
        songs = Synthetic(num_tracks=20, seconds=12)
        songs.all_tracks()
        for name in (self.home / "music", folder / "corpora" / "audio"):
            shutil.copytree(songs.folder / "audio", name)
        for name in ("mine", "a"):
            corpus = shutil.copytree(songs.folder, folder / "corpora" / name)
            lines = map(json.loads, (songs.folder / "manifest.jsonl").read_text().splitlines())
            named = [
                line | {"track_id": f"{name}{k}", "genre": f"genre {k % 2}", "group": f"{line['split']} {k % 4}"}
                for k, line in enumerate(lines)
            ]
            (corpus / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in named))
        for path in (folder / "corpora" / "a" / "audio").iterdir():  # backwards, it is another recording
            waveform, rate = soundfile.read(path, dtype="int16")
            soundfile.write(path, waveform[::-1], rate, subtype="PCM_16")

    def run(self, line):
        """Run a line once, however many pages have it."""
        words = tuple(docs.words(line, self.home))
        if words not in self.done:
            self.done[words] = self.outcome(list(words))
        assert self.done[words] is None, f"{line}\n{self.done[words]}"

    def outcome(self, words):
        """What is wrong with a command: its output, or None."""
        if words[:2] == ["make", "demo"]:
            return self.demo()
        arguments = docs.musictf_arguments(words)
        if arguments is None:
            return None if words[0] in docs.FOREIGN or set(words[1:]) <= set(TARGETS) else f"unknown: {words}"
        done = self.forked(shortened(arguments), cwd=self.folder, env={"HOME": str(self.home)})
        return None if done.wait(200) == 0 else f"status {done.returncode}\n{done.stdout}\n{done.stderr}"

    def demo(self):
        copy = self.folder / "package"
        for part in ("musictf", "conf"):
            shutil.copytree(docs.ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        for name, values in DEMO_CONF.items():
            path = copy / "conf" / f"{name}.yaml"
            text = path.read_text()
            if name.startswith("model"):
                text = re.sub("(embed_dim|num_heads): .*\n", "", text)
            path.write_text(text + values)
        command = [sys.executable, "-m", "musictf", "demo", *DEMO, "wandb.mode=disabled"]
        environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=400)
        return None if done.returncode == 0 else f"{done.stdout}\n{done.stderr}"

    def compose(self, line):
        """A command that cannot run here names keys and values that exist."""
        if line.startswith("#"):  # a shebang
            return
        words = docs.words(line, self.home)
        arguments = docs.musictf_arguments(words)
        if arguments is None:
            assert words[0] in docs.FOREIGN, line
        elif arguments[0] == "data":
            done = self.forked(arguments, cwd=self.folder, env={"HOME": str(self.home)})
            done.wait(100)
            assert "is not a folder" in done.stderr or "needs dataset.root" in done.stderr, f"{line}\n{done.stderr}"
        else:
            given = [argument.replace("=~/", f"={self.home}/") for argument in arguments[1:] if argument != "-m"]
            # Of a sweep its first job.
            firsts = [re.sub(r"^([^=]+=(?:\[[^]]*\]|[^,\[]*)),.*$", r"\1", argument) for argument in given]
            compose(arguments[0], [argument for argument in firsts if not argument.startswith("hydra")])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, forked):
    return Workspace(tmp_path_factory.mktemp("pages"), forked)


def run_shell(page, workspace):
    for block in docs.blocks(page):
        if block.language == "bash" and block.mark != docs.NOT_RUN:
            for line in block.lines:
                (workspace.run if block.mark == docs.RUN else workspace.compose)(line)


def with_small_sizes(function, verb):
    """A function of the API, with small sizes in place of those that a page gives."""

    @functools.wraps(function)
    def call(*overrides, **keys):
        small = SHORT[verb] | (
            {} if "dataset" in keys or any(o.startswith("dataset=") for o in overrides) else FEW_SONGS
        )
        if verb != "pretrain":
            small = {key: value for key, value in small.items() if key not in keys}
        kept = {key: value for key, value in keys.items() if key not in small}
        return function(*overrides, *(f"{key}={value}" for key, value in small.items()), **kept)

    return call


def run_python(page, workspace, monkeypatch):
    """The Python of a page, one block after another in one namespace."""
    monkeypatch.chdir(workspace.folder)
    for verb in VERBS:
        if hasattr(musictf, verb):
            monkeypatch.setattr(musictf, verb, with_small_sizes(getattr(musictf, verb), verb))
    names = {"__name__": page.stem}
    for block in docs.blocks(page):
        if block.language == "python":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(block.text, str(page), "exec"), names)
    plt.close("all")
    return names


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_run_as_pasted(page, workspace):
    run_shell(README, workspace)  # the other pages use what it makes
    run_shell(page, workspace)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(b.language == "python" for b in docs.blocks(p))], ids=lambda page: page.stem
)
def test_python_of_a_page_runs_as_pasted(page, workspace, monkeypatch):
    run_shell(README, workspace)
    run_python(page, workspace, monkeypatch)


def test_the_task_and_the_corpus_of_the_page_on_extending_do_what_it_says(tmp_path):
    names = {"__name__": "extending"}
    for block in docs.blocks(docs.ROOT / "docs" / "extending.md"):
        if block.language == "python":
            exec(block.text, names)
    task = names["ModeTask"]()
    assert task.score(["C major", "A minor"], ["major", "major"]).corpus == {"accuracy": 0.5}
    assert task.majority_estimate(["C major", "A minor", "D minor"], 10.0) == "minor"
    (tmp_path / "beats").mkdir()
    (tmp_path / "beats" / "slow.beats").write_text("0.5\t1\n1.0\t2\n")
    (track,) = names["Clicks"](root=str(tmp_path)).all_tracks()
    assert track.annotation("beats").times.tolist() == [0.5, 1.0]
    assert track.audio == tmp_path / "audio" / "slow.wav"
