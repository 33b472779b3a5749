"""Distribution values against SciPy, and what must hold of every family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import CASES, FLAT, Case, cast, rebuilt, tensor, tensors, with_gradients
from torch import Tensor

from vaelid.random import Key

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def oracle(case: Case, question: str, x: np.ndarray) -> np.ndarray:
    """``question`` put to the SciPy distribution of every cell, (points, cells)."""
    mirrored = {"logpdf": lambda d, x: d.logpdf(1 - x), "cdf": lambda d, x: d.sf(1 - x)}
    columns = []
    for i in range(case.cells):
        flip = case.name == "continuous Bernoulli" and FLAT[i] > 0
        frozen = case.oracle(i)
        columns.append(mirrored[question](frozen, x) if flip else getattr(frozen, question)(x))
    return np.stack(columns, axis=-1)


def near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Within ``tolerance`` of the expected value or of 1, whichever is larger."""
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def typical(case: Case) -> Tensor:
    return case.value.icdf(torch.full((case.cells,), 0.4, dtype=torch.float64))


@every
def test_total_mass_is_one(case: Case) -> None:
    total = case.expectation(torch.ones_like)
    torch.testing.assert_close(total, torch.ones(case.cells, dtype=torch.float64), rtol=0, atol=1e-11)


@every
def test_log_prob_and_cdf_agree_with_scipy(case: Case) -> None:
    x = case.levels()
    log_prob = oracle(case, "logpmf" if case.value.discrete else "logpdf", x[:, 0].numpy())
    known = log_prob > -600  # below, SciPy's masses underflow
    np.testing.assert_allclose(case.value.cell_log_prob(x).numpy()[known], log_prob[known], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(case.value.cdf(x), oracle(case, "cdf", x[:, 0].numpy()), rtol=1e-10, atol=1e-13)


@every
def test_moments_agree_with_the_density(case: Case) -> None:
    mean = case.expectation(lambda x: x)
    torch.testing.assert_close(case.value.mean, mean, rtol=1e-10, atol=1e-12)
    variance = case.expectation(lambda x: (x - mean).square())
    torch.testing.assert_close(case.value.variance, variance, rtol=1e-10, atol=1e-12)


@every
def test_cdf_outside_the_support(case: Case) -> None:
    if case.value.discrete or case.name == "continuous Bernoulli":
        low, high = float(case.support[0]), float(case.support[-1])
        np.testing.assert_array_equal(case.value.cdf(tensor(low - 0.5)), 0)
        np.testing.assert_allclose(case.value.cdf(tensor(high + 0.5)), 1, rtol=1e-12)
    if case.value.discrete:
        torch.testing.assert_close(case.value.cdf(tensor(1.7)), case.value.cdf(tensor(1.0)))


@every
def test_icdf_is_the_quantile(case: Case) -> None:
    u = Key(1).uniform((500, case.cells), dtype=torch.float64)
    x = case.value.icdf(u)
    if not case.value.discrete:
        torch.testing.assert_close(case.value.cdf(x), u, rtol=1e-11, atol=1e-11)
        return
    assert ((x == x.round()) & (x >= case.support[0]) & (x <= case.support[-1])).all()
    assert (case.value.cdf(x) >= u).all()
    assert (case.value.cdf(x - 1) < u).all()


@every
def test_unobserved_cells_add_nothing(case: Case) -> None:
    value, leaves = with_gradients(case.value)
    x = value.icdf(torch.full((case.cells,), 0.3, dtype=torch.float64)).detach()
    mask = torch.ones(case.cells, dtype=torch.bool)
    mask[1] = False
    holed = torch.where(mask, x, torch.nan).requires_grad_()
    result = value.log_prob(holed, mask)
    expected = value.cell_log_prob(x)[mask].sum()
    torch.testing.assert_close(result, expected, rtol=1e-14, atol=0)
    gradients = torch.autograd.grad(result, [holed, *leaves], allow_unused=True, materialize_grads=True)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all((gradient[1] == 0).all() for gradient in gradients)
    assert all((gradient[0] != 0).any() for gradient in gradients[1:])
    assert value.log_prob(holed, torch.zeros_like(mask)).item() == 0
    torch.testing.assert_close(value.log_prob(x, torch.ones_like(mask)), value.log_prob(x), rtol=0, atol=0)


@every
@pytest.mark.parametrize("event_dims", [0, 1, 2])
def test_log_prob_sums_over_the_event(case: Case, event_dims: int) -> None:
    event = (3, case.cells)[2 - event_dims :]
    parts = []
    for part in tensors(case.value).values():
        classes = part.shape[1:]
        parts.append((part if event_dims else part[0]).expand(5, 4, *event, *classes))
    value = rebuilt(case.value, parts, event_dims=event_dims)
    x = value.icdf(Key(2).uniform((4, *event), dtype=torch.float64))[0]
    assert x.shape == (4, *event)
    result = value.log_prob(x)
    assert result.shape == (5, 4)
    assert value.mean.shape == value.variance.shape == value.cdf(x).shape == (5, 4, *event)
    torch.testing.assert_close(result, value.cell_log_prob(x).reshape(5, 4, -1).sum(-1), rtol=1e-13, atol=0)


@every
def test_gradcheck(case: Case) -> None:
    x = typical(case)
    value, leaves = with_gradients(case.value)
    x.requires_grad_(not case.value.discrete)
    assert torch.autograd.gradcheck(lambda x, *parts: rebuilt(value, parts).log_prob(x), [x, *leaves])


@every
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own, on first use
def test_forward_mode_gives_the_same_derivative(case: Case) -> None:
    x = typical(case)
    value, leaves = with_gradients(case.value)
    directions = [Key(4).fold(i).normal(leaf.shape, dtype=leaf.dtype) for i, leaf in enumerate(leaves)]
    gradients = torch.autograd.grad(value.log_prob(x), leaves)
    expected = sum(((g * d).sum() for g, d in zip(gradients, directions, strict=True)), torch.zeros(()).double())
    plain = tuple(leaf.detach() for leaf in leaves)
    forward = torch.func.jvp(lambda *parts: rebuilt(value, parts).log_prob(x), plain, tuple(directions))[1]
    torch.testing.assert_close(forward, expected, rtol=1e-10, atol=1e-12)


@every
def test_single_precision_is_close(case: Case) -> None:
    """float32 against float64 at the same numbers, within 16 units in the last place; summed levels and slopes, 64."""
    single = cast(case.value, torch.float32)
    value, leaves = with_gradients(cast(single, torch.float64))
    x, last_place = typical(case).float(), torch.finfo(torch.float32).eps
    exact = value.log_prob(x.double())
    near(single.log_prob(x).double(), exact.detach(), 16 * last_place)
    near(single.mean.double(), value.mean.detach(), 64 * last_place)
    near(single.variance.double(), value.variance.detach(), 64 * last_place)
    single, leaves32 = with_gradients(single)
    ours, theirs = torch.autograd.grad(single.log_prob(x), leaves32), torch.autograd.grad(exact, leaves)
    for our, their in zip(ours, theirs, strict=True):
        near(our.double(), their, 64 * last_place)


@every
def test_extremes_are_finite_in_single_precision(case: Case) -> None:
    levels = {"normal": (-1e4, 0, 3), "categorical": (0, 1, 2), "negative binomial": (0, 1, 37, 1e5)}
    for extreme in case.extremes:
        for x in levels.get(case.name, (*case.support[[0, 1, -1]], *case.support[len(case.support) // 2 :][:1])):
            value, leaves = with_gradients(extreme)
            at = torch.tensor(float(x)).expand(value.mean.shape)
            cells = value.cell_log_prob(at)
            assert cells.dtype == torch.float32
            assert torch.isfinite(cells).all()
            exact = cast(extreme, torch.float64).cell_log_prob(at.double())
            torch.testing.assert_close(cells.detach().double(), exact, rtol=1e-6, atol=1e-5)
            gradients = torch.autograd.grad(cells.sum(), leaves)
            assert all(torch.isfinite(gradient).all() for gradient in gradients)


@every
def test_detach_cuts_the_graph_and_nothing_else(case: Case) -> None:
    value, _ = with_gradients(replace(case.value, event_dims=0))
    cut = value.detach()
    assert type(cut) is type(value)
    assert cut.event_dims == 0
    assert value.mean.requires_grad
    assert not cut.mean.requires_grad
    for name, part in tensors(value).items():
        torch.testing.assert_close(getattr(cut, name), part.detach(), rtol=0, atol=0)


@every
def test_compiles_to_one_graph(case: Case) -> None:
    x = typical(case)
    mask = torch.ones(case.cells, dtype=torch.bool)
    names = list(tensors(case.value))
    torch.compiler.reset()  # the families are so many functions, not one that is compiled again and again

    def log_prob(*parts: Tensor) -> Tensor:
        return replace(case.value, **dict(zip(names, parts, strict=True))).detach().log_prob(x, mask)

    compiled: Callable[..., Tensor] = torch.compile(log_prob, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*tensors(case.value).values()), case.value.log_prob(x), rtol=1e-14, atol=0)
