"""Networks of other people's: whatever they return, wrapped without a change in them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import refused
from torch import Tensor, nn

import vaelid as vd
from vaelid.errors import InputTypeError
from vaelid.evidence import importance
from vaelid.fitted import PerDatum
from vaelid.likelihoods import Bernoulli, Binomial, Categorical, FixedScale, Gaussian
from vaelid.model import VAE, evaluating
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key
from vaelid.types import Batch
from vaelid.wrapping import log_scale, log_variance, logits, scale, single

KEY, LATENT, CELLS = Key(9), 2, 6
X = (KEY.fold("x").uniform((5, CELLS)) < 0.5).float()


class ModelOutput(OrderedDict[str, Any]):
    """What Pythae's networks return: an ordered mapping whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass
class Output:
    """What many frameworks return."""

    sample: Tensor
    note: str = "ok"


class Net(nn.Module):
    """A body and whatever it returns: ``form`` makes it of the body's tensor."""

    def __init__(self, body: nn.Module, form: Callable[[Tensor], Any] = lambda out: out) -> None:
        super().__init__()
        self.body, self.form = body, form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.body(x))


def decoder(form: Callable[[Tensor], Any] = lambda out: out, cells: int = CELLS, latent: int = LATENT) -> Net:
    torch.manual_seed(1)
    return Net(nn.Sequential(nn.Linear(latent, 8), nn.Tanh(), nn.Linear(8, cells)), form)


def encoder(form: Callable[[Tensor], Any] = lambda out: out, cells: int = CELLS) -> Net:
    """The body returns μ and log σ side by side."""
    torch.manual_seed(2)
    return Net(nn.Sequential(nn.Linear(cells, 8), nn.Tanh(), nn.Linear(8, 2 * LATENT)), form)


def reference() -> VAE:
    return VAE(StandardNormal(LATENT), Bernoulli(decoder()), DiagonalNormal(encoder()))


def same_numbers(model: VAE, other: VAE, x: Tensor = X) -> bool:
    found, expected = (importance(m, x, 20, KEY) for m in (model, other))
    return bool(torch.allclose(found.log_evidence, expected.log_evidence, rtol=1e-6, atol=1e-5))


# -- what networks return ----------------------------------------------------------------------------------------------

RETURNED: dict[str, tuple[Callable[[Tensor], Any], dict[str, Any]]] = {
    "tensor": (lambda out: out, {}),
    "tuple of one": (lambda out: (out,), {}),
    "list of one": (lambda out: [out], {}),
    "mapping": (lambda out: {"logits": out}, {}),
    "mapping with other things": (lambda out: {"logits": out, "step": 3}, {}),
    "Pythae's output": (lambda out: ModelOutput(reconstruction=out), {}),
    "object": (Output, {}),
    "not contiguous": (lambda out: out.T.contiguous().T, {}),
    "second of a tuple": (lambda out: (out * 0, out), {"decoded": lambda out: out[1]}),
    "attribute of many": (lambda out: SimpleNamespace(a=out * 0, b=out), {"decoded": lambda out: out.b}),
    "a distribution": (lambda out: torch.distributions.Bernoulli(logits=out), {"decoded": lambda out: out.logits}),
    "probabilities": (torch.sigmoid, {"decoded": logits}),
    "probabilities in a mapping": (lambda out: ModelOutput(reconstruction=out.sigmoid()), {"decoded": logits}),
}


@pytest.mark.parametrize("what", RETURNED)
def test_decoders(what: str) -> None:
    form, reader = RETURNED[what]
    model = vd.wrap(decoder(form), latent=LATENT, likelihood=Bernoulli, encoder=encoder(), encoded=log_scale, **reader)
    assert same_numbers(model, reference())


def halves(form: Callable[[Tensor, Tensor], Any]) -> Callable[[Tensor], Any]:
    return lambda out: form(*out.chunk(2, dim=1))


ENCODED: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Any]]] = {
    "log σ side by side": (lambda out: out, log_scale),
    "log σ in a pair": (halves(lambda m, s: (m, s)), log_scale),
    "log σ² in a list": (halves(lambda m, s: [m, 2 * s]), log_variance),
    "log σ² side by side": (halves(lambda m, s: torch.cat((m, 2 * s), 1)), log_variance),
    "σ in a pair": (halves(lambda m, s: (m, s.exp())), scale),
    "Pythae's output": (
        halves(lambda m, s: ModelOutput(embedding=m, log_covariance=2 * s)),
        lambda out: log_variance((out["embedding"], out["log_covariance"])),
    ),
    "mapping in the other order": (
        halves(lambda m, s: {"log_var": 2 * s, "mu": m}),
        lambda out: log_variance((out["mu"], out["log_var"])),
    ),
    "a distribution": (
        halves(lambda m, s: torch.distributions.Normal(m, s.exp())),
        lambda out: (out.mean, out.stddev.log()),
    ),
}


@pytest.mark.parametrize("what", ENCODED)
def test_encoders(what: str) -> None:
    form, reader = ENCODED[what]
    model = vd.wrap(decoder(), latent=LATENT, likelihood=Bernoulli, encoder=encoder(form), encoded=reader)
    assert same_numbers(model, reference())
    assert torch.allclose(model.encode(X), reference().encode(X))


def test_methods_of_one_module() -> None:
    """The VAE of PyTorch's examples: one module with methods ``encode`` and ``decode``, and a sigmoid."""

    class Example(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = encoder().body, decoder().body

        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mean, log_sigma = self.inner(x).chunk(2, dim=1)
            return mean, 2 * log_sigma

        def decode(self, z: Tensor) -> Tensor:
            return torch.sigmoid(self.outer(z))

    net = Example()
    model = vd.wrap(
        net.decode, latent=LATENT, likelihood=Bernoulli, decoded=logits, encoder=net.encode, encoded=log_variance
    )
    assert same_numbers(model, reference())
    assert {id(p) for p in model.parameters()} == {id(p) for p in net.parameters()}
    twin = copy.deepcopy(model)
    with torch.no_grad():
        net.outer[2].bias.add_(5)
    assert same_numbers(twin, reference())  # a copy has a module of its own
    assert not same_numbers(model, reference())


def test_logits_keep_what_a_sigmoid_tells() -> None:
    """Down to the smallest number and up to the last one below 1, with the gradient of the logit."""
    for dtype in (torch.float32, torch.float64):
        eps = torch.finfo(dtype).eps
        x = torch.linspace(-60, 30, 91, dtype=dtype)
        found = logits(torch.sigmoid(x))
        told = 2 * eps * (1 + x.exp())  # a rounding of p is that large in the logit
        assert ((found - x).abs() <= told.clamp(max=60) + 8 * eps * x.abs()).all()
        assert found.isfinite().all()
        ends = logits(torch.tensor([0.0, 1.0, -1e-3, 1.5], dtype=dtype))
        assert ends[:2].isfinite().all()
        assert ends[2:].isnan().all()
    near = torch.linspace(-8, 8, 9, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(logits(torch.sigmoid(near)).sum(), near)
    assert (slope - 1).abs().max() < 1e-9


# -- used as they are --------------------------------------------------------------------------------------------------


def test_modules_are_neither_copied_nor_changed() -> None:
    inner, outer = encoder().double(), decoder().double()
    inner.eval()
    outer.body[0].weight.requires_grad_(False)
    before = [(p, p.data_ptr(), p.clone(), p.requires_grad) for net in (inner, outer) for p in net.parameters()]
    model = vd.wrap(outer, latent=LATENT, likelihood=Bernoulli, encoder=inner, encoded=log_scale)
    assert model.dtype == torch.float64 == model.prior.zero.dtype
    assert {id(p) for p in model.parameters()} == {id(p) for p, *_ in before}
    vd.evaluate(model, X, samples=5)
    model.sample(3, KEY)
    for p, place, value, asks in before:
        assert p.data_ptr() == place
        assert torch.equal(p, value)
        assert p.requires_grad == asks
        assert p.grad is None
    assert not inner.training
    assert outer.training


def test_what_the_likelihood_holds_moves_to_the_networks_dtype() -> None:
    model = vd.wrap(decoder().double(), latent=LATENT, likelihood=lambda net: Gaussian(net, (CELLS,)))
    assert {tensor.dtype for tensor in (*model.parameters(), *model.buffers())} == {torch.float64}


def test_module_without_parameters() -> None:
    class Line(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.cat((z, z.sum(1, keepdim=True)), 1)

    model = vd.wrap(Line(), latent=2, likelihood=lambda net: Gaussian(net, (3,), FixedScale(0.1)))
    assert model.dtype == torch.float32
    z = torch.tensor([[0.3, -1.0]])
    assert (model.encode(torch.cat((z, z.sum(1, keepdim=True)), 1)) - z).abs().max() < 0.02


@pytest.mark.parametrize("with_encoder", [True, False])
def test_batch_statistics_and_dropout(with_encoder: bool) -> None:
    """Whatever mode they were in, a row's numbers depend on that row alone, and the statistics stay."""
    torch.manual_seed(3)
    outer = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, CELLS))
    inner = nn.Sequential(nn.BatchNorm1d(CELLS), nn.Linear(CELLS, 2 * LATENT), nn.Dropout(0.5))
    own = {"encoder": inner, "encoded": log_scale} if with_encoder else {}
    model = vd.wrap(outer, latent=LATENT, likelihood=Bernoulli, **own)
    before = copy.deepcopy(model.state_dict())
    ids = torch.arange(5) + 7
    all_rows = vd.evaluate(model, Batch(X, row_id=ids), samples=8).per_row
    alone = vd.evaluate(model, Batch(X[3:4], row_id=ids[3:4]), samples=8).per_row
    assert torch.allclose(alone.log_evidence, all_rows.log_evidence[3:4], atol=1e-3 if not with_encoder else 1e-5)
    assert torch.equal(model.sample(6, KEY)[:2], model.sample(2, KEY))
    assert torch.equal(model.reconstruct(X), model.reconstruct(X))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert outer.training
    assert inner.training


# -- what the encoder sees ---------------------------------------------------------------------------------------------


class Seen(nn.Module):
    """An encoder that keeps what it was given."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.x = x
        return x[:, :LATENT], x[:, :LATENT] * 0


def test_encoder_sees_x_itself() -> None:
    """Not what the likelihood would scale it to."""
    inner = Seen()
    counts = (KEY.fold("counts").uniform((4, CELLS)) * 17).floor()
    own = {"latent": LATENT, "encoder": inner, "encoded": log_variance}
    model = vd.wrap(decoder(), likelihood=lambda net: Binomial(net, 16), **own)
    model.encode(counts)
    assert torch.equal(inner.x, counts)
    mask = counts > 5
    model.encode(torch.where(mask, counts, float("nan")), mask)
    assert torch.equal(inner.x, counts * mask)
    model = vd.wrap(decoder(), likelihood=lambda net: Binomial(net, 16), features=lambda x: x / 16, **own)
    model.encode(counts)
    assert torch.equal(inner.x, counts / 16)


def test_images_in_and_out() -> None:
    """The encoder takes flat rows, the decoder gives images: the rows to ask about are images."""
    image = lambda out: out.view(-1, 1, 2, 3)  # noqa: E731
    own = {"encoder": encoder(), "encoded": log_scale, "features": lambda x: x.flatten(1)}
    model = vd.wrap(decoder(image), latent=LATENT, likelihood=Bernoulli, **own)
    assert torch.allclose(model.encode(image(X)), reference().encode(X))
    assert model.reconstruct(image(X)).shape == (5, 1, 2, 3)
    refused(r"events of shape \(1, 2, 3\); expected \(6,\)", lambda: model.check(Batch(X)))


def test_context_reaches_both_networks() -> None:
    outer, inner = vd.networks.MLP(LATENT, CELLS, (4,), context=3), vd.networks.MLP(CELLS, LATENT, (4,), 2, context=3)
    model = vd.wrap(outer, latent=LATENT, likelihood=Bernoulli, encoder=inner, encoded=log_scale, context=3)
    context = KEY.fold("c").normal((5, 3))
    plain = VAE(StandardNormal(LATENT), Bernoulli(outer), DiagonalNormal(inner))
    assert torch.equal(model.encode(X, context=context), plain.encode(X, context=context))
    assert torch.equal(model.sample(5, KEY, context), plain.sample(5, KEY, context))
    refused("no context, for a network", lambda: vd.wrap(outer, latent=LATENT, likelihood=Bernoulli))


def test_prior_of_ones_own() -> None:
    prior = StandardNormal(LATENT)
    assert vd.wrap(decoder(), latent=LATENT, likelihood=Bernoulli, prior=prior).prior is prior


# -- trained and saved -------------------------------------------------------------------------------------------------


def wrapped() -> tuple[Net, Net, VAE]:
    inner, outer = encoder(halves(lambda m, s: ModelOutput(a=m, b=2 * s))), decoder(torch.sigmoid)
    read = lambda out: log_variance((out.a, out.b))  # noqa: E731
    own = {"decoded": logits, "encoder": inner, "encoded": read}
    return inner, outer, vd.wrap(outer, latent=LATENT, likelihood=Bernoulli, **own)


DATA = (KEY.fold("data").uniform((60, 1)) < KEY.fold("level").uniform((1, CELLS))).float().numpy()


@pytest.mark.parametrize("frozen", [False, True])
def test_training_moves_the_users_parameters(frozen: bool) -> None:
    inner, outer, model = wrapped()
    outer.requires_grad_(not frozen)
    before = [[p.clone() for p in net.parameters()] for net in (inner, outer)]
    bound = vd.evaluate(model, DATA, samples=20).elbo.value
    vd.fit(model, DATA, epochs=10, progress=False)
    moved = [
        any(not torch.equal(p, q) for p, q in zip(net.parameters(), old, strict=True))
        for net, old in zip((inner, outer), before, strict=True)
    ]
    assert moved == [True, not frozen]
    if not frozen:
        assert vd.evaluate(model, DATA, samples=20).elbo.value > bound


def test_run_is_loaded_into_an_equal_model(tmp_path: Any) -> None:
    inner, outer, model = wrapped()
    vd.fit(model, DATA, epochs=2, progress=False, out=tmp_path / "run")
    refused("networks of your own.*model=model", lambda: vd.load(tmp_path / "run"))
    new_inner, new_outer, fresh = wrapped()
    assert vd.load(tmp_path / "run", model=fresh) is fresh
    for net, new in ((inner, new_inner), (outer, new_outer)):
        assert all(torch.equal(p, q) for p, q in zip(net.parameters(), new.parameters(), strict=True))
    assert same_numbers(model, fresh)
    again, history = vd.resume(tmp_path / "run", model=wrapped()[2], epochs=3, progress=False)
    assert history.epochs[-1].epoch == 3
    assert not same_numbers(model, again)


def test_gap_between_an_encoder_and_the_best_q() -> None:
    model = wrapped()[2]
    alone = VAE(model.prior, model.likelihood)
    assert isinstance(alone.posterior, PerDatum)
    assert vd.evaluate(alone, X, samples=200).elbo.value > vd.evaluate(model, X, samples=200).elbo.value


# -- refusals ----------------------------------------------------------------------------------------------------------


def ask(outer: Any = None, **given: Any) -> Callable[[], VAE]:
    own = {"latent": LATENT, "likelihood": Bernoulli} | given
    return lambda: vd.wrap(decoder() if outer is None else outer, **own)


def pair(form: Callable[[Tensor, Tensor], Any], reader: Any = log_scale) -> dict[str, Any]:
    return {"encoder": encoder(halves(form)), "encoded": reader}


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(2, 4), nn.Linear(4, 6).half()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "another latent size": (
        ask(latent=3),
        r"not take z of shape \(1, 3\) \(.*\); expected a network of 3 latents",
    ),
    "no latents": (ask(latent=0), "latent is 0"),
    "a prior of another size": (ask(prior=StandardNormal(3)), "latent=2 and a prior over 3 latents"),
    "no prior": (ask(prior=nn.Linear(2, 2)), "prior=Linear; expected a vaelid prior"),
    "a function as decoder": (ask(lambda z: z), "decoder=<lambda>; expected a torch.nn.Module, or a method"),
    "a class as decoder": (ask(Net), "decoder=Net; expected a torch.nn.Module"),
    "a function as encoder": (ask(encoder=print, encoded=log_scale), "encoder=print; expected a torch.nn.Module"),
    "a ready likelihood": (ask(likelihood=Bernoulli(decoder())), "likelihood is a Bernoulli; expected what makes one"),
    "likelihood by name": (ask(likelihood="bernoulli"), "likelihood is a str; expected what makes one"),
    "a likelihood that needs more": (ask(likelihood=Gaussian), r"cannot be made \(.*event_shape.*lambda net:"),
    "no likelihood": (ask(likelihood=lambda net: net), "likelihood made a Decoder of the decoder"),
    "two outputs": (
        ask(decoder(lambda out: (out, out))),
        r"returned a tuple of out\[0\] \(1, 6\), out\[1\] \(1, 6\); expected one tensor. Say which: "
        r"decoded=lambda out: out\[0\]",
    ),
    "named outputs": (
        ask(decoder(lambda out: {"x": out, "y": out})),
        r"returned a dict of out\['x'\] \(1, 6\), .*decoded=lambda out: out\['x'\]",
    ),
    "no output": (ask(decoder(lambda out: None)), "returned a NoneType of no tensors; expected one tensor"),
    "a reader that is none": (ask(decoded="x"), "decoded is a str; expected a function"),
    "a reader of another name": (
        ask(decoder(lambda out: {"x": out}), decoded=lambda out: out["y"]),
        r"decoded= cannot read a dict of out\['x'\] \(1, 6\) \(KeyError: 'y'\); expected a function of what the deco",
    ),
    "a reader that reads no tensor": (
        ask(decoder(lambda out: {"x": out}), decoded=lambda out: out),
        r"returned a dict .*, read as a dict .*; expected one tensor \(1, …\)",
    ),
    "a decoder that loses a dimension": (ask(decoder(lambda out: out.squeeze())), r"read as a tensor \(6,\)"),
    "a decoder of the whole batch": (ask(decoder(lambda out: out[:, :1].T)), "draws|a row for each"),
    "a missing head": (
        ask(likelihood=lambda net: Categorical(net, 4)),
        r"returned shape \(1, 6\); .*4 outputs per cell",
    ),
    "another event": (ask(likelihood=lambda net: Gaussian(net, (5,))), r"events of shape \(6,\); expected \(5,\)"),
    "probabilities as logits": (
        ask(decoder(torch.sigmoid)),
        r"numbers in \[0, 1\] at all of 64 draws .*; expected logits, which the Bernoulli .*decoded=vaelid.wrapping.l",
    ),
    "classes as logits": (
        ask(decoder(lambda out: out.softmax(1)), likelihood=lambda net: Categorical(net, 6)),
        r"expected logits, which the Categorical .*decoded=lambda out: out.log\(\) if",
    ),
    "logits as probabilities": (ask(decoded=logits), "not finite at draws from the prior.*reads probabilities only"),
    "an encoder without a reader": (
        ask(encoder=encoder()),
        "an encoder, and nothing .*Give encoded=vaelid.wr",
    ),
    "a reader without an encoder": (ask(encoded=log_scale), "encoded without an encoder"),
    "features without an encoder": (ask(features=lambda x: x), "features without an encoder"),
    "an encoder of other events": (
        ask(encoder=encoder(cells=5), encoded=log_scale),
        r"cannot encode a row of shape \(6,\) to 2 latents .*; expected an encoder from \(6,\) to 2 means",
    ),
    "an encoder of other latents": (
        ask(**pair(lambda m, s: (m[:, :1], s[:, :1]))),
        "the posterior has 1 latents; expected 2",
    ),
    "mean and σ of other shapes": (
        ask(**pair(lambda m, s: (m, s[:, :1]))),
        r"returned a tuple of out\[0\] \(1, 2\), out\[1\] \(1, 1\), read as .*; expected mean and log σ, \(1, latent\)",
    ),
    "three outputs of an encoder": (
        ask(**pair(lambda m, s: (m, s, m))),
        r"returned a tuple of .*out\[2\] \(1, 2\); expected a pair, the mean first",
    ),
    "named outputs of an encoder": (
        ask(**pair(lambda m, s: ModelOutput(embedding=m, log_covariance=s))),
        r"a ModelOutput of out\['embedding'\] .*Pick them: encoded=.*log_variance\(\(out\['embedding'\], out\['log_c",
    ),
    "an odd encoder": (
        ask(encoder=encoder(lambda out: out[:, :3]), encoded=log_variance),
        r"returned a tensor \(1, 3\); expected a pair",
    ),
    "a reader of the mean alone": (
        ask(**pair(lambda m, s: m, lambda out: out)),
        r"returned a tensor \(1, 2\), read as a tensor \(1, 2\); expected mean and log σ",
    ),
    "two dtypes": (ask(Half()), "networks in float16, float32; expected all in float32 or all in float64"),
    "another dtype of the encoder": (
        ask(encoder=encoder().double(), encoded=log_scale),
        "networks in float32, float64",
    ),
    "half precision": (ask(decoder().half()), "networks in float16"),
    "two devices": (ask(encoder=encoder().to("meta"), encoded=log_scale), "networks on cpu, meta"),
    "no covariates": (ask(context=-1), "context is -1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(what: str) -> None:
    call, line = REFUSED[what]
    refused(line, call)


def test_types_of_refusals() -> None:
    for what in ("a function as decoder", "a ready likelihood", "no likelihood", "a reader that is none", "no prior"):
        refused("", REFUSED[what][0], InputTypeError)


def test_numbers_in_the_unit_interval_that_are_logits() -> None:
    """Said to be logits, they are taken as such."""
    model = vd.wrap(decoder(torch.sigmoid), latent=LATENT, likelihood=Bernoulli, decoded=single)
    with evaluating(model), torch.no_grad():
        found = model.decode(torch.zeros(1, LATENT)).mean
        assert torch.equal(found, torch.sigmoid(torch.sigmoid(decoder()(torch.zeros(1, LATENT)))))
