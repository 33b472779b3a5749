"""Transitions leave π_β as it was, by rank tests from exact draws; trajectories are reversible and of second order."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from evidence_cases import correlated, several_modes
from scipy import stats
from torch import Tensor, nn

from vaelid.evidence.hmc import Move, transition
from vaelid.evidence.paths import LatentPath, NoisePath, Path, State
from vaelid.evidence.simulation import simulate
from vaelid.likelihoods import FixedScale, Gaussian
from vaelid.model import VAE
from vaelid.networks import MLP
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import Mixture, StandardNormal
from vaelid.random import Key
from vaelid.types import Batch

KEY, ROWS, MOVES = Key(61), 3000, 7
Decoder = Literal["linear", "smooth", "kinks"]
Kind = Literal["noise", "moved", "latents"]
KINDS: list[Kind] = ["noise", "moved", "latents"]
STEP = {"noise": 0.6, "moved": 0.6, "latents": 0.4}


def model_of(decoder: Decoder, kind: Kind) -> VAE:
    """Two latents, four features; a prior of several modes where the path is over z."""
    networks = {
        "linear": lambda: nn.Linear(2, 4),
        "smooth": lambda: nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 4)),
        "kinks": lambda: nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 4)),
    }
    with KEY.fold(decoder).seeding():
        network = networks[decoder]()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(2.0)
        prior = Mixture(2, 3) if kind == "latents" else StandardNormal(2)
        encoder = MLP(4, 2, hidden=(8,), heads=2)
    return VAE(prior, Gaussian(network, (4,), FixedScale(0.8)), DiagonalNormal(encoder)).double()


def path_of(model: VAE, batch: Batch, kind: Kind) -> Path:
    if kind == "latents":
        problem = model.given(batch, start="prior")
        return LatentPath(problem, problem.prior)
    shape = (batch.rows, 2)
    moved = kind == "moved"
    loc = 0.5 * KEY.fold("loc").normal(shape, dtype=torch.float64) if moved else None
    scale = torch.full(shape, 0.8, dtype=torch.float64) if moved else None
    return NoisePath(model.given(batch), loc, scale)


def moved(path: Path, state: State, step: float, key: Key, *, leapfrogs: int = 3, beta: float = 1.0) -> Move:
    rows = torch.ones(path.problem.batch.rows, dtype=torch.float64)
    return transition(path, state, beta * rows, step * rows, leapfrogs, key)


def views(path: Path, state: State) -> Tensor:
    """What is ranked, (view, chain, row): both coordinates, |z|², log p(x, z)."""
    z = path.latents(state.position)
    return torch.stack((z[..., 0], z[..., 1], z.square().sum(-1), state.log_base + state.log_weight))


def rank_test(decoder: Decoder, kind: Kind, step: float) -> tuple[list[float], float]:
    """p-values of the ranks of the true z among chains through it, and the mean acceptance (Gandy & Scott 2020).

    Two chains start from z ~ p(z|x), the one that (x, z) were simulated with. As the kernel is reversible, the first k
    states of the one and the first n − k of the other, turned round, are n + 1 states of one stationary chain with the
    true z at position k. With k uniform its rank among them is uniform, ties broken at random.
    """
    simulated = simulate(model_of(decoder, kind), ROWS, KEY.fold("data"))
    model, batch = model_of(decoder, kind), simulated.batch
    path = path_of(model, batch, kind)
    state = path.state(path.of(simulated.z.unsqueeze(0)).expand(2, -1, -1))
    seen, acceptance = [views(path, state)], 0.0
    for move in range(MOVES):
        state, share = moved(path, state, step, KEY.fold("move", move))
        seen.append(views(path, state))
        acceptance += float(share.mean()) / MOVES
    start, after = seen[0][:, 0], torch.stack(seen[1:])  # (view, row), (move, view, chain, row)
    ahead = torch.randint(0, MOVES + 1, (ROWS,), generator=KEY.fold("ahead").generator())
    index = torch.arange(MOVES).unsqueeze(-1)
    kept = torch.stack((index < ahead, index < MOVES - ahead), 1).unsqueeze(1)  # (move, 1, chain, row)
    noise = torch.rand(after.shape, generator=KEY.fold("ties").generator())
    own = torch.rand((1, 1, 1, ROWS), generator=KEY.fold("own tie").generator())
    other = start.unsqueeze(0).unsqueeze(2)
    below = (after < other) | ((after == other) & (noise < own))
    ranks = (below & kept).sum((0, 2))  # (view, row)
    return [stats.chisquare(torch.bincount(each, minlength=MOVES + 1).numpy()).pvalue for each in ranks], acceptance


@pytest.mark.parametrize("decoder", ["linear", "smooth", "kinks"])
@pytest.mark.parametrize("kind", KINDS)
class TestRanks:
    def test_the_posterior_is_left_invariant(self, kind: Kind, decoder: Decoder) -> None:
        values, acceptance = rank_test(decoder, kind, STEP[kind])
        assert 0.3 < acceptance < 0.99  # some are rejected, most move
        assert min(values) > 1e-3

    def test_fails_without_metropolis(self, kind: Kind, decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(State, "where", lambda self, accepted, other: self)
        values, _ = rank_test(decoder, kind, 2 * STEP[kind])
        assert min(values) < 1e-9


@pytest.mark.parametrize("beta", [0.2, 0.6, 1.0])
def test_a_tempered_distribution_is_left_invariant(beta: float) -> None:
    """KS tests of both coordinates after ten moves from exact draws of a normal π_β, against its distribution."""
    case = correlated(1, common=0.5).repeated(0, 4000)
    problem = case.model(shift=0.3, stretch=1.3).given(Batch(case.x))
    path = NoisePath(problem)
    _, mean, precision = case.posterior()
    loc, scale = problem.start.loc[0].detach(), problem.start.scale[0].detach()
    inner = torch.diag((1 - beta) * scale.pow(-2))
    total = inner + beta * precision[0]
    centre = torch.linalg.solve(total, inner @ loc + beta * precision[0] @ mean[0, 0])
    covariance = torch.linalg.inv(total)
    z = centre + KEY.normal((1, 4000, 2), dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    state = path.state(path.of(z))
    for move in range(10):
        state = moved(path, state, 0.9, KEY.fold("tempered", move), leapfrogs=2, beta=beta).state
    found = path.latents(state.position)[0]
    assert float((found - z[0]).abs().mean()) > 0.1
    for j in range(2):
        law = stats.norm(float(centre[j]), math.sqrt(float(covariance[j, j])))
        assert stats.kstest(found[:, j].numpy(), law.cdf).pvalue > 1e-3


def test_several_modes_are_left_invariant() -> None:
    """KS tests against the exact posterior, a mixture of normals, of moves that hardly cross between its modes."""
    case = several_modes(3).repeated(1, 4000)
    problem = case.model().given(Batch(case.x), start="prior")
    path = LatentPath(problem, problem.prior)
    state = path.state(case.draws(KEY.fold("modes")).unsqueeze(0))
    before = state.position[0]
    for move in range(10):
        state = moved(path, state, 0.4, KEY.fold("modes", move)).state
    weight, loc, precision = case.posterior()
    spread = torch.linalg.inv(precision).diagonal(dim1=-2, dim2=-1).sqrt()
    assert float((state.position[0] - before).abs().mean()) > 0.1
    for j in range(2):
        laws = [stats.norm(float(loc[0, k, j]), float(spread[k, j])) for k in range(3)]
        share = weight[0].tolist()

        def cdf(x: Any, laws: Any = laws, share: Any = share) -> Any:
            return sum(w * law.cdf(x) for w, law in zip(share, laws, strict=True))

        assert stats.kstest(state.position[0, :, j].numpy(), cdf).pvalue > 1e-3


class Replay:
    """A key that gives the momentum it was made with, and accepts whatever can be."""

    def __init__(self, momentum: Tensor) -> None:
        self.momentum = momentum

    def fold(self, *data: str | int) -> Replay:
        return self

    def normal_rows(self, *args: Any, **options: Any) -> Tensor:
        return self.momentum

    def uniform_rows(self, *args: Any, **options: Any) -> Tensor:
        return torch.zeros_like(self.momentum[..., :1])


class Spy:
    """A path that remembers the last momentum that it moved along, which the half kick after it completes."""

    def __init__(self, path: Path) -> None:
        self.path, self.problem = path, path.problem
        self.momentum = torch.zeros(0)

    def state(self, position: Tensor) -> State:
        return self.path.state(position)

    def force(self, state: State, beta: Tensor) -> Tensor:
        return self.path.force(state, beta)

    def drift(self, position: Tensor, momentum: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        position, self.momentum = self.path.drift(position, momentum, step)
        return position, self.momentum


@pytest.mark.parametrize("kind", KINDS)
class TestIntegrator:
    @pytest.fixture
    def path(self, kind: Kind) -> Path:
        model = model_of("smooth", kind)
        return path_of(model, simulate(model, 50, KEY).batch, kind)

    @pytest.fixture
    def state(self, path: Path) -> State:
        return path.state(0.7 * KEY.fold("at").normal((4, 50, 2), dtype=torch.float64))

    @pytest.fixture
    def momentum(self) -> Tensor:
        return KEY.fold("momentum").normal((4, 50, 2), dtype=torch.float64)

    def test_a_trajectory_turned_round_comes_back(self, path: Path, state: State, momentum: Tensor) -> None:
        """…with the opposite change of energy, so that acceptances are in balance."""
        spy, step, beta = Spy(path), 0.2, 0.7
        there = moved(spy, state, step, Replay(momentum), beta=beta)
        end = spy.momentum + 0.5 * step * path.force(there.state, torch.full((50, 1), beta, dtype=torch.float64))
        back = moved(spy, there.state, step, Replay(-end), beta=beta)
        torch.testing.assert_close(back.state.position, state.position, rtol=0, atol=1e-9)
        assert bool(((there.acceptance == 1) | (back.acceptance == 1)).all())
        energies = [
            -each.log_base - beta * each.log_weight + 0.5 * p.square().sum(-1)
            for each, p in ((state, momentum), (there.state, end))
        ]
        gain = energies[0] - energies[1]
        torch.testing.assert_close(there.acceptance.log(), gain.clamp(max=0), rtol=0, atol=1e-9)
        torch.testing.assert_close(back.acceptance.log(), (-gain).clamp(max=0), rtol=0, atol=1e-9)

    def test_volume_is_kept(self, path: Path, state: State, momentum: Tensor) -> None:
        """|∂(position, momentum) after / before| = 1, by central differences."""
        step, h = 0.3, 1e-5
        spy = Spy(path)

        def after(position: Tensor, start: Tensor) -> Tensor:
            end = moved(spy, path.state(position), step, Replay(start)).state
            kick = 0.5 * step * path.force(end, torch.ones(50, 1, dtype=torch.float64))
            return torch.cat((end.position, spy.momentum + kick), -1)

        columns = []
        for side in h * torch.eye(4, dtype=torch.float64):
            above = after(state.position + side[:2], momentum + side[2:])
            columns.append((above - after(state.position - side[:2], momentum - side[2:])) / (2 * h))
        volume = torch.linalg.det(torch.stack(columns, -1))
        torch.testing.assert_close(volume, torch.ones_like(volume), rtol=0, atol=1e-6)

    def test_errors_of_energy_fall_with_the_square_of_the_step(self, path: Path, state: State) -> None:
        """Over a trajectory of one length; where nothing is left of them, everything is accepted."""
        lost = []
        for leapfrogs in (8, 16, 32, 512):
            move = moved(path, state, 0.8 / leapfrogs, KEY.fold("energy"), leapfrogs=leapfrogs)
            lost.append(float(-move.acceptance.log().mean()))
        assert lost[0] > 1e-4
        assert 3.6 < lost[0] / lost[1] < 4.4
        assert 3.8 < lost[1] / lost[2] < 4.2
        assert lost[3] < 1e-3 * lost[0]
