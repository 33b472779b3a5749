"""The studio's desk on tables, missing cells, one latent, contexts, other posteriors, and runs whose data have gone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from studio.desk_cases import quiet, trained

import vaelid as vd
from vaelid import geometry, runs
from vaelid.errors import InputError
from vaelid.evidence import bracket, posterior
from vaelid.fitted import PerDatum
from vaelid.model import VAE
from vaelid.runs import Run
from vaelid.serving.wire import pack
from vaelid.studio import Desk, inference, latents
from vaelid.studio.columns import LEGEND

ROWS = 120


def numbers():
    """Five features of which two go together."""
    x = vd.Key(3).normal((ROWS, 5)).numpy()
    x[:, 1] = 2 * x[:, 0] + 0.1 * x[:, 1]
    return x


def text(names=None):
    """A table with two features, a kind, an age and a name for each row."""
    x, lines = numbers(), ["a,b,kind,age,name"]
    for row in range(ROWS):
        name = f"name {row % 60:02}" if names is None else names[row]
        lines.append(f"{x[row, 0]:.3f},{x[row, 1]:.3f},{'up' if x[row, 0] > 0 else 'down'},{20 + row / 3:.1f},{name}")
    return "\n".join(lines) + "\n"


def opened(path):
    desk = Desk([path])
    return desk, desk.open(0)


def everything(desk, number):
    """Every answer about a run, all of which can be sent."""
    frame = desk.plane("dims", 0, 1)["frame"]
    answers = {
        "cell": desk.cell(0.1, 0.2),
        "volume": desk.volume(frame, 8, progress=quiet()),
        "row": desk.row(number),
        "thumbnails": desk.thumbnails([number]),
        "ellipses": desk.ellipses([number]),
        "posterior": desk.posterior(number, progress=quiet()),
        "evidence": desk.evidence(number, progress=quiet()),
        "geodesic": desk.geodesic(number, [0.1, 0.2], progress=quiet()),
        "dimensions": desk.dimensions(),
        "traversal": desk.traversal(0, number),
        "sample": desk.sample(3, 1),
        "table": desk.table([number]),
    }
    for answer in answers.values():
        assert pack({"id": 1, "ok": answer})
    return answers


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(inference, "DISTRIBUTIONS", (2,))
    monkeypatch.setattr(inference, "DRAWS", 20)


# ---------------------------------------------------------------- tables


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """Three latents; a fifth of the cells was not observed, and holds what is no number."""
    mask = (vd.Key(4).uniform((ROWS, 5)) > 0.2).numpy()
    mask[7] = [True, False, True, False, True]
    folder = tmp_path_factory.mktemp("masked")
    return trained(folder / "run", np.where(mask, numbers(), 0).astype(np.float32), mask=mask, latent=3), mask


def test_a_table_with_missing_cells(masked):
    path, mask = masked
    desk, about = opened(path)
    assert (about["kind"], about["shape"], about["features"]) == ("table", None, ["x0", "x1", "x2", "x3", "x4"])
    assert [each["name"] for each in about["columns"]] == ["split", "x0", "x1", "x2", "x3", "x4", "KL"]
    row = desk.row(7)
    assert row["missing"] == (~mask[7]).tolist()
    np.testing.assert_array_equal(np.isnan(row["x"]), ~mask[7])
    np.testing.assert_allclose(row["x"][mask[7]], numbers()[7][mask[7]], rtol=1e-6)
    assert row["names"] == about["features"]
    run, model = desk.view.subject.run, desk.view.subject.model
    batch = runs.batch_of(run, model, run.dataset(), np.array([7]))
    assert not batch.mask.all()
    np.testing.assert_allclose(row["reconstruction"], model.reconstruct(batch)[0], rtol=1e-5)
    np.testing.assert_allclose(row["z"], model.encode(batch)[0], rtol=1e-5)
    values = desk.colour("x2")["values"]
    np.testing.assert_array_equal(np.isnan(values), ~mask[:, 2])
    _, cells = desk.drag(0.1, 0.2)
    assert cells.dtype == np.float32
    assert cells.shape == (5,)
    with pytest.raises(InputError, match="a lattice of rows of a table"):
        desk.lattice([0.0, 0.0, 1.0, 1.0], 2, 2)


def test_neighbours_where_cells_are_missing(masked):
    path, mask = masked
    desk, _ = opened(path)
    x = np.ma.array(numbers(), mask=~mask) / np.ma.array(numbers(), mask=~mask).std(0)
    square = np.ma.mean((x - x[7]) ** 2, axis=1) * 5
    distances = np.sqrt(square.filled(np.inf))
    distances[7] = np.inf
    found = desk.row(7)["neighbours"]["data"]
    assert [each["row"] for each in found] == distances.argsort()[:8].tolist()
    np.testing.assert_allclose([each["distance"] for each in found], np.sort(distances)[:8], rtol=1e-4)


def test_everything_of_a_table(masked):
    answers = everything(opened(masked[0])[0], 7)
    assert answers["geodesic"]["strips"]["geodesic"].shape == (11, 5)
    assert answers["geodesic"]["names"] == ["x0", "x1", "x2", "x3", "x4"]
    assert answers["traversal"]["cells"].shape == (11, 5)
    assert answers["sample"]["values"].shape == (3, 5)
    assert answers["posterior"]["kind"] == "samples"


def test_columns_of_a_file(tmp_path):
    source = tmp_path / "t.csv"
    source.write_text(text())
    data = vd.data.load(source, label="name", context=["kind", "age"])
    desk, about = opened(trained(tmp_path / "run", data, latent=2))
    kinds = {each["name"]: each["kind"] for each in about["columns"]}
    assert kinds == {
        "name": "category",
        "split": "category",
        "a": "number",
        "b": "number",
        "kind": "category",
        "age": "number",
        "KL": "number",
    }
    assert about["context"].startswith("kind = ")
    names = desk.colour("name")
    assert len(names["names"]) == LEGEND
    assert names["names"][-1] == "other (21 categories)"
    assert sum(names["counts"]) == ROWS
    assert names["counts"] == np.bincount(names["codes"]).tolist()
    np.testing.assert_allclose(desk.colour("age")["values"], 20 + np.arange(ROWS) / 3, atol=0.06)
    kind = desk.colour("kind")
    np.testing.assert_array_equal(np.array(kind["names"])[kind["codes"]] == "up", numbers()[:, 0] > 0)
    row = desk.row(5)
    assert row["label"] == "name 05"
    assert row["context"].startswith("kind = ")
    everything(desk, 5)


def test_other_columns_do_not_take_the_names_of_the_studio(tmp_path):
    x = numbers()
    source = tmp_path / "t.csv"
    source.write_text("split,KL\n" + "\n".join(f"{a:.3f},{b:.3f}" for a, b in x[:, :2]) + "\n")
    desk, about = opened(trained(tmp_path / "run", source, latent=1))
    assert [each["name"] for each in about["columns"]] == ["split of the run", "split", "KL", "KL of the run"]
    np.testing.assert_allclose(desk.colour("split")["values"], x[:, 0], atol=1e-3)
    assert desk.colour("split of the run")["kind"] == "category"


# ---------------------------------------------------------------- one latent, contexts, other posteriors


def test_one_latent(tmp_path):
    desk, about = opened(trained(tmp_path / "run", numbers(), latent=1))
    assert [plane["name"] for plane in about["planes"]] == ["the line of z0"]
    found = desk.plane("dims", 0, 0)
    assert not found["slice"]
    assert (found["points"][:, 1] == 0).all()
    answers = everything(desk, 5)
    assert answers["volume"]["values"].shape == (1, 8)
    x0, _, x1, _ = found["frame"]
    z = torch.tensor([[x0 + (x1 - x0) * 2.5 / 8]])
    f = geometry.embedding(desk.view.subject.model)
    assert answers["volume"]["values"][0, 2] == pytest.approx(float(geometry.log_volume(f, z)), abs=1e-4)
    assert (answers["geodesic"]["path"][:, 1] == 0).all()
    assert answers["geodesic"]["length"] == pytest.approx(answers["geodesic"]["straight_length"], rel=1e-3)
    assert (answers["posterior"]["points"][:, 1] == 0).all()
    assert answers["ellipses"]["axes"][0, 0, 0] == pytest.approx(answers["row"]["sd"][0], rel=1e-5)
    assert desk.drag(0.3, 5.0)[0] == desk.drag(0.3, 0.0)[0]


def test_a_conditional_model_is_looked_at_given_a_typical_context(tmp_path):
    data = vd.data.load("digits", context="digit")
    desk, about = opened(trained(tmp_path / "run", data, latent=2))
    subject = desk.view.subject
    run, model = subject.run, subject.model
    typical = torch.from_numpy(runs.typical_context(run, run.dataset(), np.arange(1797)))[None]
    assert about["context"] == runs.context_in_words(data, typical[0].numpy())
    with torch.no_grad():
        mean = model.decode(torch.tensor([[0.3, 0.4]]), typical).mean
    np.testing.assert_allclose(desk.cell(0.3, 0.4)["values"], mean.flatten(), rtol=1e-5)
    batch = runs.batch_of(run, model, run.dataset(), np.array([4]))
    row = desk.row(4)
    assert row["context"] == "digit = 4"
    white = (model.reconstruct(batch)[0, 0] * 255 / 16 + 0.5).to(torch.uint8).numpy()
    assert np.abs(row["reconstruction"][:, :, 0].astype(int) - white).max() <= 1
    answers = everything(desk, 4)
    sides = bracket(model, batch, distributions=2, key=vd.Key(0).fold("studio").fold("bracket", 2))
    assert answers["evidence"]["lower"] == pytest.approx(float(sides.lower), rel=1e-6)
    assert answers["evidence"]["upper_kind"] == sides.upper_kind[0]
    f = geometry.embedding(model, typical[0])
    path = torch.from_numpy(answers["geodesic"]["path"])[None]
    assert answers["geodesic"]["length"] == pytest.approx(float(geometry.length(f, path)), rel=1e-3)


@pytest.mark.parametrize("name", ["planar", "iaf", "mixture", "full-normal"])
def test_other_posteriors(tmp_path, name):
    desk, about = opened(trained(tmp_path / "run", numbers(), latent=2, posterior=name))
    answers = everything(desk, 5)
    assert answers["ellipses"]["approximate"] == answers["row"]["sd_exact"] ^ True
    assert answers["row"]["sd_exact"] == (name == "full-normal")
    assert (about["kl"] is None) == (name != "full-normal")
    assert (answers["posterior"]["log_q"] is None) == (name == "planar")
    if name == "planar":
        assert answers["posterior"]["said"] == "q(z|x) of this model has no density at given z."
    else:
        assert answers["posterior"]["kl"] > 0
    desk_model = desk.view.subject.model
    batch = runs.batch_of(desk.view.subject.run, desk_model, desk.view.subject.data, np.array([5]))
    problem = desk_model.given(batch)
    with torch.no_grad():
        z, _ = problem.start.push(vd.Key(9).normal((4000, 1, 2)))
    covariance = answers["ellipses"]["axes"][0] @ answers["ellipses"]["axes"][0].T
    np.testing.assert_allclose(covariance, np.cov(z[:, 0].T.numpy()), atol=0.2 * np.trace(covariance))


def test_draws_where_q_has_no_inverse(tmp_path):
    desk, _ = opened(trained(tmp_path / "run", numbers(), latent=3, posterior="planar"))
    found, subject = desk.posterior(5, progress=quiet()), desk.view.subject
    batch = runs.batch_of(subject.run, subject.model, subject.data, np.array([5]))
    drawn = posterior(
        subject.model, batch, samples=20, chains=4, key=vd.Key(0).fold("studio").fold("posterior"), start="posterior"
    )
    np.testing.assert_allclose(found["points"], desk.view.plane.feet(drawn.z[:, 0].double().numpy()), atol=1e-5)


def test_a_model_without_an_encoder_shows_few_rows(tmp_path, monkeypatch):
    path = trained(tmp_path / "run", numbers(), latent=2)
    whole = Run.open(path).model()
    fitted = VAE(whole.prior, whole.likelihood, PerDatum(steps=3, draws=4))
    monkeypatch.setattr(Run, "model", lambda *_: fitted)
    monkeypatch.setattr(latents, "_FITTED", 30)
    desk, about = opened(path)
    assert (about["rows"], about["shown"], about["posterior"]) == (ROWS, 30, "per datum")
    assert about["sample"] == f"30 of {ROWS} rows, a sample"
    everything(desk, int(desk.plane("dims", 0, 1)["rows"][0]))
    unseen = next(row for row in range(ROWS) if row not in desk.plane("dims", 0, 1)["rows"])
    assert desk.row(unseen)["row"] == unseen


# ---------------------------------------------------------------- samples, and data that have gone


def test_a_sample_is_stratified(tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "_FEWEST", 200)
    monkeypatch.setattr(latents, "_WORK", 1.0)
    data = vd.data.load("digits")
    desk, about = opened(trained(tmp_path / "run", data, latent=2))
    assert about["sample"] == "200 of 1,797 rows, a sample stratified by digit"
    counts = np.array(desk.colour("digit")["counts"])
    assert np.abs(counts - np.bincount(data.labels) * 200 / 1797).max() < 1
    number = next(row for row in range(1797) if row not in desk.plane("dims", 0, 1)["rows"])
    table = desk.table([number])["csv"].splitlines()[1].split(",")
    np.testing.assert_allclose([float(cell) for cell in table[1:3]], desk.row(number)["z"], rtol=1e-5)


def test_how_many_rows_are_shown_depends_on_what_encoding_takes():
    order = latents.stratified(None, 1000, 10)
    assert len(np.unique(order)) == 10
    assert (latents.stratified(None, 10, 10) == np.arange(10)).all()
    labels = np.repeat(["a", "b"], [900, 100])
    assert np.bincount((labels[latents.stratified(labels, 1000, 50)] == "b").astype(int)).tolist() == [45, 5]


@pytest.mark.parametrize("context", [None, ["kind", "age"]])
def test_data_that_have_gone(tmp_path, context):
    source = tmp_path / "t.csv"
    source.write_text(text())
    data = vd.data.load(source, label="name", context=context, drop=None if context else ["kind", "age"])
    path = trained(tmp_path / "run", data, latent=2)
    source.unlink()
    desk, about = opened(path)
    assert "t.csv" in about["gone"]
    assert (about["rows"], about["shown"], about["kl"], about["features"]) == (0, 0, None, ["a", "b"])
    assert about["columns"] == []
    found = desk.plane("dims", 0, 1)
    assert found["points"].shape == (0, 2)
    assert found["frame"] == [-3.5, -3.5, 3.5, 3.5]
    far, cells = desk.drag(0.1, 0.2)
    assert np.isnan(far)
    assert cells.shape == (2,)
    assert desk.cell(0.1, 0.2)["names"] == ["a", "b"]
    assert desk.sample(3, 0)["values"].shape == (3, 2)
    assert desk.volume([-1.0, -1.0, 1.0, 1.0], 8, progress=quiet())["values"].shape == (8, 8)
    assert desk.geodesic([0.0, 0.0], [1.0, 1.0], progress=quiet())["converged"]
    assert desk.traversal(0)["cells"].shape == (11, 2)
    assert pack({"id": 1, "ok": desk.dimensions()})
    for ask in (lambda: desk.row(3), lambda: desk.thumbnails([3]), lambda: desk.table([3]), lambda: desk.ellipses([3])):
        with pytest.raises(InputError, match="has no rows to show") as told:
            ask()
        assert "\n" not in str(told.value)
    with pytest.raises(InputError, match="has no rows to show"):
        desk.evidence(3, progress=quiet())


def test_data_that_have_changed(tmp_path):
    source = tmp_path / "t.csv"
    source.write_text(text())
    path = trained(tmp_path / "run", vd.data.load(source, drop=["kind", "age", "name"]), latent=2)
    source.write_text(text().replace("0.", "1."))
    desk, about = opened(path)
    assert "has changed" in about["gone"]
    with pytest.raises(InputError, match="has changed"):
        desk.row(3)
