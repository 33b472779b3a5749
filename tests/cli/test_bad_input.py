"""Wrong calls leave one line and nothing else; failures and interruptions leave what was done and how to go on."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from vaelid.errors import Interrupted
from vaelid.runs import Run


def grey(path, level=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, level, np.uint8)).save(path)


def spoiled(folder, name, spoil, run):
    """A copy of a run, spoiled."""
    shutil.copytree(run, folder / name)
    spoil(folder / name)


@pytest.fixture(scope="module")
def bad(tmp_path_factory, digits_run, table_run):
    """A folder of inputs that are wrong in all the ways of `CASES`."""
    folder = tmp_path_factory.mktemp("bad")
    rng = np.random.default_rng(0)
    real = rng.normal(size=(20, 4)).astype(np.float32)
    counts = rng.poisson(3, size=(20, 4))
    (folder / "empty.csv").touch()
    (folder / "header.csv").write_text("a,b\n")
    (folder / "ragged.csv").write_text("a,b\n1,2\n3,4\n5\n6,7\n8,9,10\n")
    (folder / "text.csv").write_text("a,b\n1,2\n3,oops\n5,6\n")
    (folder / "gaps.csv").write_text("a,b\n1,2\n3,\n5,6\n,8\n")
    (folder / "twice.csv").write_text("a,a\n1,2\n3,4\n5,6\n")
    (folder / "good.csv").write_text("a,b\n" + "\n".join(f"{x:.3f},{y:.3f}" for x, y in real[:, :2].tolist()))
    (folder / "data.txt").write_text("1 2\n")
    nan, infinite = real.copy(), real.copy()
    nan[3, 1], nan[7, 2], infinite[5, 0] = np.nan, np.nan, np.inf
    arrays = {
        "nan": nan,
        "infinite": infinite,
        "real": real,
        "negative": np.where(np.arange(80).reshape(20, 4) == 9, -1, counts),
        "counts": counts,
        "classes": rng.integers(0, 3, (20, 4)),
        "one": real[:1],
        "two": real[:2],
        "flat": real[:, 0],
        "none": real[:0],
        "text": np.array([["1", "2"], ["3", "x"]]),
        "wide": rng.normal(size=(20, 5)),
        "bright": rng.integers(0, 99, (20, 1, 8, 8)).astype(np.uint8),
        "huge": real.astype(np.float64) * 1e60,
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    np.save(folder / "objects.npy", np.array([{}], object))
    np.savez(folder / "three.npz", first=real, second=real, third=real)
    np.savez(folder / "ragged.npz", x=real, y=np.arange(3))
    whole = (folder / "three.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.npy").write_bytes((folder / "real.npy").read_bytes()[:150])
    (folder / "noise.npy").write_bytes(b"not an array at all")
    pyarrow.parquet.write_table(pyarrow.table({"a": [1.0, 2.0], "b": [3.0, 4.0]}), folder / "whole.parquet")
    (folder / "cut.parquet").write_bytes((folder / "whole.parquet").read_bytes()[:-9])
    (folder / "noise.zip").write_bytes(b"PK but not a zip")
    with zipfile.ZipFile(folder / "texts.zip", "w") as archive:
        archive.writestr("readme.txt", "no images")
    (folder / "no images").mkdir()
    (folder / "no images" / "notes.txt").write_text("nothing here")
    for name in ("broken", "sizes"):
        for index in range(4):
            grey(folder / name / f"{index}.png", 50 * index)
    (folder / "broken" / "2.png").write_bytes((folder / "broken" / "1.png").read_bytes()[:40])
    grey(folder / "sizes" / "3.png", 9, (9, 8))
    (folder / "bad.toml").write_text("[training]\nepochs = = 3\n")
    (folder / "unknown.toml").write_text("[training]\nepoch = 3\n")
    (folder / "file").write_text("a file, not a folder")
    for name in ("config.toml", "split.npz", "events.jsonl", "model.safetensors"):
        spoiled(folder, f"without {name}", lambda run, name=name: (run / name).unlink(), digits_run)
    for name in ("split.npz", "model.safetensors"):
        spoiled(folder, f"cut {name}", lambda run, name=name: (run / name).write_bytes(b"half"), digits_run)
    spoiled(folder, "cut config.toml", lambda run: (run / "config.toml").write_text("format = "), digits_run)
    spoiled(folder, "no checkpoint", lambda run: shutil.rmtree(run / "checkpoints"), digits_run)
    spoiled(folder, "later format", lambda run: edit(run / "config.toml", "format = 1", "format = 9"), digits_run)
    (folder / "digits").symlink_to(digits_run)
    (folder / "table").symlink_to(table_run[0])
    return folder


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# What is typed ({} is the folder of `bad`), and what the one line must say: what was given, what to do.
CASES = {
    # the call
    "no such command": ("trian digits", "'trian'", "Did you mean 'train'?"),
    "no command at all like it": ("zzz", "'zzz'", "Known: compare, distances, encode"),
    "option before the command": ("--quiet train digits", "--quiet", "train digits --quiet"),
    "unknown option": ("train digits --laten 3", "--laten", "Did you mean --latent?"),
    "unknown option of sample": ("sample {}/digits --sed 3", "--sed", "Did you mean --seed?"),
    "unknown option like nothing": ("train digits --zzz", "--zzz", "train --help"),
    "a setting as an option": ("train digits --batch-size 3", "--batch-size", "--set training.batch_size=VALUE"),
    "no value": ("train digits --epochs", "--epochs", "argument"),
    "not a number": ("train digits --epochs many", "'many'", "whole number"),
    "too many arguments": ("train digits more", "more", "--help"),
    "no DATA": ("train", "DATA", "vaelid train digits"),
    "no RUN": ("evaluate", "RUN", "--help"),
    "no DATA to encode": ("encode {}/digits", "DATA", "--help"),
    "RUN and DATA exchanged": ("encode digits {}/digits", "digits is no run folder", "RUN first, then DATA"),
    "no epochs": ("train digits --epochs 0", "--epochs is 0", "at least 1"),
    "no latents": ("train digits --latent 0", "--latent is 0", "at least 1"),
    "negative latents": ("train digits --latent -2", "--latent is -2", "at least 1"),
    "no samples": ("evaluate {}/digits --samples 0", "--samples is 0", "at least 1"),
    "no rows": ("evaluate {}/digits --rows 0", "--rows is 0", "at least 1"),
    "no rows to bracket": ("evidence {}/digits --rows 0", "--rows is 0", "at least 1"),
    "a negative tolerance": ("evidence {}/digits --tolerance -1", "--tolerance is -1", "at least 0"),
    "a tolerance that is none": ("evidence {}/digits --tolerance nan", "--tolerance is nan", "at least 0"),
    "no such time": ("evidence {}/digits --budget 5x", "'5x'", "such as 90s, 10m or 1h"),
    "a time without a unit": ("evidence {}/digits --budget 10", "'10'", "such as 90s, 10m or 1h"),
    "no time": ("evidence {}/digits --budget 0s", "'0s'", "such as 90s, 10m or 1h"),
    "no RUN to bracket": ("evidence", "RUN", "--help"),
    "no such RUN to bracket": ("evidence nothing", "no run folder nothing", "vaelid train digits"),
    "RUN and DATA of a bracket exchanged": ("evidence digits {}/digits", "digits is no run folder", "RUN first"),
    "simulated rows of DATA": ("evidence {}/digits digits --simulated", "--simulated and DATA", "one of the two"),
    "none to sample": ("sample {}/digits -n 0", "-n is 0", "at least 1"),
    "resume and seed": ("train --resume {}/digits --seed 0", "--seed", "only --epochs or --device"),
    "resume and DATA": ("train digits --resume {}/digits", "DATA", "only --epochs or --device"),
    "resume and dry run": ("train --resume {}/digits --dry-run", "--dry-run", "only --epochs or --device"),
    "resume of nothing": ("train --resume nothing", "no run folder nothing", "vaelid train digits"),
    "resume of what is done": ("train --resume {}/digits", "digits is finished", "--epochs"),
    "resume with fewer epochs": ("train --resume {}/digits --epochs 1", "--epochs 1", "or more"),
    # settings
    "unknown key": ("train digits --set training.epoch=3", "'training.epoch'", "Did you mean 'training.epochs'?"),
    "no key": ("train digits --set epochs", "--set epochs", "KEY=VALUE"),
    "wrong type": ("train digits --set training.epochs=many", "training.epochs = 'many'", "integer"),
    "wrong size": ("train digits --set training.batch_size=0", "training.batch_size = 0", "greater than or equal to 1"),
    "wrong word": ("train digits --set model.network=rnn", "model.network = 'rnn'", "or 'conv'"),
    "a warm-up too long": ("train digits --epochs 2 --set objective.warmup_steps=99", "warm-up of 99", "more epochs"),
    "settings that exclude each other": (
        "train digits --set objective.name=iwae --set objective.beta=2", "beta", "use elbo",
    ),
    "no settings file": ("train digits --config {}/no.toml", "no.toml", "TOML"),
    "settings that are no TOML": ("train digits --config {}/bad.toml", "line 2", "TOML"),
    "settings with an unknown key": ("train digits --config {}/unknown.toml", "epoch", "Did you mean 'training.epochs"),
    "unknown likelihood": ("train digits --likelihood gausian", "'gausian'", "Did you mean 'gaussian'?"),
    "no such device": ("train digits --device gpu", "--device gpu", "cpu, cuda"),
    # files
    "unknown name": ("train digit", "'digit'", "Did you mean 'digits'?"),
    "no such file": ("train {}/no.csv", "no.csv", "check the spelling"),
    "several files": ("train {}/*.npy", "*.npy", "one file or folder"),
    "unknown ending": ("train {}/data.txt", "data.txt has an unknown ending", ".parquet"),
    "a run as data": ("train {}/digits", "is a run", "vaelid train --resume"),
    "empty file": ("train {}/empty.csv", "empty.csv is an empty file", "write or download it again"),
    "header alone": ("train {}/header.csv", "no rows", "at least one row"),
    "damaged .npy": ("train {}/cut.npy", "cut.npy cannot be read", "write or download it again"),
    "no .npy": ("train {}/noise.npy", "noise.npy cannot be read", "write or download it again"),
    "damaged .npz": ("train {}/cut.npz", "cut.npz cannot be read", "write or download it again"),
    "damaged .parquet": ("train {}/cut.parquet", "cut.parquet cannot be read", "write or download it again"),
    "damaged .zip": ("train {}/noise.zip", "noise.zip cannot be read", "write or download it again"),
    "zip without images": ("train {}/texts.zip", "texts.zip holds no images", "give a .zip of images"),
    "folder without images": ("train '{}/no images'", "no images holds no images", "give the folder"),
    "unreadable image": ("train {}/broken", "image 2.png cannot be read", "remove it"),
    "images of two sizes": ("train {}/sizes", "3.png is 8×9 grey", "resize"),
    "several arrays": ("train {}/three.npz", "first, second, third", "save the data under one of those names"),
    "pickled objects": ("train {}/objects.npy", "objects.npy", "download it again"),
    # values
    "ragged rows": ("train {}/ragged.csv", "rows 2, 4 (row 2 has 1 cell)", "complete or drop those rows"),
    "text in a table": ("train {}/text.csv", "column 'b' (row 1: 'oops')", "--label"),
    "text in an array": ("train {}/text.npy", "text in row 1 (first: 'x' in row 1, column 1)", "encode them"),
    "missing cells": ("train {}/gaps.csv", "column 'a' in row 3; column 'b' in row 1", "drop those rows"),
    "a name twice": ("train {}/twice.csv", "several columns named 'a'", "rename"),
    "NaN": ("train {}/nan.npy", "rows 3, 7 (first: nan in row 3, column 1)", "drop those rows"),
    "infinity": ("train {}/infinite.npy", "row 5 (first: inf in row 5, column 0)", "drop those rows"),
    "too large": ("train {}/huge.npy", "huge has values of size", "rescale"),
    "one dimension": ("train {}/flat.npy", "one dimension of 20 values", "reshape"),
    "no rows at all": ("train {}/none.npy", "empty, shape (0, 4)", "at least 1 row"),
    "one row": ("train {}/one.npy", "1 row of data", "at least 3"),
    "two rows": ("train {}/two.npy", "2 rows of data", "at least 3"),
    "negative counts": ("train {}/negative.npy --likelihood negative-binomial", "-1 in row 2", "gaussian"),
    "counts that are not whole": ("train {}/real.npy --likelihood negative-binomial", "rows 0, 1, 2", "gaussian"),
    "out of range": ("train {}/counts.npy --likelihood bernoulli", "first: ", "--binarise"),
    "no grey levels": ("train {}/real.npy --binarise", "cannot be binarised", "leave --binarise out"),
    "binarised and gaussian": ("train digits --binarise --likelihood gaussian", "gaussian", "leave one of the two out"),
    "unknown label": ("train {}/good.csv --label c", "no label 'c'", "Known: a, b"),
    "labels too few": ("train {}/ragged.npz", "shape (3,)", "one label per row"),
    # folders
    "an existing run": ("train digits --epochs 3 --out {}/digits", "exists", "vaelid train --resume"),
    "an existing folder": ("train digits --out '{}/no images'", "exists and is no run", "vaelid train digits --out"),
    "a run below a file": ("train digits --out {}/file/run", "cannot be made", "choose another with --out"),
    "no config": ("info '{}/without config.toml'", "lacks config.toml", "train again"),
    "no split": ("info '{}/without split.npz'", "lacks split.npz", "train again"),
    "no events": ("info '{}/without events.jsonl'", "lacks events.jsonl", "train again"),
    "no model": ("sample '{}/without model.safetensors'", "no model.safetensors", "vaelid train --resume"),
    "half a config": ("info '{}/cut config.toml'", "config.toml cannot be read", "TOML"),
    "half a split": ("evaluate '{}/cut split.npz'", "split.npz cannot be read", "damaged"),
    "half a model": ("encode '{}/cut model.safetensors' digits", "model.safetensors cannot be read", "whole"),
    "no checkpoint": ("train --resume '{}/no checkpoint' --epochs 9", "last.safetensors", "checkpoint"),
    "a later format": ("info '{}/later format'", "format 9", "format 1"),
    "a folder that is no run": ("info '{}/no images'", "lacks config.toml", "train again"),
    "no such run": ("compare {}/digits {}/nope", "no run folder", "holds no checkpoint, table"),
    # using a model on other data
    "other rows to evaluate": ("evaluate {}/table {}/wide.npy", "shape (5,)", "(3,)"),
    "other rows to bracket": ("evidence {}/table {}/wide.npy", "shape (5,)", "(3,)"),
    "other rows to encode": ("encode {}/table digits", "shape (1, 8, 8)", "(3,)"),
    "too bright": ("evaluate {}/digits {}/bright.npy", "Binomial likelihood cannot give", "correct those rows"),
    "unknown ending of a table": ("encode {}/digits digits --out z.txt", "'.txt'", ".csv, .parquet, .npy, .npz"),
    "no ending": ("reconstruct {}/digits digits --out z", "no ending", ".csv, .parquet, .npy, .npz"),
    "unknown ending of images": ("sample {}/digits --out x.jpg", "'.jpg'", ".png"),
    "no such folder": ("sample {}/digits --out no/x.png", "no does not exist", "mkdir -p"),
    "a folder that holds something": ("sample {}/digits --out '{}/no images'", "not empty", "name another one"),
}  # fmt: skip


def contents(folder):
    """Every file below a folder with its size and time of change."""
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_nothing_written(case, call, here, bad, digits_run):
    typed, *fragments = CASES[case]
    before = contents(bad), contents(digits_run)
    answer = call(*shlex.split(typed.replace("{}", str(bad))))
    assert answer.code == 2, answer
    assert re.fullmatch(r"vaelid: [^\n]+\n", answer.err), answer.err
    for fragment in fragments:
        assert fragment.lower() in answer.err.lower()
    assert list(here.iterdir()) == []
    assert (contents(bad), contents(digits_run)) == before


def test_json_leaves_errors_alone(call, here):
    answer = call("train", "nothing.csv", "--json", "--quiet")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("vaelid: no such file or folder: nothing.csv")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("words", [("train", "digits"), ("evaluate", "{}"), ("encode", "{}", "digits")])
def test_no_gpu(words, call, here, digits_run):
    answer = call(*(word.replace("{}", str(digits_run)) for word in words), "--device", "cuda")
    assert answer.code == 2
    assert answer.err == (
        "vaelid: --device cuda, but no CUDA GPU is visible; expected a device of this machine. Use --device cpu.\n"
    )
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(("out", "instead"), [(".", "run"), ("..", "../run"), ("taken", "taken/run-2")])
def test_an_existing_folder_names_a_new_one(out, instead, call, here):
    (here / "taken" / "run").mkdir(parents=True)
    answer = call("train", "digits", "--out", out)
    assert answer.code == 2
    assert answer.err.endswith(f" For example: vaelid train digits --out {instead}.\n")


def test_out_of_memory(call, here, monkeypatch):
    def full(*_, **__):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr("vaelid.cli.train.load", full)
    answer = call("train", "digits")
    assert answer.code == 1
    assert answer.err.startswith("vaelid: out of memory (Unable to allocate 9 TiB); ")


def test_an_existing_run_names_both_commands(call, here, digits_run):
    run = here / "my run"
    run.symlink_to(digits_run)
    words = ("train", "digits", "--latent", 3, "--set", "training.batch_size=64")
    answer = call(*words, "--out", "my run")
    assert answer.code == 2
    first, second = re.search(r": (vaelid .*); for another: (vaelid .*)\.$", answer.err.strip()).groups()
    assert shlex.split(first) == ["vaelid", "train", "--resume", "my run"]
    assert shlex.split(second)[:3] == ["vaelid", "train", "digits"]
    assert sorted(shlex.split(second)) == sorted(["vaelid", *map(str, words), "--out", "my run-2"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(call, here):
    here.chmod(0o555)
    try:
        answer = call("train", "digits")
    finally:
        here.chmod(0o755)
    assert answer.code == 2
    assert "cannot be made (Permission denied)" in answer.err
    assert list(here.iterdir()) == []


def test_a_folder_that_refuses(call, here, monkeypatch):
    """The same for root, who may write everywhere."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    answer = call("train", "digits", "--out", "run", "--quiet")
    assert answer.code == 2
    assert re.fullmatch(r"vaelid: the run folder run cannot be made \(Permission denied\); [^\n]+\n", answer.err)
    assert list(here.iterdir()) == []


def test_the_program_exits_with_the_code(spawn, here):
    process = spawn("train", "digit", cwd=here)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, len(err.splitlines())) == (2, "", 1)


def wait_for_epochs(run, process):
    """Wait until training in ``run`` has done some epochs."""
    events = run / "events.jsonl"
    for _ in range(600):
        if events.exists() and events.read_text().count("EpochDone") >= 2:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("training did not start within a minute")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interrupted_and_resumed(number, spawn, call, here):
    words = ("train", "digits", "--epochs", 100000, "--out", "my run", "--set", "training.patience=0")
    words += ("--set", "training.compile=false")  # which a run as long as this one would wait for
    process = spawn(*words, "--set", "evaluation.samples=5", "--set", "evaluation.evidence=0", cwd=here)
    wait_for_epochs(here / "my run", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "On 180 test rows" not in out
    last = err.splitlines()[-1]
    assert last.startswith("vaelid: interrupted at step ")
    program, *again = shlex.split(last.rpartition(": ")[2])
    assert (program, again) == ("vaelid", ["train", "--resume", "my run"])
    config = here / "my run" / "config.toml"
    step = Run.open("my run").last_checkpoint()[1]["step"]
    assert step > 0
    edit(config, "epochs = 100000", f"epochs = {step // 12 + 2}")  # not to wait for the rest
    answer = call(*again, "--json")
    assert answer.code == 0, answer.err
    assert f"from step {step}," in answer.err
    assert answer.json["epochs"] == step // 12 + 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interrupted_before_training(number, call, here, monkeypatch):
    """While the data are read: nothing is written."""
    monkeypatch.setattr("vaelid.cli.train.load", lambda *_, **__: os.kill(os.getpid(), number))
    answer = call("train", "digits")
    assert (answer.code, answer.out, answer.err.strip()) == (130, "", "vaelid: interrupted")
    assert list(here.iterdir()) == []


def test_a_second_signal_does_not_swallow_how_to_go_on(call, here, monkeypatch):
    def twice(*_, **__):
        try:
            raise Interrupted("interrupted; go on with: vaelid train --resume run")
        finally:
            raise KeyboardInterrupt

    monkeypatch.setattr("vaelid.cli.train.load", twice)
    answer = call("train", "digits")
    assert (answer.code, answer.err.strip()) == (130, "vaelid: interrupted; go on with: vaelid train --resume run")


def test_a_reader_that_goes_away(spawn, here, digits_run):
    """As in ``vaelid info RUN | head -n 0``."""
    with spawn("info", digits_run, cwd=here) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(timeout=60)) == ("", 0)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 12 MB, which only root may make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=12m", "vaelid-test", str(folder)]
    if os.geteuid() != 0 or mount is None or subprocess.run([mount, *options], capture_output=True).returncode != 0:
        pytest.skip("no right to mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills(call, small_disk, monkeypatch):
    """Training writes its first checkpoint, then other files fill the disk: the checkpoint stays whole."""
    monkeypatch.chdir(small_disk)
    few = ("--epochs", 1, "--set", "training.patience=0", "--set", "evaluation.samples=5")
    few += ("--set", "evaluation.evidence=0")
    first = call("train", "digits", "--out", "run", *few)
    assert first.code == 0, first.err
    checkpoint = (small_disk / "run" / "checkpoints" / "last.safetensors").read_bytes()
    with open(small_disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    full = call("train", "--resume", "run", "--epochs", 60)
    assert full.code == 1
    last = full.err.splitlines()[-1]
    assert "No space left on device" in last
    assert last.endswith("vaelid train --resume run")
    assert (small_disk / "run" / "checkpoints" / "last.safetensors").read_bytes() == checkpoint
    (small_disk / "filler").unlink()
    assert call("train", "--resume", "run", "--epochs", 3).code == 0


@pytest.mark.parametrize("what", ["last.safetensors", "best.safetensors", "model.safetensors", "metrics.json", "page"])
def test_a_disk_that_is_full_for(what, call, here, monkeypatch):
    """Wherever the disk fills, the exit code is 1, and the command that is named goes on once there is room."""
    from vaelid import files

    replace, count = os.replace, 0

    def full(source, target):
        nonlocal count
        if os.path.basename(target) == what.replace("page", "report.html"):
            count += 1
            if count >= (2 if what in ("last.safetensors", "best.safetensors") else 1):
                raise OSError(28, "No space left on device")
        replace(source, target)

    few = ("--set", "evaluation.samples=5", "--set", "evaluation.evidence=0", "--set", "training.save_every=0")
    words = ("train", "digits", "--epochs", 3, "--out", "run", *few)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        answer = call(*words, "--json")
    assert answer.code == 1
    last = answer.err.splitlines()[-1]
    assert "No space left on device" in last
    assert "intact" in last or "safe" in last
    assert Run.open("run").last_checkpoint()[1]["step"] >= 0
    assert [path.name for path in (here / "run").rglob(".*")] == []
    program, *again = shlex.split(last.rpartition(": ")[2])
    assert program == "vaelid"
    answer = call(*again, "--json")
    assert answer.code == 0, answer.err
    assert json.loads((here / "run" / "metrics.json").read_text())["epochs"] == 3
    assert (here / "run" / "report.html").exists()
