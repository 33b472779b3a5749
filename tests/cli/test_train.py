"""`vaelid train`: every kind of data, what it prints, what it writes, and what it says next."""

import io
import json
import re
import shlex
import tomllib
import zipfile

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

from vaelid import data, report
from vaelid.runs import Run

KEYS = {
    "run", "epochs", "elbo", "elbo_se", "iwae", "iwae_se", "rate", "rate_se", "distortion", "distortion_se",
    "active_units", "seconds",
}  # fmt: skip
FEW = ("--epochs", 2, "--set", "evaluation.samples=20", "--set", "evaluation.evidence=0")
FILES = {
    "checkpoints", "config.toml", "env.json", "events.jsonl", "metrics.json", "model.safetensors", "report.html",
    "split.npz",
}  # fmt: skip


@pytest.fixture
def quick(monkeypatch):
    """No report, which takes most of the time of a short training."""
    monkeypatch.setattr(report, "write", lambda run, *_: run.path / "report.html")


def test_json_is_one_object_on_stdout(call, here):
    answer = call("train", "digits", *FEW, "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert len(answer.out.splitlines()) == 1
    assert found.keys() >= KEYS
    assert found["run"] == "runs/digits-001"
    assert (found["epochs"], found["samples"], found["rows"]) == (2, 20, 180)
    assert found["elbo"] == pytest.approx(-found["distortion"] - found["rate"], rel=1e-6)
    assert found["elbo"] < found["iwae"] < 0
    assert all(found[f"{name}_se"] > 0 for name in ("elbo", "iwae", "rate", "distortion"))
    assert "likelihood: binomial, 16 trials" in answer.err
    assert "epoch 2/2" in answer.err
    folder = here / "runs" / "digits-001"
    assert {path.name for path in folder.iterdir()} == FILES
    assert found["report"] == "runs/digits-001/report.html"
    stored = json.loads((folder / "metrics.json").read_text())
    assert stored == {name: value for name, value in found.items() if name != "report"}


def test_words_and_next_commands(call, here, table, monkeypatch):
    served = []

    def serve(pages, home, port, ready):
        served.append(home)
        raise KeyboardInterrupt  # as the reader does in the end

    monkeypatch.setattr("vaelid.serving.serve", serve)
    source = here / "it's a table.csv"
    source.write_text(table)
    answer = call("train", source, "--label", "kind", "--out", "my run", *FEW)
    assert answer.code == 0, answer.err
    assert "40 rows of shape (3,); 32 to train, 4 to validate, 4 to test" in answer.out
    assert "likelihood: gaussian (real values" in answer.out
    assert re.search(r"^trained for 2 epochs in [\d.]+ s; best at epoch \d \(all 2 epochs done\)$", answer.out, re.M)
    metrics = json.loads((here / "my run" / "metrics.json").read_text())
    shown = {"elbo": "ELBO", "iwae": "log p(x) at least", "rate": "rate  KL(q ‖ prior)", "distortion": "distortion"}
    for name, words in shown.items():
        line = next(line for line in answer.out.splitlines() if line.startswith(f"  {words}"))
        assert f"{metrics[name]:.2f} ± {metrics[f'{name}_se']:.2f}" in line
    assert re.search(rf"^  active units +{metrics['active_units']} of 2$", answer.out, re.M)
    assert "report   my run/report.html" in answer.out
    commands = [line.strip().removeprefix("next").strip() for line in answer.out.splitlines() if "vaelid " in line]
    assert len(commands) == 4
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "vaelid"
        again = call(*words)
        assert again.code == 0, again.err
    assert served == ["studio"]
    assert len((here / "samples.csv").read_text().splitlines()) == 101
    assert len((here / "latents.csv").read_text().splitlines()) == 41


def test_quiet_prints_the_result_alone(call, quick, here):
    answer = call("train", "digits", *FEW, "--quiet")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("On 180 test rows, which training never saw")
    answer = call("train", "digits", *FEW, "--quiet", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.json["run"] == "runs/digits-002"


def images(folder, size=8, rows=24):
    rng = np.random.default_rng(2)
    for index in range(rows):
        kind = folder / ("cats", "dogs")[index % 2]
        kind.mkdir(parents=True, exist_ok=True)
        level = 60 + 120 * (index % 2) + rng.integers(-20, 20, (size, size))
        Image.fromarray(level.astype(np.uint8)).save(kind / f"{index:02}.png")


def make(kind, folder, table):
    """A data file of the kind, and what `vaelid train` says of it: rows, shape, likelihood."""
    path = folder / f"some.{kind}"
    rng = np.random.default_rng(3)
    real = (40, (3,), "gaussian (real values")
    if kind == "csv":
        path.write_text(table)
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.csv.read_csv(io.BytesIO(table.encode())), path)
    elif kind == "npy":
        counts = rng.negative_binomial(2, 0.3, (40, 5))
        np.save(path, counts)
        return path, 40, (5,), "negative-binomial (all values are whole numbers ≥ 0)"
    elif kind == "npz":
        binary = rng.integers(0, 2, (40, 6))
        np.savez(path, x=binary, y=np.arange(40) % 3)
        return path, 40, (6,), "bernoulli (all values are 0 or 1)"
    else:
        images(folder / "pictures")
        if kind == "folder":
            path = folder / "pictures"
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for image in sorted((folder / "pictures").rglob("*.png")):
                    archive.write(image, image.relative_to(folder))
        return path, 24, (1, 8, 8), "discretized-logistic, levels 0 to 255 in steps of 1 (8-bit images)"
    return path, *real


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy", "npz", "folder", "zip"])
def test_every_kind_of_data(kind, call, here, tmp_path, table):
    path, rows, shape, likelihood = make(kind, tmp_path, table)
    label = ("--label", "kind") if kind in ("csv", "parquet") else ()
    answer = call("train", path, *label, *FEW, "--json")
    assert answer.code == 0, answer.err
    assert f"{rows} rows of shape {shape}" in answer.err
    assert f"likelihood: {likelihood}" in answer.err
    run = Run.open(answer.json["run"])
    dataset = run.dataset()
    assert len(dataset.labels) == rows if kind != "npy" else dataset.labels is None
    assert run.model().encode(dataset.x).shape == (rows, run.config.model.latent)


def test_flags_reach_config_and_model(call, quick, here, tmp_path, numbers):
    path = tmp_path / "x.npy"
    np.save(path, numbers)
    words = ("--likelihood", "gaussian-shared", "--latent", 2, "--seed", 5, "--set", "training.batch_size=16")
    answer = call("train", path, *FEW, *words, "--set", "training.epochs=7", "--json")
    assert answer.code == 0, answer.err
    assert "likelihood: gaussian-shared (chosen by you)" in answer.err
    config = Run.open(answer.json["run"]).config
    assert config.training.epochs == 2  # a flag wins over --set
    assert (config.seed, config.training.batch_size, config.model.latent) == (5, 16, 2)
    assert config.model.likelihood == "gaussian-shared"
    assert config.parts["likelihood"]["scale"]["shape"] == []


def test_binarise(call, quick, here):
    answer = call("train", "digits", "--binarise", *FEW, "--json")
    assert answer.code == 0, answer.err
    assert "likelihood: bernoulli (grey levels binarised afresh at every step)" in answer.err
    run = Run.open(answer.json["run"])
    assert run.config.data.binarise
    assert type(run.model().likelihood).__name__ == "Bernoulli"


def test_more_latents_than_cells_is_a_warning(call, here, tmp_path, numbers):
    path = tmp_path / "x.npy"
    np.save(path, numbers)
    answer = call("train", path, "--latent", 5, "--dry-run")
    assert answer.code == 0
    assert "warning: 5 latent dimensions for rows of 3 cells; fewer would do" in answer.err


def test_a_dry_run_writes_nothing_and_prints_settings(call, here, tmp_path):
    words = ("train", "digits", "--latent", 3, "--set", "objective.beta=0.5", "--dry-run")
    answer = call(*words)
    assert answer.code == 0
    assert list(here.iterdir()) == []
    printed = tomllib.loads(answer.out)
    assert (printed["data"]["source"], printed["model"]["latent"], printed["objective"]["beta"]) == ("digits", 3, 0.5)
    assert call(*words, "--json").json == printed
    settings = tmp_path / "settings.toml"
    settings.write_text(answer.out)
    again = call("train", "--config", settings, "--latent", 4, "--dry-run", "--quiet")
    assert again.code == 0
    assert again.err == ""
    assert tomllib.loads(again.out) == printed | {"model": printed["model"] | {"latent": 4}}


def test_resume_with_more_epochs(call, quick, here):
    assert call("train", "digits", *FEW, "--out", "run").code == 0
    refused = call("train", "--resume", "run")
    assert refused.code == 2
    assert "vaelid train --resume run --epochs" in refused.err
    answer = call("train", "--resume", "run", "--epochs", 3, "--json")
    assert answer.code == 0, answer.err
    assert "going on with run" in answer.err
    assert (answer.json["epochs"], Run.open("run").config.training.epochs) == (3, 3)
    assert json.loads((here / "run" / "metrics.json").read_text())["epochs"] == 3


def test_same_seed_same_numbers(call, quick, here):
    first, second = (call("train", "digits", *FEW, "--json").json for _ in range(2))
    assert first["run"] != second["run"]
    assert {key: first[key] for key in KEYS - {"run", "seconds"}} == {
        key: second[key] for key in KEYS - {"run", "seconds"}
    }


def test_what_is_missing_after_training_is_made_by_resume(call, here, monkeypatch):
    """Ctrl-C while scoring: the model is kept, and both commands named make scores and report."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vaelid.runs.score", interrupted)
        answer = call("train", "digits", *FEW, "--out", "my run", "--quiet")
    assert answer.code == 130
    assert answer.out == ""
    assert len(answer.err.splitlines()) == 1
    assert "the trained model is safe in my run" in answer.err
    assert (here / "my run" / "model.safetensors").exists()
    assert not (here / "my run" / "metrics.json").exists()
    program, *words = shlex.split(answer.err.strip().rpartition(": ")[2])
    assert (program, words) == ("vaelid", ["report", "my run"])
    answer = call("train", "--resume", "my run", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["epochs"] == 2
    assert (here / "my run" / "report.html").exists()
    (here / "my run" / "metrics.json").unlink()
    assert call(*words).code == 0
    assert json.loads((here / "my run" / "metrics.json").read_text())["elbo"] == answer.json["elbo"]


def test_a_report_that_cannot_be_written(call, here, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(report, "write", full)
        answer = call("train", "digits", *FEW, "--out", "run", "--json")
    assert answer.code == 1
    assert answer.json.keys() >= KEYS
    assert answer.json["report"] is None
    last = answer.err.splitlines()[-1]
    assert "could not be written (No space left on device); the trained model is safe in run" in last
    assert last.endswith("vaelid report run")
    assert call("report", "run").code == 0
    assert (here / "run" / "report.html").exists()


def test_training_that_blows_up_keeps_the_best_model(call, here):
    answer = call("train", "digits", *FEW, "--set", "training.learning_rate=1e30", "--out", "run", "--quiet")
    assert answer.code == 1
    assert answer.out == ""
    assert len(answer.err.splitlines()) == 1
    assert "training stopped at step" in answer.err
    assert "The best model so far is saved; to score it: vaelid report run" in answer.err
    assert np.isfinite(Run.open("run").model().encode(data.load("digits").x[:5]).numpy()).all()
    assert call("info", "run", "--json").json["state"].startswith("unfinished")


def test_progress_without_a_terminal_is_short(call, quick, here):
    answer = call("train", "digits", "--epochs", 40, *FEW[2:], "--json")
    assert answer.code == 0, answer.err
    assert len([line for line in answer.err.splitlines() if line.strip()]) < 10


def test_progress_without_a_terminal_is_a_line_now_and_then(call, quick, here, monkeypatch):
    monkeypatch.setattr("vaelid.cli.train.PAUSE", 0.0)
    answer = call("train", "digits", *FEW, "--json")
    assert re.search(r"^epoch 1/2, validation bound -\d+\.\d\d$", answer.err, re.M)
