"""`vaelid evidence`, the bracket that `vaelid train` ends with, and the section of the report that shows it."""

import dataclasses
import json
import math
import os
import re
import shlex
import shutil
import signal

import numpy as np
import pytest
import torch

import vaelid as vd
import vaelid.report.sections
from vaelid import networks, posteriors, priors, report, runs
from vaelid.cli.arguments import duration
from vaelid.evidence import Bracket, Budget, Cost, Simulated
from vaelid.evidence.families import Diagonal, Full
from vaelid.evidence.gaps import gaps as real_gaps
from vaelid.evidence.result import APPROXIMATE, BOUND, NONE
from vaelid.report.words import number
from vaelid.runs import Run

KEYS = {
    "run", "lower", "upper", "gap", "lower_kind", "upper_kind", "lower_mc_se", "upper_mc_se", "lower_data_se",
    "upper_data_se", "elbo", "rows", "seconds", "decoder_rows", "per_row", "data", "of",
}  # fmt: skip


class Stub:
    """Stands for `vaelid.evidence.bracket`: keeps what it was given, and answers with numbers known beforehand."""

    def __init__(self):
        self.changes, self.asked, self.x = {}, None, None

    def __call__(self, model, x, *, tolerance, budget, key, on_progress):
        self.asked, self.x = {"tolerance": tolerance, "budget": budget, "key": key}, x
        on_progress("pilot", 1, 2)
        batch = x.batch if isinstance(x, Simulated) else x
        ids = batch.ids()
        lower = -90 - torch.arange(len(ids), dtype=torch.float64)
        error = torch.full_like(lower, 0.01)
        kind = BOUND if isinstance(x, Simulated) else APPROXIMATE
        found = Bracket(
            row=ids, lower=lower, upper=lower + 0.05, lower_mc_se=error, upper_mc_se=2 * error,
            upper_kind=(kind,) * len(ids), tier=("annealing",) * len(ids), distributions=torch.full_like(ids, 20),
            elbo=lower - 6, k_hat=error, bennett=lower + 0.02 if kind == BOUND else None,
            warnings={}, notes=(), cost=Cost(10, 0, 20, 30, 40, 1.5),
        )  # fmt: skip
        return dataclasses.replace(found, **{name: change(found) for name, change in self.changes.items()})


@pytest.fixture
def stub(monkeypatch):
    found = Stub()
    monkeypatch.setattr("vaelid.evidence.bracket", found, raising=False)
    return found


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Reports have one section, the one that is looked at here."""
    monkeypatch.setattr(report.sections, "SECTIONS", (report.sections.evidence,))


@pytest.fixture
def quick(monkeypatch):
    """No report, which takes most of the time."""
    monkeypatch.setattr(report, "write", lambda run, *_: run.path / "report.html")


@pytest.fixture
def run(here, digits_run):
    """A run on digits that may be changed, with fewer draws to its scores."""
    shutil.copytree(digits_run, here / "run")
    return Run.open("run")


@pytest.fixture
def other(here, table_run):
    """A run on a table that may be changed."""
    shutil.copytree(table_run[0], here / "other")
    return Run.open("other")


def section(path):
    """The text of the section on evidence; None where the page has none."""
    text = (path / "report.html").read_text(encoding="utf-8")
    found = re.search(r"<h2>Evidence</h2>(.*?)</section>", text, re.DOTALL)
    return None if found is None else found[1]


# -- the command ---------------------------------------------------------------------------------------------------


def test_json_evidence_json_and_report_are_the_bracket(call, run, stub):
    answer = call("evidence", "run", "--rows", 6, "--seed", 3, "--tolerance", 0.05, "--budget", "1.5m", "--json")
    assert (answer.code, answer.err) == (0, "")
    found = answer.json
    assert len(answer.out.splitlines()) == 1
    assert found.keys() >= KEYS
    assert stub.asked == {"tolerance": 0.05, "budget": Budget(seconds=90.0), "key": vd.Key(3).fold("evidence")}
    index = runs.scored_rows(run, 6)
    expected = runs.batch_of(run, run.model(), run.dataset(), index)
    torch.testing.assert_close(stub.x.x, expected.x)
    assert [row["row"] for row in found["per_row"]] == index.tolist() == stub.x.ids().tolist()
    assert (found["rows"], found["of"], found["data"], found["seed"]) == (6, 180, "test rows of the run", 3)
    assert (found["lower"], found["upper"]) == (pytest.approx(-92.5), pytest.approx(-92.45))
    assert found["per_row"][2] == {
        "row": int(index[2]), "lower": -92.0, "upper": -91.95, "upper_kind": APPROXIMATE, "tier": "annealing",
        "warnings": [], "elbo": -98.0, "lower_mc_se": 0.01, "upper_mc_se": 0.02, "k_hat": 0.01,
    }  # fmt: skip
    assert json.loads((run.path / "evidence.json").read_text()) == {k: v for k, v in found.items() if k != "run"}
    shown = section(run.path)
    assert "On 6 of the 180 test rows of the run log p(x) lies on average between −92.500 and −92.450 nats" in shown
    assert "The upper side is approximate" in shown
    assert shown.count("<img") == 3


def test_all_rows_of_few_and_some_of_many(call, run, stub, quick, monkeypatch):
    answer = call("evidence", "run")
    assert answer.out.startswith("log p(x) on 180 test rows of the run, mean in nats")
    assert len(stub.x.ids()) == 180
    monkeypatch.setattr("vaelid.runs.brackets.ROWS", 50)
    assert call("evidence", "run").out.startswith("log p(x) on 50 of the 180 test rows of the run, chosen at random,")
    first = stub.x.ids()
    assert call("evidence", "run", "--rows", 50).code == 0
    assert stub.x.ids().tolist() == first.tolist()
    assert set(first.tolist()) <= set(run.split().test.tolist())
    assert call("evidence", "run", "--rows", 999).out.startswith("log p(x) on 180 test rows of the run,")


def test_rows_of_data(call, run, stub, quick, here):
    answer = call("evidence", "run", "digits", "--rows", 30, "--json")
    assert answer.code == 0
    trained = np.intersect1d(stub.x.ids().numpy(), run.split().train)
    assert f"warning: {len(trained)} of these rows were trained on" in answer.err
    assert (answer.json["rows"], answer.json["of"], answer.json["data"]) == (30, 1797, "digits")
    np.save(here / "new.npy", vd.data.load("digits").x[:7])
    answer = call("evidence", "run", "new.npy")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("log p(x) on 7 rows of new.npy, mean in nats")
    assert stub.x.ids().tolist() == list(range(7))


def test_rows_simulated_from_the_model(call, run, stub, quick):
    answer = call("evidence", "run", "--simulated", "--rows", 9, "--json")
    assert (answer.code, answer.err) == (0, "")
    assert isinstance(stub.x, Simulated)
    x = stub.x.batch.x
    assert answer.json["upper_kind"] == BOUND
    assert (answer.json["rows"], answer.json["data"]) == (9, "simulated")
    assert "bennett" in answer.json
    assert call("evidence", "run", "--simulated", "--rows", 9, "--seed", 1).code == 0
    assert not torch.equal(stub.x.batch.x, x)
    assert call("evidence", "run", "--simulated").out.startswith("log p(x) on 200 rows simulated from the model,")
    torch.testing.assert_close(stub.x.batch.x[:9], x)  # more rows begin with the same ones


def test_a_conditional_model_simulates_under_the_contexts_of_test_rows(call, here, stub, quick):
    words = ("--epochs", 1, "--set", "evaluation.samples=2", "--set", "evaluation.evidence=0", "--quiet")
    assert call("train", "digits", "--context", "digit", "--out", "run", *words).code == 0
    answer = call("evidence", "run", "--simulated", "--rows", 400)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("log p(x | c) on 400 rows simulated from the model")
    assert "KL(q ‖ p(z|x, c))" in answer.out
    run = Run.open("run")
    test = run.dataset().context[run.split().test]
    counts = stub.x.batch.context.sum(0).numpy()
    assert stub.x.batch.context.shape == (400, 10)
    assert np.abs(counts - 400 / 180 * test.sum(0)).max() < 20  # 180 test rows twice, and 40 of them once more


def test_words(call, run, stub, quick):
    def warnings(found):
        slow, poor = "k-hat is {}, above 0.7", "the chains did not mix"
        rows = found.row.tolist()
        return {row: (slow.format(0.8 + place / 100),) for place, row in enumerate(rows[:4])} | {rows[5]: (poor,)}

    stub.changes = {
        "upper": lambda found: found.lower + torch.linspace(0.3, 0.1, 8).double(),
        "warnings": warnings,
        "notes": lambda found: ("on simulated rows the gap was 0.01 nats",),
    }
    answer = call("evidence", "run", "--rows", 8, "--quiet")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    rows = runs.scored_rows(run, 8)
    assert lines[1].split() == ["lower", "-93.500", "±", "0.004", "±", "0.87", "bound", "in", "expectation"]
    assert lines[2].split() == ["upper", "-93.300", "±", "0.007", "±", "0.89", "approximate"]
    assert lines[3].split()[:4] == ["gap", "0.200", "±", "0.025"]
    assert "ELBO        -99.500 ± 0.87 over rows, so KL(q ‖ p(z|x)) is between 6.000 and 6.200" in lines[4]
    assert lines[6].split() == ["widest", "row", str(rows[0]), "-90.00", "to", "-89.70,", "approximate"]
    assert sum("to -" in line for line in lines) == 3
    assert "  warnings  5 of 8 rows" in lines
    assert any(re.search(r"^ +4: k-hat is 0\.8, above 0\.7 \(rows ", line) for line in lines)
    assert any(line.endswith(f"1: the chains did not mix (row {rows[5]})") for line in lines)
    assert "  note      on simulated rows the gap was 0.01 nats" in lines
    assert "  cost      100 decoder rows (pilot 10, checks 0, lower 20, upper 30, endpoints 40), 1.5 s" in lines
    assert "  saved     run/evidence.json" in lines
    assert lines[-1] == "  next      vaelid evidence run --rows 8 --tolerance 0.1 --budget 10m"


def next_of(answer):
    """The command that the last line names, in words."""
    program, *words = shlex.split(answer.out.splitlines()[-1].partition("next")[2])
    assert (answer.code, program) == (0, "vaelid")
    return words


def test_what_is_said_to_come_next_can_be_typed(call, run, stub, quick):
    stub.changes = {"upper": lambda found: found.lower + 1}
    wide = next_of(call("evidence", "run", "digits", "--tolerance", 0.2, "--budget", "90s"))
    assert wide == ["evidence", "run", "digits", "--tolerance", "0.2", "--budget", "3m"]
    assert next_of(call(*wide))[-1] == "6m"
    assert next_of(call("evidence", "run", "--budget", "45s"))[-1] == "90s"
    stub.changes = {}
    narrow = next_of(call("evidence", "run"))
    assert narrow == ["evidence", "run", "--simulated"]
    assert next_of(call(*narrow)) == ["evidence", "run", "--gaps"]


def test_rows_without_an_upper_side(call, run, stub):
    stub.changes = {
        "upper": lambda found: torch.where(torch.arange(5) < 2, math.inf, found.upper),
        "lower": lambda found: torch.where(torch.arange(5) == 4, -math.inf, found.lower),
        "upper_kind": lambda found: (NONE, NONE, *found.upper_kind[2:]),
    }
    answer = call("evidence", "run", "--rows", 5, "--json")
    assert answer.code == 0, answer.err
    assert (answer.json["lower"], answer.json["upper"], answer.json["upper_kind"]) == (None, None, NONE)
    assert [row["upper"] is None for row in answer.json["per_row"]] == [True, True, False, False, False]
    shown = section(run.path)
    assert "between n/a and n/a nats" in shown
    assert "2 of the rows have no upper side" in shown
    assert "1 rows without a finite lower side are left out" in shown
    plain = call("evidence", "run", "--rows", 5)
    assert re.search(r"^  upper +n/a ± 0\.009 ± n/a   no bound$", plain.out, re.MULTILINE)
    assert plain.out.splitlines()[-1].endswith("--tolerance 0.1 --budget 10m")


def test_an_interrupted_bracket_is_kept(call, run, stub):
    stub.changes = {"interrupted": lambda found: True, "notes": lambda found: ("interrupted",)}
    page = (run.path / "report.html").read_text()
    answer = call("evidence", "run", "--rows", 4)
    assert answer.code == 130
    assert answer.out.startswith("log p(x) on 4 of the 180 test rows")
    assert answer.out.splitlines()[-1] == "  next      vaelid evidence run --rows 4"
    assert (run.path / "report.html").read_text() == page
    *_, last = answer.err.splitlines()
    assert last == (
        "vaelid: interrupted; what there is is in run/evidence.json. To show it in the report: vaelid report run"
    )
    assert call("report", "run").code == 0
    assert '<p class="note">interrupted</p>' in section(run.path)


def test_an_interrupt_before_there_is_anything(call, run, monkeypatch):
    monkeypatch.setattr("vaelid.evidence.bracket", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT), raising=False)
    answer = call("evidence", "run", "--rows", 4)
    assert (answer.code, answer.out, answer.err.strip()) == (130, "", "vaelid: interrupted")
    assert not (run.path / "evidence.json").exists()


@pytest.fixture
def few(monkeypatch):
    """`vaelid.evidence.gaps` with few steps and draws; what it was given is kept."""
    asked = []

    def gaps(model, test, *, train, brackets, key, on_progress):
        asked.append((test, train, brackets, key))
        effort = {"families": (Diagonal(), Full()), "steps": 2, "samples": 4}
        return real_gaps(model, test, train=train, brackets=brackets, key=key, on_progress=on_progress, **effort)

    monkeypatch.setattr("vaelid.evidence.gaps", gaps)
    return asked


def test_gaps_of_test_rows_beside_training_rows(call, run, stub, few):
    answer = call("evidence", "run", "--rows", 5, "--gaps")
    assert (answer.code, answer.err) == (0, "")
    test, train, _, key = few[0]
    assert test.ids().tolist() == runs.scored_rows(run, 5).tolist()
    assert len(set(train.ids().tolist()) & set(run.split().train.tolist())) == 5
    assert key == vd.Key(0).fold("evidence").fold("gaps")
    found = run.evidence()["gaps"]
    assert (found["test"]["lower"], found["train"]["upper"]) == (pytest.approx(-92.0), pytest.approx(-91.95))
    lines = answer.out.splitlines()
    split, shown = found["test"], section(run.path)
    assert "gaps between ELBO and log p(x), mean in nats (± standard error over rows):" in lines
    assert any(
        line.startswith(f"    diagonal  approximation {split['diagonal_approximation_lower']:.3f} to ")
        and f"amortisation {split['diagonal_amortisation']:.3f} ± {split['diagonal_amortisation_se']:.3f}" in line
        for line in lines
    )
    assert sum(line.startswith("    full      approximation ") for line in lines) == 2
    assert "  5 training rows" in lines
    assert "  log p(x) of training rows is higher by -0.050 to 0.050 ± 1.000" in lines
    cell = f"{number(split['full_amortisation'], 3)} ± {number(split['full_amortisation_se'], 3)}"
    assert f'<th scope="row">amortisation, full</th><td>{cell}</td>' in shown
    assert '<th scope="row">generalisation of log p(x)</th><td></td><td>−0.050 to 0.050 ± 1.000</td>' in shown


def test_gaps_of_other_rows_stand_alone(call, run, stub, few, quick):
    answer = call("evidence", "run", "--simulated", "--rows", 5, "--gaps", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert few[0][1] is None
    assert (answer.json["gaps"]["test"]["upper_kind"], answer.json["gaps"]["train"]) == (BOUND, None)
    assert "  5 rows" in call("evidence", "run", "digits", "--rows", 5, "--gaps", "--quiet").out.splitlines()


def test_gaps_that_cannot_be_had_leave_the_bracket(call, run, stub, quick, monkeypatch):
    def refuse(*_, **__):
        raise vd.InputError("two groups of latents", "one")

    monkeypatch.setattr("vaelid.evidence.gaps", refuse)
    answer = call("evidence", "run", "--rows", 5, "--gaps", "--json")
    assert (answer.code, answer.err) == (0, "no gaps: two groups of latents; expected one.\n")
    assert (answer.json["rows"], "gaps" in answer.json) == (5, False)


def test_an_interrupt_during_the_gaps_leaves_the_bracket(call, run, stub, monkeypatch):
    monkeypatch.setattr("vaelid.evidence.gaps", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    answer = call("evidence", "run", "--rows", 5, "--gaps", "--json")
    assert answer.code == 130
    assert answer.json["interrupted"]
    assert run.evidence()["rows"] == 5


def test_a_disk_that_is_full(call, run, stub, quick, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    answer = call("evidence", "run", "--rows", 4)
    assert answer.code == 1
    assert "evidence.json could not be written (No space left on device); the run is as it was" in answer.err
    assert answer.err.strip().endswith("type again: vaelid evidence run")
    assert answer.out.startswith("log p(x) on 4 of the 180 test rows")
    assert not (run.path / "evidence.json").exists()


def test_data_that_are_gone(call, here, table_run, stub):
    """DATA can be bracketed still; the report, which needs the run's own rows, stays as it was."""
    shutil.copytree(table_run[0], here / "run")
    config = here / "run" / "config.toml"
    config.write_text(config.read_text().replace(str(table_run[1]), str(here / "gone.csv")))
    answer = call("evidence", "run", table_run[1], "--rows", 4)
    assert answer.code == 0
    assert re.search(r"^the report could not be written \(.*gone\.csv", answer.err, re.MULTILINE)
    assert Run.open("run").evidence()["rows"] == 4
    assert call("evidence", "run").code == 2
    assert call("evidence", "run", "--simulated", "--rows", 3).code == 0


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("1.5m", 90), ("0.5s", 0.5)])
def test_times(text, seconds):
    assert duration(text) == seconds


# -- the report ------------------------------------------------------------------------------------------------------


def test_the_section_says_what_simulated_rows_allow(call, run, stub):
    assert call("evidence", "run", "--simulated", "--rows", 7).code == 0
    shown = section(run.path)
    assert "On 7 rows simulated from the model" in shown
    assert "So is the upper side: these rows were simulated" in shown
    assert '<th scope="row">Bennett</th><td>−92.980</td>' in shown
    assert shown.count("<img") == 3
    kept = json.loads((run.path / "evidence.json").read_text())
    batch = runs.rows_named(run, run.model(), kept, [5, 2], run.dataset())
    torch.testing.assert_close(batch.x, stub.x.batch.x[[5, 2]])
    assert batch.ids().tolist() == [5, 2]


def test_rows_of_a_table_are_listed(call, other, stub):
    stub.changes = {"warnings": lambda found: {int(found.row[1]): ("k-hat is 0.8", "acceptance is 0")}}
    assert call("evidence", "other").code == 0
    shown = section(other.path)
    assert shown.count("<img") == 2
    assert "The rows with the widest brackets, and the features in which they lie furthest from the mean" in shown
    row = other.split().test[1]
    line = re.search(rf'<th scope="row">{row}</th>(.*?)</tr>', shown)[1]
    assert line.startswith("<td>−91.00</td><td>−90.95</td><td>0.05</td><td>−97.00</td>")
    assert re.search(r"[abc] −?[\d.]+ \(−?[\d.]+ sd\)", line)
    assert line.endswith(" !</td>")
    assert "1 of 4 rows carry a warning" in shown
    assert f'<th scope="row">acceptance is 0</th><td>1</td><td>{row}</td>' in shown


def test_no_section_without_a_bracket_of_these_weights(call, run, stub):
    assert section(run.path) is None
    assert call("evidence", "run", "--rows", 4).code == 0
    assert section(run.path) is not None
    model = run.model()
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    run.save_model(model)
    assert run.evidence() == {}
    assert call("report", "run").code == 0
    assert section(run.path) is None


def test_a_damaged_evidence_json_is_said(call, run, stub):
    (run.path / "evidence.json").write_text("{")
    assert call("report", "run").code == 0
    assert "evidence.json is damaged" in section(run.path)
    assert "vaelid evidence run" in section(run.path)
    assert call("evidence", "run", "--rows", 4).code == 0
    assert "damaged" not in section(run.path)


def test_rows_that_are_gone_are_said(call, run, stub, here):
    np.save(here / "new.npy", vd.data.load("digits").x[:7])
    assert call("evidence", "run", "new.npy").code == 0
    assert section(run.path).count("<img") == 3
    (here / "new.npy").unlink()
    assert call("report", "run").code == 0
    assert "The widest rows cannot be shown: no such file" in section(run.path)
    assert section(run.path).count("<img") == 2


# -- the end of training ---------------------------------------------------------------------------------------------

FEW = ("train", "digits", "--epochs", 1, "--out", "run", "--set", "evaluation.samples=5")


def test_training_ends_with_a_bracket(call, here, stub, quick):
    answer = call(*FEW, "--set", "evaluation.evidence=7", "--json")
    assert (answer.code, answer.json["evidence"]["rows"]) == (0, 7)
    found, run = answer.json["evidence"], Run.open("run")
    kept = run.evidence()
    assert found == {name: kept[name] for name in found}
    assert found.keys() >= {"lower", "upper", "gap", "upper_kind", "lower_mc_se", "lower_data_se", "seconds"}
    assert run.metrics()["evidence"] == found
    assert stub.asked == {"tolerance": None, "budget": None, "key": vd.Key(0).fold("evidence")}
    line = (
        "  log p(x) between            -93.00 ± 0.82 and -92.95 ± 0.82 (approximate), 7 rows, 0 with a warning, 1.5 s"
    )
    assert line in call("info", "run").out.splitlines()
    again = call("evidence", "run", "--rows", 7, "--json").json
    assert {name: again[name] for name in found} == found


def test_rows_bracketed_by_default(call, here, stub, quick):
    answer = call(*FEW)
    assert answer.code == 0
    assert Run.open("run").evidence()["rows"] == 180
    assert "(approximate), 180 rows, 0 with a warning" in answer.out
    assert "vaelid evidence run" not in answer.out


def test_convolutional_networks_are_not_bracketed(call, here, stub, quick):
    answer = call(*FEW, "--set", "model.network=conv")
    assert answer.code == 0
    assert stub.x is None
    assert not (here / "run" / "evidence.json").exists()
    assert Run.open("run").metrics()["evidence"] is None
    assert "           vaelid evidence run" in answer.out.splitlines()
    assert call("evidence", "run", "--rows", 2).code == 0


@pytest.mark.parametrize(("network", "rows"), [(networks.MLP, 200), (networks.Residual, 200)])
def test_rule_of_dense_networks(network, rows):
    model = vd.VAE(
        priors.StandardNormal(2),
        vd.likelihoods.Bernoulli(network(2, (1, 8, 8))),
        posteriors.DiagonalNormal(networks.ConvEncoder((1, 8, 8), 2, heads=2)),
    )
    assert runs.rows_after_training(model) == rows


def test_a_bracket_that_fails_leaves_the_run_complete(call, here, quick, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("this model has no density\nand more")

    monkeypatch.setattr("vaelid.evidence.bracket", fail, raising=False)
    answer = call(*FEW, "--json")
    assert answer.code == 0
    assert "no bracket on log p(x): this model has no density" in answer.err.splitlines()
    assert answer.json["evidence"] is None
    assert answer.json["report"] == "run/report.html"


@pytest.mark.parametrize("kept", [True, False])
def test_an_interrupted_bracket_leaves_the_run_complete(kept, call, here, stub, quick, monkeypatch):
    if kept:
        stub.changes = {"interrupted": lambda found: True}
    else:
        monkeypatch.setattr("vaelid.evidence.bracket", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    answer = call(*FEW, "--json")
    assert answer.code == 130
    assert (answer.json["evidence"] is None) == (not kept)
    assert answer.json["report"] == "run/report.html"
    assert Run.open("run").metrics()["epochs"] == 1
    assert answer.err.splitlines()[-1] == (
        "vaelid: the bracket was interrupted; the run run is complete. To bracket log p(x): vaelid evidence run"
    )
