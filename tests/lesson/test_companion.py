"""Companions, and the lesson's desk over runs of every kind: a plane of their own, none, and no data any more."""

from __future__ import annotations

import importlib
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import refused

import vaelid as vd
from vaelid import lesson, studio
from vaelid.evidence.quadrature import quadrature
from vaelid.lesson import MODEL, Companion, companion
from vaelid.lesson.betas import betas, point
from vaelid.lesson.companion import Sample
from vaelid.runs import SCORING, Run
from vaelid.serving import Cancelled, Progress
from vaelid.training import Settings

MODULE = importlib.import_module("vaelid.lesson.companion")
QUIET = Progress(lambda partial: None)


def rows(seed: int, n: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 2))
    bent = np.stack((z[:, 0], z[:, 1], np.sin(2 * z[:, 0]), z[:, 0] * z[:, 1]), 1)
    return bent + 0.1 * rng.normal(size=bent.shape)


def trained(path: Path, x: Any, latent: int, **how: Any) -> Run:
    data = vd.data.load(x)
    model = vd.recipes.vae(data, latent=latent, hidden=(16,), context=how.pop("covariates", None))
    vd.fit(model, data, settings=Settings(epochs=3), progress=False, out=path, **how)
    return Run.open(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs on tables: of two latents, of three, and of three with a mask and a context."""
    folder = tmp_path_factory.mktemp("runs")
    x, rng = rows(0), np.random.default_rng(1)
    mask, context = rng.uniform(size=x.shape) > 0.1, rng.normal(size=(len(x), 2)).astype(np.float32)
    return {
        "two": trained(folder / "two", x, 2),
        "three": trained(folder / "three", x, 3),
        "given": trained(folder / "given", x, 3, mask=mask, context=context, covariates=2),
    }


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Companions that are trained for a moment, and none remembered from another test."""
    monkeypatch.setattr(MODULE, "STEPS", 60)
    monkeypatch.setattr(MODULE, "EPOCHS", (4, 8))
    monkeypatch.setattr(MODULE, "_KNOWN", OrderedDict())


def opened(run: Run | None) -> tuple[lesson.Desk, dict[str, Any]]:
    desk = lesson.Desk([] if run is None else [run.path])
    return desk, desk.subject(progress=QUIET)


# -- companions --------------------------------------------------------------------------------------------------------


def test_a_companion_is_the_same_whenever_it_is_asked_for(runs: dict[str, Run], monkeypatch: Any) -> None:
    first = companion(runs["three"])
    assert companion(runs["three"]) is first
    monkeypatch.setattr(MODULE, "_KNOWN", OrderedDict())
    again = companion(runs["three"])
    assert again is not first
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    assert companion(runs["three"], 2.0) is not again


def test_what_a_companion_is(runs: dict[str, Run]) -> None:
    found = companion(runs["three"])
    assert found.said == "A two-dimensional companion, trained here on the same data, because the run has 3 latents."
    assert found.model.prior.latent == 2
    assert type(found.model.likelihood) is type(runs["three"].model().likelihood)
    assert "β = 4" in companion(runs["three"], 4.0).said
    assert companion(runs["given"]).said.endswith("It is given no context, unlike the run.")


def test_the_rows_of_a_companion(runs: dict[str, Run], monkeypatch: Any) -> None:
    monkeypatch.setattr(MODULE, "TRAIN", 100)
    sample = Sample.of(runs["given"])
    dataset, split, whole = sample.dataset, sample.parts, runs["given"].dataset()
    assert len(split.train) == 100
    assert dataset.context is None
    np.testing.assert_array_equal(dataset.x, whole.x[dataset.row_id])  # the rows are numbered from 0 here
    np.testing.assert_array_equal(sample.extras["mask"], runs["given"].extras()["mask"][dataset.row_id])
    assert "context" not in sample.extras
    old = runs["given"].split()
    for name in ("train", "validation", "test"):
        assert set(dataset.row_id[getattr(split, name)]) <= set(getattr(old, name))
    assert "(100 of its 320 training rows)" in companion(runs["given"]).said


def test_training_can_be_cancelled_between_epochs(runs: dict[str, Run]) -> None:
    heard: list[dict[str, Any]] = []
    progress = Progress(heard.append, lambda: len(heard) > 2)
    with pytest.raises(Cancelled):
        companion(runs["three"], 1.0, progress)
    assert [partial["epoch"] for partial in heard] == [0, 1, 2]
    assert heard[-1].keys() == {"beta", "epoch", "epochs", "elbo"}
    found = companion(runs["three"])  # nothing half-trained was remembered, and nothing is locked
    assert isinstance(found, Companion)


def test_a_companions_run_opens_like_any_other(runs: dict[str, Run]) -> None:
    found = companion(runs["given"])
    run = Run.open(found.run.path)
    assert found.run is found.run
    subject = studio.Subject.open(run.path)
    batch = found.sample.batch(found.model, found.sample.parts.test)
    torch.testing.assert_close(subject.model.encode(batch), found.model.encode(batch))
    numbers = found.sample.dataset.row_id[found.sample.parts.test]
    torch.testing.assert_close(subject.batch(subject.places(numbers)).x, batch.x)
    assert torch.equal(subject.batch(subject.places(numbers)).mask, batch.mask)


# -- figure 4 ----------------------------------------------------------------------------------------------------------


def test_rate_rises_as_beta_falls(monkeypatch: Any) -> None:
    monkeypatch.setattr(MODULE, "STEPS", 240)
    monkeypatch.setattr(MODULE, "EPOCHS", (20, 20))
    heard: list[dict[str, Any]] = []
    found = betas(Run.open(MODEL), Progress(heard.append), lambda x: {"tiles": x.numpy()}, (8.0, 2.0, 0.5))
    rates = [each["rate"] for each in found["points"]]
    assert rates == sorted(rates)
    assert rates[2] > rates[0] + 1
    assert [partial["point"] for partial in heard if "point" in partial] == found["points"]
    for each in found["points"]:
        assert each["reconstructions"]["tiles"].shape == each["samples"]["tiles"].shape == (8, 1, 8, 8)
        assert each["elbo"] == pytest.approx(-each["rate"] - each["distortion"], rel=1e-5)
    assert found["originals"]["tiles"].shape == (8, 1, 8, 8)


def test_a_point_is_an_evaluation(runs: dict[str, Run]) -> None:
    made = companion(runs["three"], 0.5)
    found = point(made, lambda x: {"values": x.numpy()})
    batch = made.sample.batch(made.model, made.sample.parts.test)
    evaluated = vd.evaluate(made.model, batch, samples=100, key=SCORING.fold("evaluate"))
    assert (found["rate"], found["rate_se"]) == evaluated.rate
    assert (found["distortion"], found["distortion_se"]) == evaluated.distortion
    assert found["active"] == evaluated.active_units


# -- the desk ----------------------------------------------------------------------------------------------------------


def test_the_model_that_comes_along() -> None:
    desk, about = opened(None)
    assert (about["companion"], about["run"], about["kind"], about["shape"]) == (False, None, "image", [8, 8, 1])
    assert len(about["rows"]) == 40
    labels = [label for _, label in about["rows"]]
    assert {labels.count(digit) for digit in range(10)} == {4}
    test = Run.open(MODEL).split().test
    assert {row for row, _ in about["rows"]} <= set(test.tolist())
    row = about["rows"][0][0]
    belief = desk.belief(row, side=16)
    assert belief["x"].shape == belief["reconstruction"].shape == (8, 8, 1)
    subject = studio.Subject.open(MODEL)
    grid = quadrature(subject.model, subject.batch(subject.places([row])))
    assert belief["log_evidence"] == float(grid.log_evidence[0])
    q = belief["encoder"]
    found = desk.approximation(row, q["mean"], q["sd"], q["angle"])
    assert found["kl"] == found["encoder"]["kl"] > found["best"]["kl"]
    level = desk.bar(row, q["mean"], q["sd"], q["angle"])
    assert level["within"]
    assert level["kl"] == found["kl"]
    slope = desk.gradients(row, [0.3, -0.2], 16)
    assert slope["picture"].shape == (8, 8, 1)
    assert desk.lessons()["lessons"]
    desk.close()
    refused("Ask for the subject first", lambda: desk.belief(row))


def test_the_plane_is_the_studios() -> None:
    desk, about = opened(None)
    other = studio.Desk([MODEL])
    other.open(0)
    row = about["rows"][1][0]
    np.testing.assert_array_equal(desk.plane()["points"], other.plane("dims")["points"])
    far, cells = desk.drag(0.3, -0.2)
    expected, same = other.drag(0.3, -0.2)
    assert far == expected
    np.testing.assert_array_equal(cells, same)
    np.testing.assert_array_equal(desk.sample(4)["tiles"], other.sample(4)["tiles"])
    np.testing.assert_array_equal(desk.thumbnails([row])["tiles"], other.thumbnails([row])["tiles"])
    np.testing.assert_array_equal(
        desk.lattice([-1, -1, 1, 1], 3, 2)["tiles"], other.lattice([-1, -1, 1, 1], 3, 2)["tiles"]
    )
    assert desk.row(row)["z"] == other.row(row)["z"]
    assert desk.cell(0, 0)["z"] == [0, 0]


def test_the_bracket_is_the_studios(runs: dict[str, Run]) -> None:
    desk, about = opened(runs["two"])
    row, heard = about["rows"][0][0], []
    level = desk.belief(row, side=8)["log_evidence"]
    known = Progress(heard.append, lambda: any(partial["lower"] is not None for partial in heard))
    with pytest.raises(Cancelled):
        desk.bracket(row, progress=known)
    assert heard[-1]["lower"] == pytest.approx(level, abs=5 * heard[-1]["lower_se"] + 0.1)


def test_figures_change_with_the_run(runs: dict[str, Run]) -> None:
    numbers = []
    for run in (None, runs["two"], runs["three"]):
        desk, about = opened(run)
        row = about["rows"][0][0]
        numbers.append(
            (
                desk.belief(row, side=8)["log_evidence"],
                desk.approximation(row, [0, 0], [0.5, 0.5], 0)["kl"],
                desk.bar(row, [0, 0], [0.5, 0.5], 0)["elbo"],
                desk.gradients(row, [0, 0], 8)["exact"],
            )
        )
    for values in zip(*numbers, strict=True):
        assert len(set(values)) == 3


def test_a_run_of_three_latents_is_shown_by_its_companion(runs: dict[str, Run]) -> None:
    heard: list[dict[str, Any]] = []
    desk = lesson.Desk([runs["three"].path])
    about = desk.subject(progress=Progress(heard.append))
    assert about["companion"]
    assert about["run"] == str(runs["three"].path)
    assert "because the run has 3 latents" in about["said"]
    assert heard[-1]["epoch"] == heard[-1]["epochs"]
    row = about["rows"][0][0]
    assert row in runs["three"].split().test
    assert desk.belief(row, side=8)["x"].shape == (4,)
    _, same = opened(runs["three"])
    assert same == about


def test_a_run_of_two_latents_is_shown_itself(runs: dict[str, Run]) -> None:
    desk, about = opened(runs["two"])
    assert (about["companion"], about["said"], about["kind"]) == (False, "", "table")
    row = about["rows"][0][0]
    grid = quadrature(runs["two"].model(), runs["two"].dataset().x[row : row + 1])
    assert desk.belief(row, side=8)["log_evidence"] == pytest.approx(float(grid.log_evidence[0]), abs=1e-4)


def test_data_that_are_gone(runs: dict[str, Run], tmp_path: Path) -> None:
    for name in ("two", "three"):
        path = tmp_path / name
        shutil.copytree(runs[name].path, path)
        (path / "data.npz").unlink()
        desk, about = opened(Run.open(path))
        assert "comes with vaelid" in about["said"]
        assert name in about["said"]
        assert about["run"] is None
        assert desk.belief(about["rows"][0][0], side=8)["x"].shape == (8, 8, 1)


def test_a_run_that_has_vanished(tmp_path: Path) -> None:
    refused("no run folder", lambda: lesson.Desk([tmp_path / "gone"]).subject(progress=QUIET))


def test_a_device_is_named(runs: dict[str, Run]) -> None:
    desk = lesson.Desk([runs["two"].path], "cpu")
    assert not desk.subject(progress=QUIET)["companion"]
    said = lesson.Desk([runs["two"].path], "cuda:99").subject(progress=QUIET)["said"]
    assert "--device cuda:99" in said


def test_a_conditional_run_says_what_it_is_given(tmp_path: Path) -> None:
    x, context = rows(2, 120), np.random.default_rng(2).normal(size=(120, 2)).astype(np.float32)
    run = trained(tmp_path / "given", x, 2, context=context, covariates=2)
    desk, about = opened(run)
    assert "context" in about["said"]
    row = about["rows"][0][0]
    grid = quadrature(run.model(), run.model().batch(x[[row]].astype(np.float32), context=context[[row]]))
    assert desk.belief(row, side=8)["log_evidence"] == pytest.approx(float(grid.log_evidence[0]), abs=1e-4)
