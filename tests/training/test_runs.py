"""Run folders: what they hold, what they refuse, and the configuration that they record."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vaelid as vd
from vaelid import files
from vaelid.objectives import ELBO, IWAE, Objective, Outcome, Warmup
from vaelid.runs import Config, Run, find_device, known_keys, new_path, read_config, resolve, score, setting
from vaelid.runs.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig
from vaelid.training import Settings

ROWS = 60


def table() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(ROWS, 2)) @ rng.normal(size=(2, 5)) + 0.3 * rng.normal(size=(ROWS, 5))


def small(x: Any = None) -> vd.VAE:
    return vd.recipes.vae(table() if x is None else x, latent=2, hidden=(8,))


def fit(out: Path, model: vd.VAE | None = None, x: Any = None, **given: Any) -> vd.VAE:
    x = table() if x is None else x
    model = small(x) if model is None else model
    asked = {"settings": Settings(epochs=2, batch_size=16, warmup_steps=0), "progress": False} | given
    vd.fit(model, x, out=out, **asked)
    return model


def same(model: nn.Module, other: nn.Module) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


class Own(nn.Module):
    def __init__(self, inputs: int, outputs: int, hidden: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def own_model(hidden: int = 8) -> vd.VAE:
    likelihood = vd.likelihoods.Gaussian(Own(2, 5, hidden), (5,))
    return vd.VAE(vd.priors.StandardNormal(2), likelihood, vd.posteriors.DiagonalNormal(Own(5, 4, hidden)))


class OwnObjective(Objective):
    """The ELBO with twice the weight on reconstruction."""

    samples = 1

    def __call__(self, problem: Any, u: Tensor, step: int) -> Outcome:
        outcome = ELBO()(problem, u, step)
        surrogate = 2 * outcome.terms["reconstruction"].mean() - outcome.terms["rate"].mean()
        return Outcome(surrogate, outcome.terms, outcome.bound)


def refused(message: str) -> Any:
    """An `InputError` of one line that matches."""
    return pytest.raises(vd.InputError, match=r"\A(?!.*\n).*" + message)


# -- what a folder holds -------------------------------------------------------------------------------------------


def test_a_run_holds_all_that_is_needed(tmp_path: Path) -> None:
    x = table()
    model = small(x)
    history = vd.fit(
        model,
        x,
        settings=Settings(epochs=2, batch_size=16, warmup_steps=0),
        out=tmp_path / "run",
        progress=False,
        seed=4,
    )
    names = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert names == {
        "config.toml",
        "data.npz",
        "split.npz",
        "env.json",
        "events.jsonl",
        "model.safetensors",
        "checkpoints/last.safetensors",
        "checkpoints/best.safetensors",
    }
    run = Run.open(tmp_path / "run")
    assert run.finished
    assert (run.config.seed, run.config.data.source, run.config.training.epochs) == (4, "memory", 2)
    assert run.event_shape() == (5,)
    np.testing.assert_array_equal(run.dataset().x, x.astype(np.float32))
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(run.split(), part), getattr(history.split, part))
    events = run.events()
    assert [event["event"] for event in events] == ["Started", "Saved", "EpochDone", "EpochDone", "Saved", "Finished"]
    assert [event["validation"] for event in events if event["event"] == "EpochDone"] == [
        epoch.validation for epoch in history.epochs
    ]
    assert json.loads((run.path / "env.json").read_text())["torch"] == torch.__version__
    loaded = vd.load(run.path)
    assert same(loaded, model)
    assert not loaded.training
    assert run.metrics() == {}
    evaluation = score(run, loaded, run.dataset(), samples=10)
    assert evaluation.rows == len(run.split().test) == 6
    run.save_metrics({"elbo": evaluation.elbo.value})
    assert run.metrics() == {"elbo": evaluation.elbo.value}


def test_arrays_beside_the_rows_are_kept(tmp_path: Path) -> None:
    rng, x = np.random.default_rng(1), table()
    extras = {"mask": rng.uniform(size=x.shape) < 0.8, "weight": rng.uniform(size=ROWS)}
    fit(tmp_path / "run", x=x, **extras)
    kept = Run.open(tmp_path / "run").extras()
    assert kept.keys() == extras.keys()
    np.testing.assert_array_equal(kept["mask"], extras["mask"])
    np.testing.assert_array_equal(kept["weight"], extras["weight"].astype(np.float32))


def test_events_survive_a_line_cut_short(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    run = Run.open(tmp_path / "run")
    whole = run.events()
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"event": "EpochDone", "st')
    assert run.events() == whole
    run.forget_after(1)
    assert run.events() == whole[:3]
    assert not run.finished
    run.forget_after(0)
    assert run.events() == whole[:2]


def test_leftovers_of_a_killed_writer_are_swept(tmp_path: Path) -> None:
    kept = [".gitignore", "last.safetensors", ".hidden.toml"]
    left = [".last.safetensors.k3x_9abc.safetensors", ".events.jsonl.abcdefgh.jsonl", ".tmpAb3dEf", ".x.12345678"]
    for name in (*kept, *left):
        (tmp_path / name).touch()
    files.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


# -- whole or not at all -------------------------------------------------------------------------------------------


def test_an_existing_folder_is_refused_with_the_two_commands(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with refused(r"run exists; .*vaelid train --resume .*run; to make another: --out .*run-2"):
        fit(tmp_path / "run")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


@pytest.mark.parametrize("where", ["file/run", "file/below/run", "/proc/none/run"])
def test_an_unwritable_folder_is_refused(where: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with refused(r"the run folder .* cannot be made \(.*\); expected a folder that you may write to.*--out"):
        fit(tmp_path / where)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"objective": ELBO(beta=Warmup(1000))}, "a warm-up of 1000 steps in a run of 6"),
        ({"model": vd.recipes.vae(np.eye(7) / 3, latent=2, likelihood="gaussian")}, "cannot encode a row of shape"),
        ({"model": vd.recipes.vae(np.ones((9, 5), int), latent=2, likelihood="bernoulli")}, "Bernoulli .* cannot give"),
        ({"x": np.full((ROWS, 5), np.nan), "model": own_model()}, "NaN"),
        ({"weight": np.zeros(3)}, "weight has shape"),
        ({"epochs": 0}, "epochs is 0"),
        ({"x": table()[:2], "model": own_model()}, "2 rows of data"),
    ],
)
def test_bad_input_leaves_nothing(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with refused(message):
        fit(tmp_path / "run", **given)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_completed_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vaelid.runs.folder.save_arrays", fail)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run")
    assert os.listdir(tmp_path) == []


# -- half-written and damaged --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "run"
    fit(path, weight=np.ones(ROWS))
    return path


@pytest.fixture
def run_folder(made: Path, tmp_path: Path) -> Path:
    for file in made.rglob("*"):
        if file.is_file():
            target = tmp_path / "run" / file.relative_to(made)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return tmp_path / "run"


def go_on(path: Path) -> None:
    vd.resume(path, epochs=3, progress=False)


@pytest.mark.parametrize(
    ("file", "act", "message"),
    [
        ("config.toml", vd.load, r"lacks config.toml; expected a whole run folder. Train again .* --out"),
        ("split.npz", vd.load, r"lacks split.npz; expected a whole run folder. Train again .* --out"),
        ("events.jsonl", go_on, r"lacks events.jsonl; expected a whole run folder. Train again .* --out"),
        ("model.safetensors", vd.load, r"no model.safetensors: its training did not end; .* vaelid train --resume"),
        ("checkpoints/last.safetensors", go_on, r"no file .*last.safetensors; expected a checkpoint.* again"),
        ("data.npz", go_on, r"data.npz"),
    ],
)
def test_a_missing_file_is_named_with_the_remedy(file: str, act: Any, message: str, run_folder: Path) -> None:
    (run_folder / file).unlink()
    with refused(message):
        act(run_folder)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.98])
@pytest.mark.parametrize(
    ("file", "act"),
    [
        ("model.safetensors", vd.load),
        ("checkpoints/last.safetensors", go_on),
        ("split.npz", go_on),
        ("data.npz", go_on),
        ("extras.npz", go_on),
    ],
)
def test_a_truncated_file_is_named(file: str, act: Any, share: float, run_folder: Path) -> None:
    path = run_folder / file
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(vd.InputError) as caught:
        act(run_folder)
    assert "\n" not in str(caught.value)
    assert Path(file).name in str(caught.value)


def test_a_truncated_metrics_file_is_named(run_folder: Path) -> None:
    (run_folder / "metrics.json").write_text('{"elbo": -1')
    with refused("metrics.json is damaged"):
        Run.open(run_folder).metrics()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", r"a run of format 2; expected format 1"),
        ("format = 1\n", "", r"a run of format None; expected format 1"),
        ("epochs = 2", "epoch = 2", r"unknown setting 'training.epoch'; .* Did you mean 'training.epochs'\?"),
        ("epochs = 2", 'epochs = "two"', r"training.epochs = 'two'; expected a valid integer"),
        ("latent = 2", "latent = 2\nwhat = 3", r"VAE|priors|what"),
        ("epochs = 2", "epochs = 2 2", r"config.toml cannot be read"),
    ],
)
def test_a_config_that_was_edited_badly(old: str, new: str, message: str, run_folder: Path) -> None:
    path = run_folder / "config.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with refused(message):
        vd.load(run_folder)


def test_what_is_no_run_at_all(tmp_path: Path, made: Path) -> None:
    with refused(r"no run folder .*nowhere"):
        vd.load(tmp_path / "nowhere")
    with refused(r"no run folder .*; .* holds run"):
        vd.load(made.parent / "other")
    with refused(r"lacks config.toml, split.npz, events.jsonl"):
        vd.load(tmp_path)
    (tmp_path / "file").touch()
    with refused(r"lacks config.toml, split.npz, events.jsonl"):
        vd.load(tmp_path / "file")


# -- models and objectives of the user's own -----------------------------------------------------------------------


def test_own_networks_are_asked_for(tmp_path: Path) -> None:
    model = fit(tmp_path / "run", own_model())
    for verb, act in (("load", vd.load), ("resume", go_on)):
        with refused(rf"run holds networks of your own; .* vaelid.{verb}\('.*run', model=model\)"):
            act(tmp_path / "run")
    assert same(vd.load(tmp_path / "run", model=own_model()), model)
    with refused("does not fit the model"):
        vd.load(tmp_path / "run", model=own_model(hidden=9))
    with refused(r"last.safetensors does not fit the model"):
        vd.resume(tmp_path / "run", model=own_model(hidden=9), epochs=3, progress=False)
    _, history = vd.resume(tmp_path / "run", model=own_model(), epochs=3, progress=False)
    assert history.finished.epoch == 3


def test_another_model_of_named_parts_is_refused(made: Path) -> None:
    with refused("another model than the run's; expected the model that .* was made with"):
        vd.load(made, model=vd.recipes.vae(table(), latent=3, hidden=(8,)))


def test_an_own_objective_is_asked_for(tmp_path: Path) -> None:
    fit(tmp_path / "run", objective=OwnObjective())
    assert Run.open(tmp_path / "run").config.objective.name == "own"
    before = (tmp_path / "run" / "config.toml").read_bytes()
    with refused(r"config.toml cannot express.* vaelid.resume\(path, objective=…\)"):
        go_on(tmp_path / "run")
    assert (tmp_path / "run" / "config.toml").read_bytes() == before
    _, history = vd.resume(tmp_path / "run", objective=OwnObjective(), epochs=3, progress=False)
    assert history.finished.epoch == 3


def test_weights_that_are_tied_are_saved_in_full(tmp_path: Path) -> None:
    model = own_model()
    model.likelihood.network.layers.append(nn.Linear(5, 5, bias=False))
    model.likelihood.network.layers.append(nn.Linear(5, 5, bias=False))
    model.likelihood.network.layers[4].weight = model.likelihood.network.layers[3].weight
    fit(tmp_path / "run", model)
    saved, _ = vd.training.checkpoints.read(tmp_path / "run" / "model.safetensors")
    assert torch.equal(saved["likelihood.network.layers.3.weight"], saved["likelihood.network.layers.4.weight"])
    _, history = vd.resume(tmp_path / "run", model=model, epochs=3, progress=False)
    assert history.finished.epoch == 3


# -- data ----------------------------------------------------------------------------------------------------------


def test_a_source_that_changed_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    source, x = tmp_path / "rows.npy", table()
    np.save(source, x)
    fit(tmp_path / "run", x=vd.data.load(source))
    assert not (tmp_path / "run" / "data.npz").exists()
    run = Run.open(tmp_path / "run")
    assert run.config.data.source == str(source)
    before = (run.path / "config.toml").read_bytes()
    x[3, 3] += 1
    np.save(source, x)
    with refused(r"rows.npy has changed since the run was made; expected rows with fingerprint \w{12}"):
        go_on(run.path)
    source.unlink()
    with refused("rows.npy"):
        go_on(run.path)
    assert (run.path / "config.toml").read_bytes() == before
    x[3, 3] -= 1
    np.save(source, x)
    go_on(run.path)


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_labels_are_found_again(ending: str, tmp_path: Path) -> None:
    source, x, y = tmp_path / f"rows.{ending}", table(), np.arange(ROWS) % 3
    if ending == "npz":
        np.savez(source, x=x, kind=y)
    else:
        np.savetxt(source, np.column_stack((x, y)), delimiter=",", header="a,b,c,d,e,kind", comments="")
    fit(tmp_path / "run", x=vd.data.load(source, label="kind"))
    go_on(tmp_path / "run")
    labels = Run.open(tmp_path / "run").dataset().labels
    assert labels is not None
    np.testing.assert_array_equal(labels, y)


# -- configuration -------------------------------------------------------------------------------------------------


def test_every_setting_survives_the_file(tmp_path: Path) -> None:
    config = Config(
        seed=3,
        data=DataConfig(source='/some/where\'s "data".csv', label="a b", binarise=True, fingerprint="ab"),
        model=ModelConfig(latent=5, likelihood="bernoulli", network="mlp", hidden=[20, 10]),
        objective=ObjectiveConfig(beta=2.5, warmup_steps=30, free_bits=0.25, samples=2),
        training=Settings(epochs=7, schedule="cosine", patience=0, learning_rate=1e-5).resolved(),
        evaluation=EvaluationConfig(samples=9, rows=10),
        parts={"part": "VAE", "prior": {"part": "priors.StandardNormal", "latent": 5}},
    )
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert resolve(read_config(tmp_path / "config.toml")) == config
    assert resolve(read_config(tmp_path / "config.toml")).training.horizon == 7
    (tmp_path / "config.toml").write_text(Config().to_toml())
    assert resolve(read_config(tmp_path / "config.toml")) == Config() == resolve()


def test_what_fit_records_is_what_it_did(made: Path) -> None:
    run = Run.open(made)
    assert resolve(read_config(made / "config.toml")) == run.config
    assert run.config.parts == vd.parts.describe(small())
    assert resolve(run.config.model_dump(exclude_none=True)) == run.config


def test_later_layers_win() -> None:
    config = resolve(
        {"seed": 1, "training": {"epochs": 5, "patience": 6}, "model": {"hidden": [3, 4]}},
        {"training": {"epochs": 7}},
        setting("training.patience=8"),
        setting("model.hidden=[9]"),
        {"seed": 2},
    )
    assert (config.seed, config.training.epochs, config.training.patience, config.model.hidden) == (2, 7, 8, [9])
    layer = {"training": {"epochs": 5}}
    resolve(layer, {"training": {"epochs": 6}})
    assert layer == {"training": {"epochs": 5}}  # what was given is left alone


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("training.epochs=20", {"training": {"epochs": 20}}),
        ("training.learning_rate = 1e-3", {"training": {"learning_rate": 1e-3}}),
        ("data.binarise=true", {"data": {"binarise": True}}),
        ("model.likelihood=bernoulli", {"model": {"likelihood": "bernoulli"}}),
        ("model.likelihood= bernoulli ", {"model": {"likelihood": "bernoulli"}}),
        ('data.label="a=b"', {"data": {"label": "a=b"}}),
        ("data.label=a=b", {"data": {"label": "a=b"}}),
        ("model.hidden=[500, 500]", {"model": {"hidden": [500, 500]}}),
        ("seed=3", {"seed": 3}),
        ("data.label=", {"data": {"label": ""}}),
    ],
)
def test_set_reads_toml_or_text(text: str, table: dict[str, Any]) -> None:
    assert setting(text) == table


@pytest.mark.parametrize("text", ["training.epochs", "=3", " =3", ""])
def test_set_wants_key_and_value(text: str) -> None:
    with refused(r"--set .*; expected KEY=VALUE. For example --set training.epochs=20"):
        setting(text)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"training": {"epoch": 3}}, r"unknown setting 'training.epoch'; .* Did you mean 'training.epochs'\?"),
        ({"trainig": {"epochs": 3}}, r"unknown setting 'trainig'"),
        ({"model": {"latents": 3}}, r"Did you mean 'model.latent'\?"),
        ({"training": {"epochs": "many"}}, r"training.epochs = 'many'; expected a valid integer"),
        ({"training": {"epochs": 0}}, r"training.epochs = 0; expected greater than or equal to 1"),
        ({"training": {"epochs": 2.5}}, r"training.epochs = 2.5; expected a valid integer"),
        ({"training": {"schedule": "step"}}, r"training.schedule = 'step'; expected 'plateau' or 'cosine'"),
        ({"training": {"learning_rate": float("nan")}}, "learning_rate = nan; expected a finite number|greater"),
        ({"training": 5}, r"training = 5; expected a table of settings"),
        ({"objective": {"beta": -1}}, r"objective.beta = -1; expected greater than or equal to 0"),
        ({"objective": {"beta": float("inf")}}, r"objective.beta = inf; expected a finite number"),
        ({"model": {"hidden": [3, "x"]}}, r"model.hidden.1 = 'x'; expected a valid integer"),
        ({"seed": "x"}, r"seed = 'x'; expected a valid integer"),
    ],
)
def test_wrong_settings_are_one_line(table: dict[str, Any], message: str) -> None:
    with refused(message):
        resolve(table)


def test_known_keys_are_settable() -> None:
    assert {"seed", "device", "data.label", "model.latent", "objective.beta", "training.epochs"} <= set(known_keys())
    defaults = Config().model_dump()
    for key in known_keys():
        section, _, name = key.rpartition(".")
        assert name in (defaults[section] if section else defaults)


@pytest.mark.parametrize(
    "objective",
    [
        ELBO(),
        ELBO(beta=4.0),
        ELBO(beta=0.0, samples=3),
        ELBO(beta=Warmup(10, end=2.0), free_bits=0.1),
        IWAE(),
        IWAE(samples=7),
    ],
)
def test_objectives_are_recorded_as_settings(objective: Objective) -> None:
    assert ObjectiveConfig.of(objective).build() == objective


@pytest.mark.parametrize(
    "objective",
    [
        ELBO(beta=lambda step: 1.0),
        ELBO(beta=Warmup(10, start=0.5)),
        ELBO(analytic_kl=False),
        OwnObjective(),
    ],
)
def test_objectives_that_settings_cannot_name_are_the_users_own(objective: Objective) -> None:
    config = ObjectiveConfig.of(objective)
    assert config.name == "own"
    assert resolve(Config(objective=config).model_dump(exclude_none=True)).objective.name == "own"
    with refused("config.toml cannot express"):
        config.build()


def test_settings_of_the_other_objective_are_refused() -> None:
    with refused("with objective iwae; expected samples only"):
        ObjectiveConfig(name="iwae", beta=2.0).build()


def test_devices_and_names(tmp_path: Path) -> None:
    assert find_device("cpu") == torch.device("cpu")
    with refused("--device gpu"):
        find_device("gpu")
    if not torch.cuda.is_available():
        with refused("no CUDA GPU is visible; .* --device cpu"):
            find_device("cuda")
    assert new_path("digits", tmp_path) == tmp_path / "digits-001"
    for name in ("digits-001", "digits-007", "digits-old"):
        (tmp_path / name).mkdir()
    assert new_path("digits", tmp_path) == tmp_path / "digits-008"
