"""Context and weights that come with the data: what trains, what is kept in a run, and how it is read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch
from torch.utils.data import TensorDataset

import vaelid as vd
from vaelid.runs import Run, batch_of, contexts, score
from vaelid.training import checkpoints

ROWS = 80
RNG = np.random.default_rng(3)
X = RNG.normal(size=(ROWS, 3)).round(3)
KIND = np.array(["left", "right", "up"])[RNG.integers(0, 3, ROWS)]
AGE = RNG.uniform(20, 70, ROWS).round(1)
WEIGHT = RNG.integers(0, 3, ROWS)
SETTINGS = vd.Settings(epochs=3, batch_size=16, warmup_steps=0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    rows = [",".join(map(str, (*x, *rest))) for x, *rest in zip(X.tolist(), KIND, AGE, WEIGHT, strict=True)]
    path.write_text("\n".join(["a,b,c,kind,age,w", *rows]) + "\n")
    return path


def conditional(source: Path) -> vd.data.Dataset:
    return vd.data.load(source, context=["kind", "age"], weight="w")


def trained(x: Any, model: vd.VAE | None = None, **given: Any) -> vd.VAE:
    model = model or vd.recipes.vae(x, latent=2, hidden=(8,), context=given.pop("size", None))
    vd.fit(model, x, settings=SETTINGS, progress=False, **given)
    return model


def same(one: vd.VAE, other: vd.VAE) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(left, right) for left, right in pairs)


def test_columns_train_as_the_same_arrays_do(source: Path) -> None:
    dataset = conditional(source)
    assert dataset.context is not None
    one = trained(dataset)
    other = trained(vd.data.load(source, columns=["a", "b", "c"]), size=4, context=dataset.context, weight=WEIGHT)
    assert same(one, other)
    assert not same(one, trained(vd.data.load(source, context=["kind", "age"], drop="w")))
    assert not same(one, trained(vd.data.load(source, columns=["a", "b", "c"], weight="w"), size=0))


@pytest.mark.parametrize("what", ["context", "weight"])
def test_given_twice_is_refused(what: str, source: Path, tmp_path: Path) -> None:
    dataset = conditional(source)
    for out in (None, tmp_path / "run"):
        with pytest.raises(vd.InputError, match=rf"\A{what} beside data that have their own.*Leave {what}= out"):
            trained(dataset, out=out, **{what: getattr(dataset, what)})
    assert not (tmp_path / "run").exists()


def test_a_model_without_context_says_so(source: Path) -> None:
    with pytest.raises(vd.InputError, match=r"\Aa context of 4 covariates, for a network built for 0"):
        trained(conditional(source), size=0)


@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_run_knows_its_columns(where: str, source: Path, tmp_path: Path) -> None:
    given = source if where == "file" else polars.read_csv(source)
    dataset = vd.data.load(given, columns=["c", "a"], context=["kind", "age"], weight="w", label="kind")
    model = trained(dataset, out=tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert not (run.path / "extras.npz").exists()
    assert (run.path / "data.npz").exists() == (where == "memory")
    kept = run.config.data
    assert (kept.columns, kept.kind, kept.label) == (["c", "a"], "table", "kind")
    assert (kept.context, kept.weight) == (["kind", "age"], "w")
    assert kept.encoding() == dataset.covariates
    again = run.dataset()
    assert again.fingerprint == kept.fingerprint == dataset.fingerprint
    np.testing.assert_array_equal(again.context, dataset.context)
    np.testing.assert_array_equal(again.weight, dataset.weight)
    rows = run.split().test
    batch = batch_of(run, model, again, rows)
    assert batch.context is not None
    assert dataset.context is not None
    np.testing.assert_array_equal(batch.context.numpy(), dataset.context[rows])
    evaluation = score(run, run.model(), again, samples=4)
    direct = vd.evaluate(
        model, model.batch(dataset.x[rows], context=dataset.context[rows], row_id=rows),
        samples=4, key=vd.runs.SCORING.fold("evaluate"),
    )  # fmt: skip
    assert evaluation.elbo == direct.elbo


def test_resumed_with_context_and_weights_bit_for_bit(source: Path, tmp_path: Path) -> None:
    for name, epochs in (("whole", 3), ("parts", 1)):
        dataset = conditional(source)
        model = vd.recipes.vae(dataset, latent=2, hidden=(8,))
        vd.fit(model, dataset, settings=SETTINGS, epochs=epochs, out=tmp_path / name, progress=False)
    vd.resume(tmp_path / "parts", epochs=3, progress=False)
    for file in ("model.safetensors", "checkpoints/last.safetensors"):
        (whole, state), (parts, other) = (checkpoints.read(tmp_path / name / file) for name in ("whole", "parts"))
        assert state == other
        assert all(torch.equal(value, parts[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    ("old", "new"),
    [("left", "up"), ("a,b,c", "a,b,d"), (",2\n", ",1\n"), (f",{AGE[0]},", ",33.3,")],
    ids=["context", "name", "weight", "number"],
)
def test_a_change_of_what_belongs_to_the_rows_is_refused(old: str, new: str, source: Path, tmp_path: Path) -> None:
    trained(conditional(source), out=tmp_path / "run")
    source.write_text(source.read_text().replace(old, new, 1))
    expected = "has changed since the run was made" if new != "a,b,d" else "no column 'c'"
    with pytest.raises(vd.InputError, match=expected):
        vd.resume(tmp_path / "run", epochs=9, progress=False)


def test_new_rows_are_read_as_the_run_read_its_own(source: Path, tmp_path: Path) -> None:
    dataset = conditional(source)
    model = trained(dataset, out=tmp_path / "run")
    run = Run.open(tmp_path / "run")
    order = [3, 0, 4, 1, 2]  # other columns first, no weights, more columns
    lines = [line.split(",") for line in source.read_text().splitlines()[:21]]
    new = tmp_path / "new.csv"
    new.write_text("\n".join(",".join([row[place] for place in order] + ["more"]) for row in lines) + "\n")
    rows = run.read(new)
    assert dataset.context is not None
    np.testing.assert_array_equal(rows.x, dataset.x[:20])
    np.testing.assert_array_equal(rows.context, dataset.context[:20])
    assert (rows.weight, rows.columns) == (None, ("a", "b", "c"))
    batch = batch_of(run, model, rows, np.arange(20), own=False)
    torch.testing.assert_close(
        model.encode(batch), model.encode(dataset.x[:20], context=dataset.context[:20]), rtol=0, atol=0
    )
    new.write_text(source.read_text().replace("left", "down", 1))
    with pytest.raises(vd.InputError, match=r"context 'kind' of new.csv has 'down'.*expected one of left, right, up"):
        run.read(new)
    with pytest.raises(vd.InputError, match="memory has no context 'kind'; expected what the model was trained with"):
        run.read(X)
    other = vd.data.load(source, columns=["a", "b", "c"], context="kind")
    with pytest.raises(vd.InputError, match=r"rows has the context kind, one of 3; expected that of the run"):
        batch_of(run, model, other, np.arange(2), own=False)


def test_contexts_for_samples(source: Path, tmp_path: Path) -> None:
    dataset = conditional(source)
    trained(dataset, out=tmp_path / "run")
    run, covariates = Run.open(tmp_path / "run"), dataset.covariates
    assert covariates is not None
    train = run.split().train
    whole = contexts(run, 3, {"kind": "up", "age": "30"}, vd.Key(0))
    assert whole is not None
    np.testing.assert_array_equal(whole, covariates.encode({"kind": ["up"] * 3, "age": [30.0] * 3}))
    pairs = set(zip(KIND[train].tolist(), AGE[train].tolist(), strict=True))
    for where, allowed in (({}, {"left", "right", "up"}), ({"kind": "left"}, {"left"})):
        drawn = contexts(run, 200, where, vd.Key(0))
        assert drawn is not None
        found = covariates.decode(drawn)
        assert set(found["kind"].tolist()) == allowed
        assert set(zip(found["kind"].tolist(), found["age"].tolist(), strict=True)) <= pairs
        again = contexts(run, 7, where, vd.Key(0))  # a row's context depends on the key and its number
        np.testing.assert_array_equal(again, drawn[:7])
    counts = {kind: int((KIND[train] == kind).sum()) for kind in ("left", "right", "up")}
    many = contexts(run, 4000, {}, vd.Key(1))
    assert many is not None
    for place, kind in enumerate(("left", "right", "up")):
        share = counts[kind] / len(train)
        assert abs(many[:, place].mean() - share) < 4 * np.sqrt(share * (1 - share) / 4000)
    source.unlink()
    whole_again = contexts(run, 3, {"kind": "up", "age": "30"}, vd.Key(0))
    np.testing.assert_array_equal(whole_again, whole)
    with pytest.raises(
        vd.InputError, match=r"no such file.*expected a value of every context column.*--where age=VALUE"
    ):
        contexts(run, 3, {"kind": "up"}, vd.Key(0))


def test_context_given_as_an_array_is_drawn_from_the_run_folder(source: Path, tmp_path: Path) -> None:
    context = np.arange(ROWS)[:, None].astype(float)
    trained(X, size=1, context=context, out=tmp_path / "run")
    run = Run.open(tmp_path / "run")
    drawn = contexts(run, 50, {}, vd.Key(0))
    assert drawn is not None
    assert set(drawn[:, 0].astype(int)) <= set(run.split().train.tolist())
    with pytest.raises(vd.InputError, match="has no context columns"):
        contexts(run, 3, {"age": "1"}, vd.Key(0))
    with pytest.raises(vd.InputError, match="comes without the context that the model was trained with"):
        batch_of(run, run.model(), run.read(X[:9]), np.arange(9), own=False)
    assert batch_of(run, run.model(), run.dataset(), np.arange(9)).context is not None


def test_pytorch_data_sets_train(tmp_path: Path) -> None:
    x, y = torch.tensor(X), torch.tensor(WEIGHT)
    one, other = trained(TensorDataset(x, y), out=tmp_path / "run"), trained(X)
    assert same(one, other)
    run = Run.open(tmp_path / "run")
    np.testing.assert_array_equal(run.dataset().labels, WEIGHT)
    masked = vd.recipes.vae(X, latent=2, hidden=(8,))
    vd.fit(masked, TensorDataset(x), mask=X > -1, settings=SETTINGS, progress=False)
    given = vd.data.load(TensorDataset(x, y), context="y")
    model = trained(given, out=tmp_path / "conditional")
    again = Run.open(tmp_path / "conditional").dataset()
    np.testing.assert_array_equal(again.context, given.context)
    assert given.covariates is not None
    drawn = model.sample(2, vd.Key(0), given.covariates.encode({"y": [1, 2]}))
    assert drawn.shape == (2, 3)
