"""What a run was asked to do: config.toml, in and out."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, final

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vaelid.data import Covariates, Dataset, Kind
from vaelid.data.covariates import Category, Number
from vaelid.data.roles import Roles
from vaelid.errors import InputError, nearest
from vaelid.objectives import ELBO, IWAE, STL, DReG, Objective, Pathwise, ScoreFunction, Warmup
from vaelid.training import Settings

FORMAT: Literal[1] = 1


class Section(BaseModel):
    """A frozen table of config.toml that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _listed(value: Any) -> Any:
    """A text as the list of names that its commas part."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_listed)]


@final
class DataConfig(Section):
    """Where the rows come from and how they are read."""

    source: str = Field("", description="built-in name, file or folder; memory, loader: rows kept in the run folder")
    label: str | None = Field(None, description="column or array with labels; never seen by the model")
    columns: Names | None = Field(None, description="columns of a table that are data; by default all without a role")
    drop: Names | None = Field(None, description="columns of a table that are no data")
    context: Names | None = Field(None, description="columns, arrays or labels that the model is given")
    weight: str | None = Field(None, description="column or array with a weight for each row")
    binarise: bool = Field(False, description="draw grey levels as 0 or 1 afresh at every step")
    kind: Kind | None = Field(None, description="image, table or array, written by vaelid")
    covariates: list[Category | Number] | None = Field(None, description="how context is encoded, written by vaelid")
    fingerprint: str = Field("", description="SHA-256 of the rows, written by vaelid")

    def encoding(self) -> Covariates | None:
        """How the context was encoded; None where there is none that has names."""
        return None if self.covariates is None else Covariates(tuple(self.covariates))

    def roles(self, *, lenient: bool = False) -> Roles:
        """The roles of columns in the data of a run, context being encoded as it was; see `Roles` for ``lenient``."""
        columns = None if self.columns is None else tuple(self.columns)
        return Roles(self.label, columns, (), self.encoding() or (), self.weight, lenient)

    def of(self, dataset: Dataset) -> Self:
        """The same with what a data set says about itself."""
        covariates = dataset.covariates
        found = {
            "source": dataset.source,
            "label": dataset.label_name,
            "columns": None if dataset.columns is None else list(dataset.columns),
            "context": None if covariates is None else list(covariates.names),
            "weight": dataset.weight_name,
            "kind": dataset.kind,
            "covariates": None if covariates is None else list(covariates.columns),
            "fingerprint": dataset.fingerprint,
        }
        return self.model_copy(update=found)


@final
class ModelConfig(Section):
    """The model that `vaelid train` builds."""

    latent: Annotated[int, Field(ge=1)] | None = Field(None, description="latent size; by default √cells, 2 to 32")
    likelihood: str | None = Field(None, description="by default the one that suits the data")
    prior: Literal["standard-normal", "mixture", "vamp", "flow"] = Field("standard-normal", description="p(z)")
    posterior: Literal["diagonal-normal", "full-normal", "mixture", "planar", "iaf", "spline-flow"] = Field(
        "diagonal-normal", description="q(z|x)"
    )
    components: Annotated[int, Field(ge=1)] = Field(32, description="components of a mixture or vamp prior")
    network: Literal["mlp", "residual", "conv"] | None = Field(
        None, description="by default conv for images from 16 × 16 on, else mlp"
    )
    hidden: list[Annotated[int, Field(ge=1)]] | None = Field(None, description="widths of the hidden layers of the mlp")
    depth: Annotated[int, Field(ge=0)] | None = Field(
        None, description="hidden layers (mlp, 2), blocks (residual, 4) or blocks per level (conv, 0)"
    )


_GRADIENTS: dict[str, Any] = {"pathwise": Pathwise(), "stl": STL(), "dreg": DReG(), "score-function": ScoreFunction()}


@final
class ObjectiveConfig(Section):
    """What training maximises."""

    name: Literal["elbo", "iwae", "own"] = Field(
        "elbo", description="elbo or iwae; own: one that only Python can express"
    )
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1.0, description="weight of the KL (elbo); the end value of a warm-up"
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="steps over which beta rises from 0 (elbo)")
    free_bits: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="nats per latent dimension that cost nothing (elbo)"
    )
    samples: Annotated[int, Field(ge=1)] = Field(1, description="draws from q per row; K of the iwae")
    gradient: Literal["pathwise", "stl", "dreg", "score-function"] = Field(
        "pathwise", description="estimator: pathwise, stl (elbo), dreg (iwae), score-function (samples from 2 on)"
    )

    def build(self) -> Objective:
        """The objective that these settings name.

        Raises:
            InputError: it has no such setting, or is one of the user's own.
        """
        if self.name == "own":
            raise InputError(
                "the objective is one that config.toml cannot express",
                "the same objective from Python",
                "pass it: vaelid.resume(path, objective=…)",
            )
        if self.name == "iwae":
            if self.beta != 1 or self.warmup_steps or self.free_bits:
                raise InputError(
                    "beta, warmup_steps or free_bits with objective iwae", "samples only", "use elbo for these"
                )
            return IWAE(samples=self.samples, gradient=_GRADIENTS[self.gradient])
        beta = Warmup(self.warmup_steps, end=self.beta) if self.warmup_steps else self.beta
        gradient = _GRADIENTS[self.gradient]
        return ELBO(beta=beta, free_bits=self.free_bits, samples=self.samples, gradient=gradient)

    @classmethod
    def of(cls, objective: Objective) -> Self:
        """The settings that name an objective."""
        if not isinstance(objective, ELBO | IWAE) or objective.gradient not in _GRADIENTS.values():
            return cls(name="own")
        gradient = next(name for name, value in _GRADIENTS.items() if value == objective.gradient)
        common: dict[str, Any] = {"samples": objective.samples, "gradient": gradient}
        match objective:
            case IWAE():
                return cls(name="iwae", **common)
            case ELBO(beta=Warmup(steps=steps, start=0.0, end=end), analytic_kl=True):
                return cls(beta=end, warmup_steps=steps, free_bits=objective.free_bits, **common)
            case ELBO(beta=float() | int() as beta, analytic_kl=True):
                return cls(beta=beta, free_bits=objective.free_bits, **common)
        return cls(name="own")


@final
class EvaluationConfig(Section):
    """How the trained model is scored."""

    samples: Annotated[int, Field(ge=1)] = Field(
        500, description="K of the importance-weighted bound at the end of training"
    )
    rows: Annotated[int, Field(ge=1)] = Field(1000, description="test rows scored at the end of training, at most")
    evidence: Annotated[int, Field(ge=0)] | None = Field(
        None, description="test rows bracketed at the end of training, at most; by default 200, convolutional: 0"
    )


@final
class Config(Section):
    """Everything that `config.toml` of a run records."""

    format: Literal[1] = FORMAT
    seed: int = Field(0, description="names every random number of the run")
    device: str = Field("cpu", description="cpu, cuda, cuda:1, mps")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    training: Settings = Settings()
    evaluation: EvaluationConfig = EvaluationConfig()
    parts: dict[str, Any] = Field(default_factory=dict, description="the model as built from named parts")

    def to_toml(self) -> str:
        """The configuration as TOML; keys without a value are left out."""
        return tomli_w.dumps(self.model_dump(exclude_none=True, mode="json"))


def read_config(path: Path) -> dict[str, Any]:
    """A TOML file as nested tables.

    Raises:
        InputError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"no file {path}", "a configuration in TOML") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error})", "a configuration in TOML") from error


def resolve(*layers: dict[str, Any]) -> Config:
    """Configuration from nested tables, later ones first to be believed.

    Raises:
        InputError: a key is unknown (the nearest known one is named) or a value is not allowed.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(place) for place in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = nearest(where, [*known_keys(), "format"])
            raise InputError(f"unknown setting {where!r}", "a key of config.toml", known) from None
        expected = "a table of settings" if problem["type"] == "model_type" else _expectation(problem["msg"])
        raise InputError(f"{where} = {problem['input']!r}", expected) from None


def setting(text: str) -> dict[str, Any]:
    """``"training.epochs=20"`` as nested tables; the value is read as TOML, or else as text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text}", "KEY=VALUE", "for example --set training.epochs=20")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for name in reversed(key.strip().split(".")):
        parsed = {name: parsed}
    return parsed  # type: ignore[no-any-return]


def known_keys() -> list[str]:
    """Every key that ``--set`` takes."""
    keys = ["seed", "device"]
    for name in ("data", "model", "objective", "training", "evaluation"):
        section = type(getattr(Config(), name))
        keys += [f"{name}.{key}" for key in section.model_fields]
    return keys


def _merge(into: dict[str, Any], layer: dict[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, dict) else value


def _expectation(message: str) -> str:
    """Pydantic's "Input should be …" as what was expected."""
    return message.removeprefix("Input should be ").removesuffix(".")
