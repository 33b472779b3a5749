"""The report: one file that needs nothing else, with every section and the numbers of the evaluation; its verdict."""

import base64
import dataclasses
import html
import json
import math
import re
import shutil

import numpy as np
import pytest

from vaelid import data, diagnostics, likelihoods, networks, posteriors, priors, recipes, report, runs
from vaelid.data import Split
from vaelid.data.dataset import from_array
from vaelid.diagnostics import Estimate
from vaelid.model import VAE
from vaelid.objectives import IWAE
from vaelid.report import figures, verdict
from vaelid.report.curves import Curves
from vaelid.report.words import duration, number, rounded, spoken
from vaelid.training import Settings

SECTIONS = [
    "Verdict", "Training", "Rate and distortion", "KL per latent dimension", "Reconstructions",
    "Samples from the prior", "Map of the latent means", "Geometry of the latent space", "Traversals", "Configuration",
]  # fmt: skip


def trained(folder, dataset, *, epochs=2, latent=3, mask=None, likelihood=None):
    """A run of a few steps, its model and its evaluation."""
    dataset = data.load(dataset)
    model = recipes.vae(dataset, latent=latent, hidden=(8,), likelihood=likelihood)
    rows = len(dataset.x)
    parts = Split(np.arange(0, rows - 40), np.arange(rows - 40, rows - 20), np.arange(rows - 20, rows))
    runs.fit(model, dataset, epochs=epochs, out=folder, progress=False, split_rows=parts, mask=mask)
    run = runs.Run.open(folder)
    return run, model, runs.score(run, model, run.dataset(), samples=8)


def table(key=0, rows=90, columns=("height", "<b>w & h</b>", "cost in $ or $$", "д" * 40)):
    rng = np.random.default_rng(key)
    x = rng.normal(size=(rows, 2)) @ rng.normal(size=(2, len(columns))) + 0.1 * rng.normal(size=(rows, len(columns)))
    return from_array(x, name="memory", source="memory", columns=columns, labels=x[:, 0], label_name="the <label>")


def digits(rows=100):
    whole = data.load("digits")
    return dataclasses.replace(
        whole, x=whole.x[:rows], row_id=whole.row_id[:rows], labels=whole.labels[:rows], source="memory"
    )


@pytest.fixture(scope="module")
def image_run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "digits", digits(), latent=4)


def sources(text):
    """Everything that a browser would fetch."""
    found = re.findall(r"""(?:src|href|action|data)\s*=\s*["']([^"']*)""", text) + re.findall(r"url\(([^)]*)\)", text)
    return [source for source in found if not source.startswith("data:")]


def whole(path):
    """The page's text, after what must hold for every page."""
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 5e6
    assert sources(text) == []
    assert "<script" not in text
    assert "@import" not in text
    assert "<link" not in text
    assert re.findall(r"<h2>(.*?)</h2>", text) == SECTIONS
    assert all(alt.strip() for alt in re.findall(r'<img [^>]*alt="([^"]*)"', text))
    return text


def test_self_contained_with_every_section_and_the_numbers(image_run):
    run, model, evaluation = image_run
    path = report.write(run, model, evaluation)
    assert path == run.path / "report.html"
    text = whole(path)
    for estimate in (evaluation.elbo, evaluation.iwae, evaluation.rate, evaluation.distortion):
        assert f"<td>{spoken(estimate)}</td>" in text
    assert f"<td>{evaluation.active_units} of 4</td>" in text
    assert "L₈" in text
    bits = -evaluation.iwae.value / (64 * math.log(2))
    assert f"<td>≤ {bits:.2f}" in text
    assert "learning_rate = 0.002" in text
    assert "likelihoods.Binomial" in text.partition("The model in parts")[2]
    assert "likelihoods.Binomial" not in text.partition("The model in parts")[0]
    assert f"vaelid sample {run.path}" in text
    pictures = re.findall(r'<img src="data:(image/[a-z+]+);base64,([^"]+)"', text)
    assert [kind for kind, _ in pictures] == ["image/svg+xml"] * 3 + ["image/png"] * 5 + ["image/svg+xml", "image/png"]
    for kind, encoded in pictures:
        content = base64.b64decode(encoded, validate=True)
        assert content.startswith(b"<?xml" if kind == "image/svg+xml" else b"\x89PNG")


def test_evaluates_when_no_evaluation_is_given(image_run):
    run, model, _ = image_run
    settings = run.config.evaluation.model_copy(update={"samples": 8})
    fast = runs.Run(run.path, run.config.model_copy(update={"evaluation": settings}))
    evaluation = runs.score(fast, model, run.dataset())
    assert spoken(evaluation.iwae) in whole(report.write(fast, model))


def test_rows_shown_are_the_rows_scored_and_names_are_text(tmp_path):
    run, model, _ = trained(tmp_path / "run <1>", table())
    evaluation = runs.score(run, model, run.dataset(), samples=2, rows=7)
    batch = runs.batch_of(run, model, run.dataset(), runs.scored_rows(run, 7))
    np.testing.assert_array_equal(model.encode(batch).numpy(), evaluation.per_row.centre.numpy())
    text = whole(report.write(run, model, evaluation))
    assert "On 7 of 20 test rows" in text
    worst = batch.row_id[int(evaluation.per_row.elbo.argmin())]
    assert f"worst: row {int(worst)}, ELBO {number(float(evaluation.per_row.elbo.min()))}" in text
    assert "<b>w" not in text
    assert html.escape("<b>w & h</b>") in text
    assert "the &lt;label&gt;" in text
    assert "<h1>run &lt;1&gt;</h1>" in text


@pytest.mark.parametrize(
    ("x", "likelihood", "latent"),
    [
        (np.random.default_rng(0).normal(size=(80, 2)), "gaussian", 1),
        (np.random.default_rng(1).poisson(3, size=(80, 3, 2)), "negative-binomial", 2),
        (np.random.default_rng(2).integers(0, 3, size=(80, 15)), "categorical", 40),
        (np.random.default_rng(3).integers(0, 256, size=(80, 6, 5, 3)).astype(np.uint8), "discretized-logistic", 3),
    ],
)
def test_any_kind_of_data(tmp_path, x, likelihood, latent):
    run, model, evaluation = trained(tmp_path / "run", x, likelihood=likelihood, latent=latent)
    text = whole(report.write(run, model, evaluation))
    assert ("log density" in text) == (likelihood == "gaussian")
    assert ("bits per dimension" in text) == (likelihood == "discretized-logistic")
    assert ("most likely class" in text) == (likelihood == "categorical")
    assert ("principal components" in text) == (latent > 2)


@pytest.mark.parametrize(("dataset", "latent"), [(table, 2), (digits, 1)])
def test_cells_that_were_not_observed(tmp_path, dataset, latent):
    dataset = dataset()
    mask = np.random.default_rng(0).uniform(size=dataset.x.shape) < 0.7
    run, model, evaluation = trained(tmp_path / "run", dataset, mask=mask, latent=latent)
    assert "bits per dimension" not in whole(report.write(run, model, evaluation))


def test_covariates_and_a_cosine_schedule(tmp_path):
    rng = np.random.default_rng(0)
    model = VAE(
        priors.StandardNormal(2),
        likelihoods.Gaussian(networks.MLP(2, (3,), (8,), context=1), (3,)),
        posteriors.DiagonalNormal(networks.MLP((3,), 2, (8,), heads=2, context=1)),
    )
    runs.fit(
        model, rng.normal(size=(90, 3)), context=rng.normal(size=(90, 1)), out=tmp_path / "run", progress=False,
        objective=IWAE(samples=3), settings=Settings(epochs=3, schedule="cosine"),
    )  # fmt: skip
    run = runs.Run.open(tmp_path / "run")
    text = whole(report.write(run, model, runs.score(run, model, run.dataset(), samples=4)))
    assert "Covariates are those of test rows" in text
    assert "importance-weighted bound, K = 3" in text
    assert "falls along a cosine" in text


def test_what_is_missing_or_not_finite_is_said(image_run, tmp_path):
    run, model, evaluation = image_run
    shutil.copytree(run.path, tmp_path / "run")
    run = runs.Run.open(tmp_path / "run")
    (run.path / "env.json").unlink()
    (run.path / "events.jsonl").write_text("")
    nowhere = Estimate(-math.inf, math.nan)
    bare = dataclasses.replace(evaluation, iwae=nowhere, elbo=nowhere, kl_per_dimension=None)
    text = whole(report.write(run, model, bare))
    assert "No epoch was recorded" in text
    assert "no closed form" in text
    assert "not finite" in text
    assert "<td>n/a</td>" in text


def test_kl_that_is_not_a_number_is_left_out():
    picture = figures.kl_bars(np.array([np.nan, 1.0, 0.0, 2.0]), np.array([False, True, False, True]))
    assert picture.src.startswith("data:image/svg+xml;base64,")
    assert picture.alt


def test_one_test_row(tmp_path):
    rows = np.random.default_rng(0).normal(size=(10, 3))
    model = recipes.vae(rows, latent=2, hidden=(4,))
    runs.fit(model, rows, epochs=1, out=tmp_path / "run", progress=False)
    run = runs.Run.open(tmp_path / "run")
    evaluation = diagnostics.evaluate(model, runs.batch_of(run, model, run.dataset(), run.split().test), samples=4)
    assert evaluation.rows == 1
    assert "One test row gives no standard errors" in whole(report.write(run, model, evaluation))


def test_command_of_a_run_that_was_resumed(tmp_path):
    run, _, _ = trained(tmp_path / "run", table(), epochs=1)
    env = json.loads((run.path / "env.json").read_text())
    (run.path / "env.json").write_text(json.dumps(env | {"command": "vaelid train table.csv --epochs 1"}))
    model, _ = runs.resume(run.path, epochs=2, progress=False)
    run = runs.Run.open(run.path)
    text = whole(report.write(run, model, runs.score(run, model, run.dataset(), samples=2)))
    assert f"vaelid train table.csv --epochs 1\nvaelid train --resume {run.path} --epochs 2" in text
    assert "<td>2, best" in text


# -- what events say ---------------------------------------------------------------------------------------------


def said(epochs, *, start=0.0):
    """Started and one EpochDone per (number, bound, learning rate), a second apart."""
    best = -math.inf
    events = [{"event": "Started", "step": 0, "validation_rows": 9, "time": start}]
    for place, (epoch, bound, rate) in enumerate(epochs):
        terms = {"bound": bound, "reconstruction": bound + 1, "rate": 1.0}
        events.append({"event": "EpochDone", "epoch": epoch, "train": terms, "validation": terms, "learning_rate": rate,
                       "best": bound > best, "time": start + place + 1})  # fmt: skip
        best = max(best, bound)
    return events


def test_curves_of_events():
    curves = Curves.of(said([(1, -9.0, 0.1), (2, -8.0, 0.1), (3, -8.5, 0.05), (4, -8.2, 0.05)]))
    assert curves.epoch.tolist() == [1, 2, 3, 4]
    assert curves.best == 1
    assert curves.at_best(curves.validation) == -8.0
    assert curves.drops().tolist() == [3]
    assert curves.validation_rows == 9
    assert curves.seconds == 4.0
    assert not curves.finished
    assert Curves.of([*said([(1, -9.0, 0.1)]), {"event": "Finished"}]).finished


def test_curves_across_a_resume_count_each_epoch_and_no_pause():
    first = said([(1, -9.0, 0.1), (2, -8.0, 0.1)])
    again = said([(2, -7.5, 0.1), (3, -7.0, 0.1)], start=1000.0)
    curves = Curves.of(first + again)
    assert curves.epoch.tolist() == [1, 2, 3]
    assert curves.validation["bound"].tolist() == [-9.0, -7.5, -7.0]
    assert curves.seconds == 4.0


def test_gain_over_the_last_tenth():
    rising = Curves.of(said([(epoch, -100.0 + epoch, 0.1) for epoch in range(1, 31)]))
    assert rising.gain() == (3.0, 3)
    flat = Curves.of(said([(epoch, -float(epoch), 0.1) for epoch in range(1, 31)]))
    assert flat.gain() == (0.0, 3)
    assert math.isnan(Curves.of(said([(1, -1.0, 0.1)])).gain()[0])
    empty = Curves.of([])
    assert math.isnan(empty.gain()[0])
    assert math.isnan(empty.at_best(empty.train))
    assert math.isnan(empty.seconds)


# -- verdict -----------------------------------------------------------------------------------------------------

GOOD = verdict.Facts(
    run="runs/x", rows=100, test_rows=100, validation_rows=100, elbo=Estimate(-92.0, 1.0), iwae=Estimate(-90.0, 0.9),
    rate=Estimate(17.0, 0.1), distortion=Estimate(75.0, 1.0), gap=Estimate(2.0, 0.1), spread=10.0, samples=500,
    ess=100.0, active=8, latent=8, discrete=True, pixels=64, epochs=90, epochs_asked=200, best_epoch=60, seconds=12.0,
    finished=True, train_bound=-91.0, validation_bound=-92.0, gain=0.0, gain_epochs=9, rollbacks=0,
)  # fmt: skip


def concerns(**changes):
    return [s for s in verdict.sentences(dataclasses.replace(GOOD, **changes)) if s.concern]


def commands(**changes):
    return [s.command for s in verdict.sentences(dataclasses.replace(GOOD, **changes)) if s.command]


def test_verdict_of_a_good_run():
    spoken_words = " ".join(sentence.text for sentence in verdict.sentences(GOOD))
    assert "at least −90.00 ± 0.90 nats per row" in spoken_words
    assert "lower bound, K = 500" in spoken_words
    assert "All 8 latent dimensions are in use" in spoken_words
    assert "stopped by itself at epoch 90" in spoken_words
    assert concerns() == []
    assert commands() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"active": 5}, "5 of 8 latent dimensions are in use; 3 have collapsed"),
        ({"active": 7}, "1 has collapsed: its"),
        ({"active": 0, "rate": Estimate(0.09, 0.01)}, "The decoder ignores z"),
        ({"train_bound": -80.0}, "overfits"),
        ({"discrete": False, "train_bound": -87.9}, "overfits"),
        ({"finished": False}, "interrupted after epoch 90 of 200"),
        ({"rows": 29}, "With 29 test rows the standard errors are rough"),
        ({"rows": 1}, "One test row"),
        ({"rollbacks": 1}, "went wrong once"),
        ({"rollbacks": 3}, "went wrong 3 times"),
        ({"iwae": Estimate(-math.inf, math.nan)}, "not finite"),
    ],
)
def test_concerns(changes, words):
    found = concerns(**changes)
    assert len(found) == 1
    assert words in found[0].text


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": Estimate(0.11, 0.01)},
        {"train_bound": -83.0},  # 9 nats of 92: less than 10 %
        {"train_bound": -80.0, "validation_rows": 9},  # less than 4 standard errors of 10 / √9
        {"discrete": False, "train_bound": -89.0},  # less than a third of the spread
        {"train_bound": math.nan},
        {"spread": math.nan, "train_bound": math.nan},
        {"rows": 30},
        {"ess": 9.0},
    ],
)
def test_no_concern(changes):
    assert concerns(**changes) == []


def test_few_rows_do_not_show_collapse():
    texts = [sentence.text for sentence in verdict.sentences(dataclasses.replace(GOOD, rows=10, active=3))]
    assert "At least 3 of 8 latent dimensions are in use." in texts
    assert not any("collapsed" in text for text in texts)


def test_what_to_type():
    ended = {"epochs": 200, "best_epoch": 200}
    assert commands(**ended, gain=0.02) == ["vaelid train --resume runs/x --epochs 400"]
    assert commands(**ended, gain=0.0) == []
    assert commands(**ended, gain=math.nan) == []
    assert commands(gain=0.02) == []  # stopped before its limit
    assert commands(finished=False) == ["vaelid train --resume runs/x"]
    assert commands(ess=9.9) == ["vaelid evaluate runs/x --samples 5000"]
    assert commands(ess=math.nan) == []


def test_table_of_the_verdict():
    rows = {name: value for name, value, _ in verdict.table(GOOD)}
    assert rows["importance-weighted bound L₅₀₀"] == "−90.00 ± 0.90"
    assert rows["gap L₅₀₀ − ELBO"] == "2.00 ± 0.10"
    assert rows["bits per dimension (64)"] == "≤ 2.03 ± 0.02"
    assert rows["epochs"] == "90, best 60"
    assert rows["test rows"] == "100"
    partial = {name: value for name, value, _ in verdict.table(dataclasses.replace(GOOD, rows=50, pixels=None))}
    assert partial["test rows"] == "50 of 100"
    assert not any("bits" in name for name in partial)


def test_numbers_as_words():
    assert [number(-1234.567), number(-0.001), number(math.nan)] == ["−1,234.57", "0.00", "n/a"]
    assert [rounded(1234.5, 178.0), rounded(-0.00412, 0.0094), rounded(2.0, 0.0)] == ["1,234", "−0.00412", "2"]
    assert [duration(3.14), duration(14.2), duration(200), duration(7500)] == [
        "3.1 s",
        "14 s",
        "3 min 20 s",
        "2 h 5 min",
    ]
    assert duration(math.nan) == "unknown"


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array(["b", "a", "a"]), [("a", [1, 2]), ("b", [0])]),
        (np.array([1.0, 0.5, 1.0]), [("0.5", [1]), ("1", [0, 2])]),
        (np.array([f"name {i % 20}" for i in range(60)]), None),
        (np.arange(30), None),
    ],
)
def test_labels_become_classes_or_numbers(labels, classes):
    groups, values = figures.colours_of(labels)
    if labels.dtype.kind == "i":
        assert groups is None
        np.testing.assert_array_equal(values, labels)
    elif classes is None:
        assert len(groups) == 12
        assert groups[-1][0] == "other"
        assert sorted(row for _, rows in groups for row in rows) == list(range(60))
    else:
        assert [(name, rows.tolist()) for name, rows in groups] == classes
