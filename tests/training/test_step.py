"""The compiled step does what the eager one does; averaging, half precision, products; the rule that decides."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import vaelid as vd
from vaelid.model import evaluating
from vaelid.networks import products
from vaelid.objectives import ELBO, IWAE, STL, Objective, Warmup
from vaelid.training import Compiled, Finished, Settings
from vaelid.training.adam import Adam
from vaelid.training.step import STEPS, STEPS_LARGE, Step, worth_compiling
from vaelid.types import Batch

KEY = vd.Key(11)
WIDE = 784  # a batch of 128 rows then meets products that are large enough for oneDNN


def model_of(cells: int = 6, hidden: tuple[int, ...] = (8,), latent: int = 2) -> vd.VAE:
    torch.manual_seed(3)
    decoder = vd.networks.MLP(latent, cells, hidden)
    encoder = vd.networks.MLP(cells, latent, hidden, heads=2)
    return vd.VAE(
        vd.priors.StandardNormal(latent), vd.likelihoods.Bernoulli(decoder), vd.posteriors.DiagonalNormal(encoder)
    )


def bits(rows: int, cells: int) -> Tensor:
    return (KEY.fold("x").uniform((rows, cells)) < 0.4).float()


def weights(model: vd.VAE) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def train(model: vd.VAE, x: Tensor, objective: Objective | None = None, **settings: Any) -> list[vd.training.Event]:
    chosen = Settings(**{"epochs": 3, "batch_size": 16, "warmup_steps": 0} | settings)
    return list(vd.training.events(model, x.numpy(), objective=objective, settings=chosen))


def test_compiled_steps_are_eager_steps() -> None:
    objective, settings = ELBO(beta=Warmup(4)), Settings(average=0.9)
    x = bits(128, WIDE)
    batch = Batch(x, mask=KEY.uniform((128, WIDE)) < 0.9, weight=1 + KEY.uniform((128,)), row_id=torch.arange(128))
    records, models, means = [], [], []
    for compiled in (True, False):
        model = model_of(WIDE, (256,))
        optimizer = Adam(model, settings.clip, settings.average, flat=compiled)
        step = Step(model, objective, optimizer, settings)
        before = weights(model)
        if compiled:
            assert step.compile(batch, KEY.normal((1, 128, 2))) == ""
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
            assert not any(value.any() for name, value in optimizer.tensors().items() if name.startswith("adam."))
        for number in range(5):
            u = KEY.fold("u", number).normal((1, 128, 2))
            records.append(step(batch, u, 1e-3, number).detach())
        few = batch.take(slice(0, 7))  # the short batch at an epoch's end, never compiled
        records.append(step(few, KEY.normal((1, 7, 2)), 1e-3, 5).detach())
        models.append(model)
        means.append(optimizer.average)
    # one rounding step of float32 in sums of 10⁵ cells, and Adam's division of a small gradient by its own size
    for ours, eager in zip(records[:6], records[6:], strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-3)
    for ours, eager in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-3, atol=1e-4)
    for ours, eager in zip(*means, strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-3, atol=1e-4)


def test_a_compiled_run_resumes_bit_for_bit(tmp_path: Any) -> None:
    x, settings = bits(120, 6).numpy(), Settings(epochs=2, batch_size=32, compile=True, average=0.5)
    history = vd.fit(model_of(), x, settings=settings, out=tmp_path / "half", progress=False)
    assert len(history.epochs) == 2
    resumed, _ = vd.resume(tmp_path / "half", epochs=4, progress=False)
    whole = model_of()
    vd.fit(whole, x, settings=settings, epochs=4, progress=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    storages = {p.untyped_storage().data_ptr() for p in whole.parameters()}
    assert len(storages) == len(list(whole.parameters())), "parameters have memory of their own again"


def test_without_a_compiler_training_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no C++ compiler\nwas found")

    x, eager, tried = bits(60, 6), model_of(), model_of()
    train(eager, x, compile=False)
    monkeypatch.setattr(torch, "compile", none)
    events = train(tried, x, compile=True)
    assert [event.failure for event in events if isinstance(event, Compiled)] == ["no C++ compiler"]
    assert isinstance(events[-1], Finished)
    for name, value in eager.state_dict().items():
        assert torch.equal(value, tried.state_dict()[name]), name


@pytest.mark.parametrize(
    ("model", "objective", "steps", "expected"),
    [
        (model_of(), ELBO(), STEPS, True),
        (model_of(), ELBO(), STEPS - 1, False),
        (model_of(WIDE, (700,)), ELBO(), STEPS_LARGE, True),
        (model_of(WIDE, (700,)), ELBO(), STEPS_LARGE - 1, False),
        (model_of(), ELBO(beta=Warmup(9)), STEPS, True),
        (model_of(), ELBO(beta=lambda step: 0.5), STEPS, False),
        (model_of(), ELBO(gradient=STL()), STEPS, False),
        (model_of(), IWAE(), STEPS, True),
        (vd.recipes.vae(torch.zeros(4, 1, 16, 16).numpy(), likelihood="bernoulli"), ELBO(), STEPS, False),
    ],
    ids=["long", "short", "large", "large-short", "warm-up", "own-beta", "stl", "iwae", "convolutions"],
)
def test_what_is_compiled(model: vd.VAE, objective: Objective, steps: int, expected: bool) -> None:
    assert worth_compiling(model, objective, steps) is expected


def test_the_choice_is_recorded(tmp_path: Any) -> None:
    vd.fit(model_of(), bits(40, 6).numpy(), epochs=1, out=tmp_path / "run", progress=False)
    assert "compile = false" in (tmp_path / "run" / "config.toml").read_text()


def test_averages_follow_their_formula() -> None:
    model, decay = model_of(), 0.7
    optimizer = Adam(model, 5.0, decay)
    step = Step(model, ELBO(), optimizer, Settings(average=decay))
    means = [p.detach().clone() for p in model.parameters()]
    x = bits(16, 6)
    for number in range(30):
        step(Batch(x), KEY.fold(number).normal((1, 16, 2)), 1e-2, number)
        alpha = min(decay, (1 + number) / (10 + number))
        means = [mean + (1 - alpha) * (p.detach() - mean) for mean, p in zip(means, model.parameters(), strict=True)]
    for mine, mean in zip(optimizer.average, means, strict=True):
        torch.testing.assert_close(mine, mean, rtol=1e-5, atol=1e-6)


def test_averaged_weights_are_what_is_validated_and_kept() -> None:
    x, model = bits(80, 6), model_of()
    events = train(model, x, average=0.8, epochs=4, patience=0)
    kept = [event for event in events if isinstance(event, vd.training.EpochDone) and event.best][-1]
    parts = vd.data.standard_split(80)
    again = vd.Key(0).fold("training").fold("validation")
    with torch.no_grad(), evaluating(model):
        problem = model.given(Batch(x[parts.validation], row_id=torch.from_numpy(parts.validation)))
        outcome = ELBO()(problem, problem.noise(again, 1), 0)
    assert float(outcome.bound.mean()) == pytest.approx(kept.validation["bound"], rel=1e-6)


def test_half_precision_moves_products_alone() -> None:
    x, full, half = bits(64, WIDE), model_of(WIDE, (32,)), model_of(WIDE, (32,))
    exact = [event for event in train(full, x) if isinstance(event, vd.training.EpochDone)][-1]
    rough = [event for event in train(half, x, precision="bfloat16") if isinstance(event, vd.training.EpochDone)][-1]
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(full.parameters(), half.parameters(), strict=True))
    # 2⁻⁸ is bfloat16's rounding; the bound is near −530 nats
    assert exact.validation["bound"] == pytest.approx(rough.validation["bound"], rel=2**-8)


@pytest.mark.skipif(not products.available(), reason="no vectors of 512 bits, or no oneDNN, on this machine")
def test_fast_products_are_the_same_products(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    whole = products.mm
    monkeypatch.setattr(products, "mm", lambda *given: calls.append(given) or whole(*given))
    layer, z = torch.nn.Linear(64, 512), KEY.normal((4, 128, 64))
    with torch.no_grad():
        expected = layer(z)
        with products.FastProducts():
            assert layer(z[:1, :1]).shape == (1, 1, 512)
            assert not calls
            torch.testing.assert_close(layer(z), expected, rtol=1e-5, atol=1e-6)
            assert len(calls) == 1
            batched = torch.func.vmap(lambda row: layer(row))(z)
            torch.testing.assert_close(batched, expected, rtol=1e-5, atol=1e-6)
    assert len(calls) == 1
    z.requires_grad_()
    plain = torch.autograd.grad(layer(z).square().sum(), z)
    with products.FastProducts():
        out = layer(z)
    fast = torch.autograd.grad(out.square().sum(), z)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
    assert len(calls) == 3  # one more forward, one backward: none for the weights, which count as constants
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(out.sum(), layer.weight)


def test_copies_of_a_model_in_training_are_whole() -> None:
    model = model_of()
    optimizer = Adam(model, 5.0, flat=True)
    twin = copy.deepcopy(model)
    optimizer.flat[0].zero_()
    assert all(bool((p == 0).all()) for p in model.parameters())
    assert any(bool((p != 0).any()) for p in twin.parameters())
