"""Inference gaps: q* against exact posteriors and quadrature, and the split of log p(x) − ELBO that follows."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from support import refused
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from vaelid import fitted
from vaelid.distributions import Normal
from vaelid.errors import InputTypeError
from vaelid.evidence import optimised
from vaelid.evidence.families import Coupled, Diagonal, Family, Flow, Full
from vaelid.evidence.gaps import Gaps, gaps
from vaelid.evidence.optimised import optimise
from vaelid.evidence.result import BOUND, Bracket, Cost
from vaelid.fitted import PerDatum
from vaelid.likelihoods import Bernoulli, FixedScale, Gaussian
from vaelid.model import VAE
from vaelid.posteriors import DiagonalNormal, FullNormal, Planar, Posterior
from vaelid.priors import Mixture, Prior, StandardNormal
from vaelid.random import Key
from vaelid.types import Batch

KEY, DOUBLE = Key(5), torch.float64
ALL = (Diagonal(), Full(), Flow())


def bracket(truth: Tensor, slack: float = 0.0) -> Bracket:
    """log p(x) known up to a slack on both sides."""
    rows = len(truth)
    zero = torch.zeros(rows, dtype=DOUBLE)
    return Bracket(
        row=torch.arange(rows),
        lower=truth - slack,
        upper=truth + slack,
        lower_mc_se=zero,
        upper_mc_se=zero,
        upper_kind=(BOUND,) * rows,
        tier=("importance",) * rows,
        distributions=zero.long(),
        elbo=zero,
        k_hat=zero,
        bennett=None,
        warnings={},
        notes=(),
        cost=Cost(),
    )


def linear(weight: Tensor, sigma: float, loc: Tensor, scale: Tensor, prior: Prior | None = None) -> VAE:
    """x = W z + σ ε, with q(z|x) = N(loc, diag scale²) for every x."""
    size, latent = weight.shape
    decoder, encoder = nn.Linear(latent, size), nn.Linear(size, 2 * latent)
    likelihood = Gaussian(decoder, (size,), FixedScale(sigma))
    model = VAE(prior or StandardNormal(latent), likelihood, DiagonalNormal(encoder)).double()
    with torch.no_grad():
        decoder.weight.copy_(weight)
        decoder.bias.zero_()
        encoder.weight.zero_()
        encoder.bias.copy_(torch.cat((loc, scale.log())))
    return model


def lost(self: PerDatum, batch: Batch, pose: Any) -> Normal:
    """A fit from draws of the prior that came to nothing."""
    return Normal(batch.x[:, :2], torch.full_like(batch.x[:, :2], 9.0))


def kl(loc: Tensor, covariance: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """KL(N(loc, covariance) ‖ N(mean, precision⁻¹)) per row; precision is (d, d)."""
    off = loc - mean
    spread = precision @ covariance
    trace = spread.diagonal(dim1=-2, dim2=-1).sum(-1)
    return 0.5 * (trace - loc.shape[-1] - torch.logdet(spread) + torch.einsum("ri,ij,rj->r", off, precision, off))


# -- against the exact posterior ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sigma", "size", "latent"), [(0.3, 6, 4), (0.02, 9, 6)])
def test_correlated_posterior(sigma: float, size: int, latent: int) -> None:
    """Λ = I + WᵀW/σ²: the best diagonal normal is ½ (Σ log Λ_ii − log |Λ|) below log p(x), the best full one at it,
    from an encoder whose q is the same for every row. What the searches miss is known in closed form from q* itself."""
    weight = KEY.fold("W").normal((size, latent), dtype=DOUBLE)
    z, noise = KEY.fold("z").normal((10, latent), dtype=DOUBLE), KEY.fold("e").normal((10, size), dtype=DOUBLE)
    x = z @ weight.T + sigma * noise
    model = linear(weight, sigma, torch.zeros(latent), torch.full((latent,), 0.1))
    precision = torch.eye(latent, dtype=DOUBLE) + weight.T @ weight / sigma**2
    mean = torch.linalg.solve(precision, x.mT.T @ weight / sigma**2, left=False)
    covariance = weight @ weight.T + sigma**2 * torch.eye(size, dtype=DOUBLE)
    truth = MultivariateNormal(torch.zeros(size, dtype=DOUBLE), covariance).log_prob(x)
    least = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    found = optimise(model, x, (Diagonal(), Full()), steps=200, samples=1000, key=KEY)
    diagonal, full = found.q
    assert isinstance(diagonal, Normal)
    missed = kl(diagonal.loc, diagonal.scale.square().diag_embed(), mean, precision) - least
    assert missed.max() < 0.01
    assert least > 0.5
    assert ((found.best[0] - (truth - least)).abs() < missed + 4 * found.best_mc_se[0]).all()
    assert ((found.best[1] - truth).abs() < 1e-3).all()
    assert kl(full.loc, full.scale_tril @ full.scale_tril.mT, mean, precision).max() < 1e-3  # type: ignore[attr-defined]


def test_diagonal_normal_of_a_full_one() -> None:
    """The start of the diagonal family from a full normal is its best member: s_i² = 1 / Λ_ii."""
    tril = KEY.normal((3, 4, 4), dtype=DOUBLE).tril(-1) + 1.5 * torch.eye(4, dtype=DOUBLE)
    loc = KEY.normal((3, 4), dtype=DOUBLE)
    _, scale = Diagonal().near(Full().value((loc, tril)), KEY)
    precision = torch.linalg.inv(tril @ tril.mT)
    torch.testing.assert_close(scale, precision.diagonal(dim1=-2, dim2=-1).rsqrt())


@pytest.mark.parametrize(("shift", "stretch"), [(0.5, 1.5), (0.0, 1.0), (30.0, 0.01)])
def test_planted_encoder(ppca: Any, shift: float, stretch: float) -> None:
    """The exact posterior moved and stretched: no approximation gap, and an amortisation gap of KL(q ‖ p(z|x))."""
    model, truth = ppca.model(shift=shift, stretch=stretch), ppca.log_evidence()
    closed = truth - ppca.elbo(model).detach()
    found = gaps(model, ppca.x, families=(Diagonal(),), steps=120, brackets=[bracket(truth)])
    split = found.test
    amortisation = split.amortisation(Diagonal())
    assert ((amortisation.value - closed).abs() < 4 * amortisation.mc_se + 1e-3).all()
    for side in split.approximation(Diagonal()):
        assert side.value.abs().max() < 1e-3
    for side in split.kl:
        assert ((side.value - closed).abs() < 4 * side.mc_se + 1e-9).all()


@pytest.mark.parametrize("planted", [0, 1])
def test_the_better_mode_is_found(planted: int) -> None:
    """A mixture prior with components far apart, and x that hardly tells them: the best normal covers the mode of the
    larger responsibility r and has a gap of −log r, whichever mode the encoder was planted at."""
    prior, sigma, weight = Mixture(2, 2), 2.0, torch.tensor([[0.15, 0.1], [-0.1, 0.2], [0.1, 0.1]], dtype=DOUBLE)
    with torch.no_grad():
        prior.loc.copy_(torch.tensor([[-4.0, 0.0], [4.0, 1.0]]))
        prior.log_scale.fill_(math.log(0.5))
        prior.logits.copy_(torch.tensor([0.0, 0.4]))
    model = linear(weight, sigma, prior.loc.detach()[planted], torch.full((2,), 0.5), prior)
    x = 3 * KEY.normal((8, 3), dtype=DOUBLE)
    covariance = 0.25 * weight @ weight.T + sigma**2 * torch.eye(3, dtype=DOUBLE)
    with torch.no_grad():
        parts = [MultivariateNormal(weight @ loc, covariance).log_prob(x) for loc in model.prior.loc]
        joint = torch.stack(parts) + model.prior.logits.log_softmax(0).unsqueeze(-1)
    truth, share = joint.logsumexp(0), joint.softmax(0)
    assert (share.argmax(0) == 0).any()
    assert (share.argmax(0) == 1).any()
    found = optimise(model, x, (Full(),), steps=120, samples=1000, key=KEY)
    better = share.amax(0) > 0.65  # where the modes are nearly alike either may be taken
    assert better.sum() >= 3
    assert ((found.best[0] - truth - share.amax(0).log())[better].abs() < 0.01).all()
    assert (found.best[0] < truth).all()


# -- against quadrature ------------------------------------------------------------------------------------------------


class Bent(nn.Module):
    """x = (z_2 − z_1², 0.3 z_1): the posterior is a banana."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack((z[..., 1] - z[..., 0].square(), 0.3 * z[..., 0]), -1)


@pytest.mark.parametrize("bent", [True, False])
def test_nonlinear_decoder_against_quadrature(bent: bool) -> None:
    """L[q] ≤ L[diagonal] ≤ L[full] ≤ L[flow] ≤ log p(x), and the flow closes most of what a normal leaves."""
    torch.manual_seed(3)
    if bent:
        decoder: nn.Module = Bent()
        x = KEY.normal((10, 2), dtype=DOUBLE) * torch.tensor([0.7, 0.3]) + torch.tensor([1.0, 0.0])
    else:
        decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()
        with torch.no_grad():
            decoder[0].weight.mul_(2)
            decoder[2].weight.mul_(4)
            x = decoder(KEY.normal((10, 2), dtype=DOUBLE)) + 0.4 * KEY.fold("e").normal((10, 2), dtype=DOUBLE)
    likelihood = Gaussian(decoder, (2,), FixedScale(0.4))
    model = VAE(StandardNormal(2), likelihood, DiagonalNormal(nn.Linear(2, 4))).double()
    found = gaps(model, x, families=ALL, samples=1000, steps=200, brackets=[bracket(log_evidence(model, x))])
    split = found.test
    order = [split.elbo, *(split.best(family) for family in ALL), split.log_evidence[0]]
    for low, high in itertools.pairwise(order):
        gap = high.less(low)
        assert (gap.value > -4 * gap.mc_se - 1e-3).all()
    left = [split.approximation(family)[0].mean() for family in ALL]
    assert bent or left[0].value - left[1].value > 8 * left[1].mc_se  # the banana's axes are the coordinates'
    assert left[2].value < 0.4 * left[1].value
    assert left[2].value > 0


@torch.no_grad()
def log_evidence(model: VAE, x: Tensor) -> Tensor:
    """log p(x) by the trapezium rule on [−7, 7]², at steps well below the narrowest posterior."""
    grid = torch.linspace(-7, 7, 701, dtype=DOUBLE)
    z = torch.cartesian_prod(grid, grid).unsqueeze(1).expand(-1, len(x), -1)
    problem = model.given(Batch(x), start="prior")
    return problem.log_joint(z).logsumexp(0) + 2 * math.log(14 / 700)


# -- the flow ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_flow_density_and_inverse(size: int) -> None:
    """log q(z) = log N(u) − log |det ∂z/∂u| by automatic differentiation, pull undoes push, rows have their own map."""
    family = Flow(layers=3, hidden=4)
    q = Normal(KEY.normal((2, size), dtype=DOUBLE), 0.3 + KEY.uniform((2, size), dtype=DOUBLE))
    start = family.near(q, KEY)
    u = KEY.fold("u").normal((5, 2, size), dtype=DOUBLE)
    torch.testing.assert_close(family.value(start).push(u), q.push(u))
    steps = tuple(3 * KEY.fold(i).normal(tuple(p.shape), dtype=DOUBLE) for i, p in enumerate(family.free(start)))
    flow = family.value(family.moved(start, tuple(0.2 * s for s in steps[:3]) + steps[3:]))
    assert isinstance(flow, Coupled)
    z, log_q = flow.push(u)
    torch.testing.assert_close(flow.pull(z), u, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(flow.log_prob(z), log_q, atol=1e-8, rtol=1e-8)
    for sample in range(5):
        for row in range(2):

            def push(v: Tensor, sample: int = sample, row: int = row) -> Tensor:
                noise = u[sample : sample + 1].clone()
                return flow.push(torch.cat((noise[:, :row], v.view(1, 1, -1), noise[:, row + 1 :]), 1))[0][0, row]

            jacobian = torch.autograd.functional.jacobian(push, u[sample, row])
            exact = -0.5 * (u[sample, row].square() + math.log(2 * math.pi)).sum() - torch.linalg.slogdet(jacobian)[1]
            torch.testing.assert_close(log_q[sample, row], exact)


# -- what a search depends on, and what it falls back to ---------------------------------------------------------------


def network(posterior: Posterior | None = None, latent: int = 3) -> VAE:
    torch.manual_seed(1)
    decoder = nn.Sequential(nn.Linear(latent, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 6))
    return VAE(StandardNormal(latent), Bernoulli(decoder), posterior)


BITS = (KEY.uniform((7, 6)) < 0.5).to(torch.uint8)


def test_rows_are_searched_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers at every call, and in any company and pieces up to rounding; the model stays as it is."""
    model = network(DiagonalNormal(nn.Linear(6, 6))).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mask, ids = KEY.fold("mask").uniform((7, 6)) < 0.8, torch.arange(7) + 40
    batch = Batch(BITS, mask, row_id=ids)
    first, again = (optimise(model, batch, ALL, steps=20, samples=50, key=KEY) for _ in range(2))
    assert torch.equal(first.best, again.best)
    monkeypatch.setattr(fitted, "DECODER_ROWS", 2 * 2 * optimised.PAIRS)  # two rows at a time
    index, done = torch.tensor([5, 1, 3]), []
    some = optimise(model, batch.take(index), ALL, steps=20, samples=50, key=KEY, on_rows=done.append)
    assert done == [2, 3]
    assert torch.equal(some.row, ids[index])
    assert (some.best - first.best[:, index]).abs().max() < 1e-8
    assert (some.elbo - first.elbo[index]).abs().max() < 1e-8
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())


def test_failed_search_keeps_the_encoder(ppca: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every search goes astray, q* is the encoder's q: here the exact posterior, so log p(x) at every draw."""
    monkeypatch.setattr(optimised, "RATE", 1e4)
    monkeypatch.setattr(PerDatum, "forward", lost)
    found = optimise(ppca.model(), ppca.x, ALL, steps=3, samples=20, key=KEY)
    assert (found.best - ppca.log_evidence()).abs().max() < 1e-9
    assert found.gain.abs().max() < 1e-9
    assert not found.unsettled.any()


def test_short_searches_go_on_while_they_gain(ppca: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps from a poor start: rows that still gain get more of them, and say so where it was not enough."""
    monkeypatch.setattr(PerDatum, "forward", lost)
    model, results = ppca.model(shift=3.0), []
    for most in (2, 30):
        monkeypatch.setattr(optimised, "MOST", most)
        results.append(optimise(model, ppca.x, (Full(),), steps=15, samples=50, key=KEY))
    short, long = results
    assert short.unsettled.all()
    assert not long.unsettled.any()
    assert (ppca.log_evidence() - long.best[0]).max() < 0.1
    assert (long.best > short.best).all()


def test_rows_that_are_not_finite_leave_the_others_alone() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(2, 3)

        def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
            assert context is not None
            out: Tensor = self.line(z)
            return torch.where(context > 0, math.nan, out)

    model = VAE(StandardNormal(2), Gaussian(Broken(), (3,), FixedScale(1.0))).double()
    x = KEY.normal((4, 3), dtype=DOUBLE)
    bad = torch.tensor([[0.0], [1.0], [0.0], [0.0]], dtype=DOUBLE)
    found = optimise(model, Batch(x, None, bad), ALL, steps=20, samples=50, key=KEY)
    whole = optimise(model, Batch(x, None, torch.zeros_like(bad)), ALL, steps=20, samples=50, key=KEY)
    keep = torch.tensor([0, 2, 3])
    assert found.best[:, 1].isnan().all()
    torch.testing.assert_close(found.best[:, keep], whole.best[:, keep])


@pytest.mark.parametrize(
    "posterior",
    [None, FullNormal(nn.Linear(6, 9), 3), Planar(nn.Linear(6, 6 + 2 * 7), 3, layers=2)],
    ids=["none", "full", "planar"],
)
def test_any_posterior(posterior: Posterior | None) -> None:
    """A fitted q, a full one, and one that is no normal, whose moments are the start; the best full normal is no worse
    than any of the three but by the error of the decisions."""
    found = optimise(network(posterior), BITS, (Full(),), steps=60, samples=400, key=KEY)
    assert (found.gain > -4 * found.gain_mc_se - optimised.TIE).all()
    assert (found.gain.mean() < 0.5) == (posterior is None)


# -- the result --------------------------------------------------------------------------------------------------------


@pytest.fixture
def result(ppca: Any) -> Gaps:
    model, truth = ppca.model(shift=0.5), ppca.log_evidence()
    known = [bracket(truth[:10], 0.1), bracket(truth[10:], 0.2)]
    families: tuple[Family, ...] = (Diagonal(), Full())
    stages: list[tuple[str, int, int]] = []
    found = gaps(
        model,
        ppca.x[:10],
        train=ppca.x[10:],
        families=families,
        steps=60,
        samples=100,
        brackets=known,
        on_progress=lambda *stage: stages.append(stage),
    )
    assert stages == [("q* of test rows", 10, 10), ("q* of train rows", 6, 6)]
    return found


def test_the_parts_add_up(result: Gaps, ppca: Any) -> None:
    truth, table = ppca.log_evidence(), result.as_dict()
    for name in ("test", "train"):
        split = table[name]
        for side in ("lower", "upper"):
            whole = split[f"full_approximation_{side}"] + split["full_amortisation"]
            assert whole == pytest.approx(split[f"kl_{side}"])
            assert whole == pytest.approx(split[side] - split["elbo"])
    generalisation = float(truth[10:].mean() - truth[:10].mean())
    assert table["generalisation_lower"] == pytest.approx(generalisation - 0.3)
    assert table["generalisation_upper"] == pytest.approx(generalisation + 0.3)
    assert table["generalisation_lower_se"] == pytest.approx(
        math.sqrt(float(truth[10:].var() / 6 + truth[:10].var() / 10))
    )
    assert table["generalisation_elbo"] == pytest.approx(table["train"]["elbo"] - table["test"]["elbo"])
    amortisation = result.test.amortisation(Full())
    assert table["test"]["full_amortisation_mc_se"] == pytest.approx(
        float(amortisation.mc_se.square().sum().sqrt()) / 10
    )
    assert table["test"]["full_amortisation_se"] == pytest.approx(float(amortisation.value.std()) / math.sqrt(10))


def test_table_frame_and_words(result: Gaps) -> None:
    frame, table = result.frame(), result.as_dict()
    assert frame["set"].tolist() == ["test"] * 10 + ["train"] * 6
    test = frame[frame["set"] == "test"]
    for name in ("elbo", "kl_upper", "diagonal_approximation_lower", "full_elbo"):
        assert test[name].mean() == pytest.approx(table["test"][name])
        assert (test[f"{name}_mc_se"] >= 0).all()
    lines = str(result).splitlines()
    mean = result.test.amortisation(Full()).mean()
    assert any("full: amortisation gap" in line and f"{mean.value:.3f} ± {mean.se:.3f}" in line for line in lines)
    assert len({len(line) for line in lines[1:-4]}) == 1  # one column under the other
    assert "train − test" in lines[-2]
    assert BOUND in lines[-1]


def test_refusals(ppca: Any) -> None:
    model, truth = ppca.model(), ppca.log_evidence()
    refused("no family", lambda: gaps(model, ppca.x, families=(), brackets=[bracket(truth)]))
    refused(
        "'full'.*Diagonal", lambda: gaps(model, ppca.x, families=("full",), brackets=[bracket(truth)]), InputTypeError
    )
    refused("samples is 1", lambda: gaps(model, ppca.x, samples=1, brackets=[bracket(truth)]))
    refused("steps is 0", lambda: gaps(model, ppca.x, steps=0, brackets=[bracket(truth)]))
    refused("1 brackets for 2 sets", lambda: gaps(model, ppca.x, train=ppca.x, brackets=[bracket(truth)]))
    refused("other rows than the test", lambda: gaps(model, ppca.x, brackets=[bracket(truth[:3])]))
    refused("hidden is 0", lambda: Flow(hidden=0))
    with torch.inference_mode():
        refused("torch.no_grad", lambda: optimise(model, ppca.x, ALL, key=KEY))
