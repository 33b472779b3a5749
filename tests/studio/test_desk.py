"""The studio's desk on pictures of two and of eight latents: each answer is the library's own."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
import torch
from studio.desk_cases import heard, leaving, quiet, trained

import vaelid as vd
from vaelid import geometry, runs
from vaelid.errors import InputError
from vaelid.evidence import bracket, importance, posterior, quadrature
from vaelid.runs import Run
from vaelid.serving import Cancelled
from vaelid.serving.desks import arguments
from vaelid.studio import Desk, inference, latents

KEY = vd.Key(0).fold("studio")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder, digits = tmp_path_factory.mktemp("runs"), vd.data.load("digits")
    return [trained(folder / f"digits-{latent}", digits, latent=latent, epochs=3) for latent in (2, 8)]


@pytest.fixture(scope="module")
def two(paths):
    desk = Desk(paths)
    desk.open(0)
    return desk


@pytest.fixture(scope="module")
def eight(paths):
    desk = Desk(paths)
    desk.open(1)
    return desk


@pytest.fixture(autouse=True)
def _first_plane(two, eight):
    two.plane("dims", 0, 1)
    eight.plane("pca")


def parts(desk):
    """Run, model and data set of a desk."""
    return desk.view.subject.run, desk.view.subject.model, desk.view.subject.data


def one(desk, number):
    """A row as the run's model takes it."""
    return runs.batch_of(*parts(desk), np.array([number]))


def at(desk, x, y):
    """z of a point of the plane, as a tensor of the model's."""
    return torch.from_numpy(desk.view.plane.latent(np.array([[x, y]]))).float()


def pixels(values, white=16):
    """Bytes of values (n, 1, 8, 8) from 0 to white."""
    return (values * (255 / white) + 0.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


# ---------------------------------------------------------------- runs and planes


def test_runs_are_listed_with_what_is_wrong(paths, tmp_path):
    (tmp_path / "empty").mkdir()
    found = Desk([paths[0], tmp_path / "none", tmp_path / "empty"]).runs()["runs"]
    assert [each["ok"] for each in found] == [True, False, False]
    assert [each["name"] for each in found] == ["digits-2", "none", "empty"]
    assert "no run folder" in found[1]["error"]
    assert "lacks config.toml" in found[2]["error"]


def test_nothing_is_answered_before_a_run_is_open(paths):
    desk = Desk(paths)
    for ask in (lambda: desk.row(3), lambda: desk.drag(0, 0), lambda: desk.plane("pca"), desk.dimensions):
        with pytest.raises(InputError, match="no run is open"):
            ask()
    with pytest.raises(InputError, match="run 2; expected one from 0 to 1"):
        desk.open(2)


def test_what_a_run_is(two, paths):
    found = two.open(0)
    assert (found["kind"], found["shape"], found["latent"], found["features"]) == ("image", [8, 8, 1], 2, None)
    assert (found["rows"], found["shown"], found["sample"], found["gone"]) == (1797, 1797, None, "")
    assert (found["likelihood"], found["prior"], found["posterior"]) == (
        "binomial",
        "standard normal",
        "diagonal normal",
    )
    assert (found["expected"], found["context"], found["label"]) == ("E[x|z]", "", "digit")
    assert found["columns"] == [
        {"name": "digit", "kind": "category"},
        {"name": "split", "kind": "category"},
        {"name": "KL", "kind": "number"},
    ]
    assert [plane["slice"] for plane in found["planes"]] == [False]


def test_points_are_latent_means(two):
    found = two.plane("dims", 0, 1)
    run, model, data = parts(two)
    z = runs.latent_means(run, model, data, np.arange(data.rows)).numpy()
    np.testing.assert_allclose(found["points"], z, atol=1e-5)
    np.testing.assert_array_equal(found["rows"], data.row_id)
    assert found["said"] == ""
    assert found["points"].dtype == np.float32
    assert found["rows"].dtype == np.int32
    x0, y0, x1, y1 = found["frame"]
    assert (found["points"] > [x0, y0]).all()
    assert (found["points"] < [x1, y1]).all()
    turned = two.plane("dims", 1, 0)
    np.testing.assert_array_equal(turned["points"], found["points"][:, ::-1])
    assert turned["axes"] == ["z1", "z0"]


def test_a_slice_is_called_one(eight):
    found, z = eight.plane("dims", 5, 2), eight.view.subject.latents.z
    assert found["slice"]
    assert found["said"] == "A slice of 8 dimensions: z5 and z2; the other 6 are held at the mean of the latent means."
    np.testing.assert_allclose(found["points"], z[:, [5, 2]], rtol=1e-6)
    held = eight.view.plane.latent(np.array([[3.0, -4.0]]))[0]
    np.testing.assert_allclose(held[[5, 2]], [3, -4])
    np.testing.assert_allclose(np.delete(held, [5, 2]), np.delete(z.mean(0), [5, 2]))


def test_the_plane_of_largest_variance(eight):
    found, z = eight.plane("pca"), eight.view.subject.latents.z
    from sklearn.decomposition import PCA

    pca = PCA(2).fit(z)
    plane = eight.view.plane
    np.testing.assert_allclose(np.abs(plane.axes @ pca.components_.T), np.eye(2), atol=1e-6)
    np.testing.assert_allclose(plane.share, pca.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(found["points"].std(0) ** 2, pca.explained_variance_, rtol=1e-2)
    assert found["said"].startswith("A slice of 8 dimensions: the plane in which latent means vary most (")
    np.testing.assert_allclose(plane.feet(plane.latent(found["points"][:5])), found["points"][:5], atol=1e-5)


def test_planes_that_are_none(two, eight):
    for desk, kind, i, j in ((two, "dims", 0, 2), (two, "dims", 1, 1), (eight, "dims", 8, 0), (two, "pca", 0, 1)):
        with pytest.raises(InputError):
            desk.plane(kind, i, j)
    offered = eight.open(1)["planes"]
    assert [offered[0]["kind"], offered[0]["share"] is not None] == ["pca", True]
    assert len(offered) == 1 + 15
    assert all(plane["slice"] for plane in offered)


# ---------------------------------------------------------------- colours


def test_categories_are_complete(two):
    found, labels = two.colour("digit"), parts(two)[2].labels
    assert found["names"] == [str(digit) for digit in range(10)]
    np.testing.assert_array_equal(found["codes"], labels)
    assert found["counts"] == np.bincount(labels).tolist()
    split = two.colour("split")
    assert split["names"] == ["train", "validation", "test"]
    kept = parts(two)[0].split()
    assert split["counts"] == [len(kept.train), len(kept.validation), len(kept.test)]
    assert (split["codes"][kept.test] == 2).all()


def test_kl_of_every_row(two):
    run, model, data = parts(two)
    rate = importance(model, runs.batch_of(run, model, data, np.arange(50)), 2, vd.Key(0)).rate
    found = two.colour("KL")
    np.testing.assert_allclose(found["values"][:50], rate.numpy(), rtol=1e-4)
    assert found["low"] == found["values"].min()
    with pytest.raises(InputError, match="Did you mean 'digit'"):
        two.colour("digits")


# ---------------------------------------------------------------- the map


def test_drag_decodes(two, eight):
    for desk in (two, eight):
        model = desk.view.subject.model
        far, picture = desk.drag(0.3, -0.7)
        with torch.no_grad():
            mean = model.decode(at(desk, 0.3, -0.7)).mean
        assert picture.shape == (8, 8, 1)
        assert np.abs(picture.astype(int) - pixels(mean)[0]).max() <= 1  # a rounding
        z = desk.view.subject.latents.z
        nearest = np.linalg.norm(z - at(desk, 0.3, -0.7).numpy(), axis=1).min()
        others = np.linalg.norm(z[:, None] - z[None], axis=2)
        np.fill_diagonal(others, np.inf)
        assert far == pytest.approx(nearest / np.percentile(others.min(1), 99), rel=1e-4)
        cell = desk.cell(0.3, -0.7)
        np.testing.assert_allclose(cell["values"], mean.flatten(), rtol=1e-5)
        np.testing.assert_allclose(cell["z"], at(desk, 0.3, -0.7)[0], rtol=1e-5)
        assert cell["far"] == pytest.approx(far, rel=1e-5)
        assert desk.drag(100, 100)[0] > 1


def test_no_row_is_far_from_itself(two):
    points = two.view.points[:20].astype(float)
    assert max(two.drag(x, y)[0] for x, y in points.tolist()) < 1e-3


def test_what_is_far_in_many_dimensions_needs_no_tree():
    z = vd.Key(1).normal((300, 12), dtype=torch.float64).numpy() + 5
    near = latents.Near.of(z)
    assert near.tree is None
    wanted = z[:7] + 0.3
    d = np.linalg.norm(wanted[:, None] - z[None], axis=2)
    found, places = near.neighbours(wanted, 4)
    np.testing.assert_array_equal(places, d.argsort(1)[:, :4])
    np.testing.assert_allclose(found, np.sort(d, 1)[:, :4])
    np.testing.assert_allclose(near.distance(wanted), d.min(1) / near.far, rtol=1e-4)


def test_lattice(two):
    found = two.lattice([-1.0, -2.0, 1.0, 2.0], across=3, down=2)
    assert found["tiles"].shape == (2, 3, 8, 8, 1)
    assert found["far"].shape == (2, 3)
    for row, y in enumerate((-1.0, 1.0)):
        for column, x in enumerate((-2 / 3, 0.0, 2 / 3)):
            far, picture = two.drag(x, y)
            assert np.abs(found["tiles"][row, column].astype(int) - picture).max() <= 1
            assert found["far"][row, column] == pytest.approx(far, rel=1e-4)
    with pytest.raises(InputError, match="the frame"):
        two.lattice([1.0, 0.0, 1.0, 2.0], 2, 2)


@pytest.mark.parametrize("which", ["two", "eight"])
def test_volume(which, request):
    desk = request.getfixturevalue(which)
    partials, progress = heard()
    found = desk.volume([-1.0, -2.0, 1.0, 2.0], 40, progress=progress)
    values, plane = found["values"], desk.view.plane
    assert values.shape == (40, 40)
    np.testing.assert_array_equal(np.concatenate([each["values"] for each in partials]), values)
    assert [each["first"] for each in partials] == list(range(0, 40, 6))
    x, y = -1 + 2 * (7 + 0.5) / 40, -2 + 4 * (31 + 0.5) / 40
    metric = geometry.metric(geometry.embedding(desk.view.subject.model), at(desk, x, y))[0].double().numpy()
    assert values[31, 7] == pytest.approx(0.5 * np.linalg.slogdet(plane.axes @ metric @ plane.axes.T)[1], abs=1e-3)
    assert ("of the slice" in found["said"]) == (which == "eight")


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize("which", ["two", "eight"])
def test_a_row(which, request):
    desk = request.getfixturevalue(which)
    found, batch, (_, model, data) = desk.row(17), one(desk, 17), parts(desk)
    with torch.no_grad():
        q = model.given(batch).start
    np.testing.assert_allclose(found["z"], q.loc[0], rtol=1e-5)
    np.testing.assert_allclose(found["sd"], q.scale[0], rtol=1e-5)
    np.testing.assert_allclose(found["point"], desk.view.plane.feet(q.loc.double().numpy())[0], rtol=1e-4)
    assert found["sd_exact"]
    assert np.abs(found["x"].astype(int) - pixels(batch.x)[0]).max() <= 1
    assert np.abs(found["reconstruction"].astype(int) - pixels(model.reconstruct(batch))[0]).max() <= 1
    assert (found["row"], found["label"], found["missing"], found["context"]) == (17, data.labels[17], None, "")
    terms = importance(model, batch, 64, KEY.fold("row"))
    for name, value in (("elbo", terms.elbo), ("log_likelihood", terms.reconstruction), ("kl", terms.rate)):
        assert found[name] == pytest.approx(float(value), rel=1e-6)
    np.testing.assert_allclose(sum(found["kl_cells"]), found["kl"], rtol=1e-6)


def test_neighbours(two):
    found, (_, _, data) = two.row(17)["neighbours"], parts(two)
    for space, places in (
        ("latent", two.view.subject.latents.z),
        ("data", data.x.reshape(len(data.x), -1).astype(float)),
    ):
        d = np.linalg.norm(places - places[17], axis=1)
        d[17] = np.inf
        nearest = d.argsort()[:8]
        np.testing.assert_allclose([each["distance"] for each in found[space]], d[nearest], rtol=1e-4)
        assert 17 not in [each["row"] for each in found[space]]
        assert [each["label"] for each in found[space]] == [data.labels[each["row"]] for each in found[space]]


def test_a_row_that_is_none(two):
    for ask in (two.row, lambda row: two.thumbnails([3, row]), lambda row: two.table([row])):
        with pytest.raises(InputError, match="has no row 5000"):
            ask(5000)


def test_thumbnails(two):
    batch = runs.batch_of(*parts(two), np.array([5, 3]))
    np.testing.assert_array_equal(two.thumbnails([5, 3])["tiles"], pixels(batch.x))


@pytest.mark.parametrize("which", ["two", "eight"])
def test_ellipses(which, request):
    desk = request.getfixturevalue(which)
    found, plane, model = desk.ellipses([4, 9]), desk.view.plane, desk.view.subject.model
    with torch.no_grad():
        q = model.given(runs.batch_of(*parts(desk), np.array([4, 9]))).start
    covariance = plane.axes @ torch.diag_embed(q.scale.double().square()).numpy() @ plane.axes.T
    np.testing.assert_allclose(found["axes"] @ found["axes"].transpose(0, 2, 1), covariance, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["centre"], plane.feet(q.loc.double().numpy()), rtol=1e-4, atol=1e-6)
    lengths = np.linalg.norm(found["axes"], axis=1)
    assert (lengths[:, 0] >= lengths[:, 1]).all()
    assert not found["approximate"]
    np.testing.assert_allclose(desk.row(9)["ellipse"], found["axes"][1], rtol=1e-4, atol=1e-6)


def test_table(two):
    found = two.table([9, 4])
    lines = list(csv.reader(io.StringIO(found["csv"])))
    assert lines[0] == found["columns"] == ["row", "z0", "z1", "digit"]
    z, labels = two.view.subject.latents.z, parts(two)[2].labels
    for line, number in zip(lines[1:], (9, 4), strict=True):
        assert [int(line[0]), int(line[3])] == [number, labels[number]]
        np.testing.assert_allclose([float(cell) for cell in line[1:3]], z[number], rtol=1e-8)


# ---------------------------------------------------------------- inference


def test_the_posterior_on_a_grid(two):
    found, model, batch = two.posterior(17, progress=quiet()), two.view.subject.model, one(two, 17)
    whole = quadrature(model, batch)
    with torch.no_grad():
        q = model.given(batch).start
    kl, error = whole.kl(q)
    assert found["kind"] == "grid"
    assert found["log_evidence"] == pytest.approx(float(whole.log_evidence), abs=1e-6)
    assert [found["kl"], found["kl_error"]] == pytest.approx([float(kl), float(error)], rel=1e-6)
    assert found["error"] == float(whole.error)
    x0, y0, x1, y1 = found["frame"]
    cell = (x1 - x0) * (y1 - y0) / 120**2
    for name in ("log_posterior", "log_q"):
        assert found[name].shape == (120, 120)
        assert np.exp(found[name].astype(float)).sum() * cell == pytest.approx(1, abs=1e-3)
    x, y = x0 + (x1 - x0) * 70.5 / 120, y0 + (y1 - y0) * 50.5 / 120
    point = torch.tensor([[[x, y]]])
    with torch.no_grad():
        joint = float(model.given(batch).log_joint(point)) - found["log_evidence"]
        assert found["log_posterior"][50, 70] == pytest.approx(joint, abs=1e-3)
        assert found["log_q"][50, 70] == pytest.approx(float(q.log_prob(point)), abs=1e-3)


def test_the_posterior_on_the_frame_that_is_seen(two):
    frame = [-3.0, -1.0, 3.0, 2.0]
    straight = two.posterior(17, frame=frame, side=30, progress=quiet())
    two.plane("dims", 1, 0)
    turned = two.posterior(17, frame=[-1.0, -3.0, 2.0, 3.0], side=30, progress=quiet())
    np.testing.assert_allclose(turned["log_posterior"], straight["log_posterior"].T, atol=1e-4)
    assert turned["log_evidence"] == straight["log_evidence"]
    assert straight["frame"] == frame


def test_draws_from_the_posterior(eight, monkeypatch):
    monkeypatch.setattr(inference, "DRAWS", 40)
    found = eight.posterior(17, progress=quiet())
    drawn = posterior(eight.view.subject.model, one(eight, 17), samples=40, chains=4, key=KEY.fold("posterior"))
    points = eight.view.plane.feet(drawn.z[:, 0].double().numpy())
    assert found["kind"] == "samples"
    np.testing.assert_allclose(found["points"], points, atol=1e-4)
    assert found["r_hat"] == pytest.approx(float(drawn.worst_r_hat), rel=1e-4)
    assert found["ess"] == pytest.approx(float(drawn.worst_ess), rel=1e-4)
    assert "slice" in found["said"]


def test_evidence(two, monkeypatch):
    monkeypatch.setattr(inference, "DISTRIBUTIONS", (2, 4))
    partials, progress = heard()
    found, model, batch = two.evidence(17, progress=progress), two.view.subject.model, one(two, 17)
    assert [each["stage"] for each in partials] == ["importance sampling"] * 3 + ["bracket"] * 2
    assert [each["samples"] for each in partials] == [64, 256, 1024, 1024, 1024]
    assert partials[-1] == found
    for each in partials[:3]:
        key = KEY.fold("importance", each["samples"])
        terms = importance(model, batch, each["samples"], key)
        wanted = [terms.elbo, terms.reconstruction, terms.rate, terms.log_evidence, terms.mc_se]
        names = ["elbo", "reconstruction", "kl", "iwae", "iwae_se"]
        assert [each[name] for name in names] == pytest.approx([float(value) for value in wanted], rel=1e-6)
        assert each["lower"] is None
        with torch.no_grad():
            problem = model.given(batch)
            likelihood = problem.trace(problem.noise(key, each["samples"])).log_likelihood
        assert each["elbo_se"] == pytest.approx(float(likelihood.std()) / math.sqrt(each["samples"]), rel=1e-4)
    for each, count in zip(partials[3:], (2, 4), strict=True):
        last = count == 4
        sides = bracket(model, batch, distributions=count, key=KEY.fold("bracket", count), simulated=32 if last else 0)
        assert [each["lower"], each["upper"]] == pytest.approx([float(sides.lower), float(sides.upper)], rel=1e-6)
        assert [each["lower_kind"], each["upper_kind"]] == [sides.lower_kind, sides.upper_kind[0]]
        assert each["notes"] == list(sides.notes)
        assert any("simulated" in note for note in each["notes"]) == last
        assert each["elbo"] == partials[2]["elbo"]


@pytest.mark.parametrize("which", ["two", "eight"])
def test_geodesics(which, request):
    desk = request.getfixturevalue(which)
    desk_model, plane = desk.view.subject.model, desk.view.plane
    end = [0.5, -0.5]
    found = desk.geodesic(17, end, progress=quiet())
    f = geometry.embedding(desk_model)
    for name, length in (("path", found["length"]), ("straight", found["straight_length"])):
        path = torch.from_numpy(plane.latent(found[name].astype(float))).float()[None]
        assert length == pytest.approx(float(geometry.length(f, path)), rel=1e-3)
        np.testing.assert_allclose(found[name][-1], end, atol=1e-6)
        np.testing.assert_allclose(found[name][0], desk.row(17)["point"], atol=1e-5)
    again = geometry.geodesic(
        desk.view.metric,
        torch.tensor([desk.row(17)["point"]]).float(),
        torch.tensor([end]),
        graph=desk.view.graph,
    )
    assert found["length"] == pytest.approx(float(again.length), rel=1e-4)
    assert found["energy"] == pytest.approx(float(again.energy), rel=1e-4)
    assert found["converged"] == bool(again.converged)
    assert found["length"] <= found["straight_length"] * 1.0001
    for name in ("geodesic", "straight"):
        assert found["strips"][name].shape == (11, 8, 8, 1)
        steps = np.diff(found["lengths"][name])
        np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)
    np.testing.assert_allclose(found["strips"]["geodesic"][-1].astype(int), desk.drag(*end)[1], atol=1)
    assert ("within the slice" in found["said"]) == (which == "eight")


# ---------------------------------------------------------------- dimensions and new data


def test_dimensions(eight):
    found, (run, model, data) = eight.dimensions(), parts(eight)
    scored = vd.evaluate(model, runs.batch_of(run, model, data, np.arange(data.rows)), samples=1)
    np.testing.assert_allclose(found["kl"], scored.kl_per_dimension, rtol=1e-4)
    np.testing.assert_allclose(found["kl_se"], scored.per_row.kl.std(0) / math.sqrt(data.rows), rtol=1e-3)
    assert sum(found["active"]) == scored.active_units
    np.testing.assert_allclose(found["sd_of_mean"], scored.per_row.centre.std(0, correction=0), rtol=1e-4)


def test_traversal(eight):
    found, base = eight.traversal(3, 17, 5), eight.row(17)["z"]
    np.testing.assert_allclose(found["values"], np.linspace(-2.5, 2.5, 5), rtol=1e-6)
    z = torch.tensor([base] * 5)
    z[:, 3] = torch.tensor(found["values"])
    with torch.no_grad():
        mean = eight.view.subject.model.decode(z).mean
    assert np.abs(found["tiles"].astype(int) - pixels(mean)).max() <= 1
    np.testing.assert_allclose(eight.traversal(3)["base"], eight.view.subject.latents.mean)
    with pytest.raises(InputError, match="dimension 8"):
        eight.traversal(8)


def test_sample(eight):
    found, model = eight.sample(6, 3), eight.view.subject.model
    _, z = model.draw(6, vd.Key(3))
    np.testing.assert_allclose(found["z"], z)
    with torch.no_grad():
        assert np.abs(found["tiles"].astype(int) - pixels(model.decode(z).mean)).max() <= 1
    np.testing.assert_allclose(found["points"], eight.view.plane.feet(z.double().numpy()), rtol=1e-5)


# ---------------------------------------------------------------- how it is asked


JOBS = {
    "volume": {"frame": [-1.0, -1.0, 1.0, 1.0], "side": 64},
    "posterior": {"row": 3},
    "evidence": {"row": 3},
    "geodesic": {"a": 3, "b": [0.0, 1.0]},
}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_ends_when_nobody_waits(two, eight, name):
    for desk in (two, eight):
        for after in (0, 1, 3):
            with pytest.raises(Cancelled):
                getattr(desk, name)(**JOBS[name], progress=leaving(after))
        assert not any(module.training for module in desk.view.subject.model.modules())
    assert two.drag(0, 0)[1].shape == (8, 8, 1)


def test_arguments_are_checked(two):
    assert arguments(two, "geodesic", {"a": 3, "b": [0, 1]}) == {"a": 3, "b": [0.0, 1.0]}
    for name, given in JOBS.items():
        assert arguments(two, name, given).items() >= given.items()
    wrong = [
        ("row", {"row": "three"}),
        ("lattice", {"frame": [0, 0, 1], "across": 2, "down": 2}),
        ("lattice", {"frame": [0, 0, 1, 1], "across": 25, "down": 2}),
        ("thumbnails", {"rows": list(range(65))}),
        ("ellipses", {"rows": list(range(501))}),
        ("sample", {"n": 65}),
        ("plane", {"kind": "tsne"}),
        ("geodesic", {"a": [0, 1, 2], "b": 3}),
        ("traversal", {"dim": -1}),
        ("volume", {"frame": [0, 0, 1, 1], "side": 65}),
    ]
    for name, given in wrong:
        with pytest.raises(InputError, match=name):
            arguments(two, name, given)


def test_two_desks_do_not_share_a_plane(paths):
    left, right = Desk(paths), Desk(paths)
    left.open(1)
    right.open(1)
    left.plane("dims", 1, 2)
    right.plane("dims", 3, 4)
    assert left.view.plane.names != right.view.plane.names
    left.close()
    assert right.drag(0, 0)[1].shape == (8, 8, 1)


def test_an_opened_run_outlives_its_folder(tmp_path):
    import shutil

    path = trained(tmp_path / "run", vd.data.load("digits"), latent=2)
    desk = Desk([path])
    desk.open(0)
    shutil.rmtree(path)
    assert desk.row(3)["row"] == 3
    assert desk.plane("dims", 1, 0)["points"].shape == (1797, 2)
    assert not desk.runs()["runs"][0]["ok"]
    with pytest.raises(InputError, match="no run folder"):
        desk.open(0)
    assert desk.drag(0, 0)[1].shape == (8, 8, 1)  # what was open stays open


def test_damaged_weights_are_one_sentence(tmp_path):
    path = trained(tmp_path / "run", vd.data.load("digits"), latent=2)
    (path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError) as told:
        Desk([path]).open(0)
    assert "model.safetensors" in str(told.value)
    assert "\n" not in str(told.value)
    (path / "model.safetensors").unlink()
    assert "training did not end" in Desk([path]).runs()["runs"][0]["error"]
    assert Run.open(path).path == path
