"""How to train: one frozen configuration with its checks."""

from __future__ import annotations

from typing import Annotated, Literal, final

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@final
class Settings(BaseModel):
    """Training settings; everything here is settable in config.toml and by ``--set training.NAME=VALUE``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: PositiveInt = Field(500, description="passes over the training rows, at most")
    batch_size: PositiveInt = Field(128, description="rows per step")
    learning_rate: PositiveFloat = Field(2e-3, description="Adam's rate after warm-up")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(100, description="steps over which the rate rises from 0")
    schedule: Literal["plateau", "cosine"] = Field(
        "plateau",
        description="plateau: lower the rate when validation stands still; cosine: to a hundredth at the horizon",
    )
    plateau: PositiveInt = Field(10, description="epochs without a better bound before the rate is lowered")
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.4, description="what a plateau multiplies the rate by")
    horizon: PositiveInt | None = Field(None, description="epochs of the cosine; by default those first asked for")
    patience: Annotated[int, Field(ge=0)] = Field(
        30, description="epochs without a better bound before stopping; 0: never"
    )
    clip: PositiveFloat = Field(5.0, description="gradients longer than this many times their running mean are cut")
    average: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="decay of a running mean of the weights, which is then what is kept; 0: the weights themselves"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: matrix products of training in half the bits; scores stay in float32"
    )
    compile: bool | None = Field(None, description="compile the training step; by default if the run is long enough")
    save_every: Annotated[float, Field(ge=0)] = Field(20.0, description="seconds between checkpoints")

    def resolved(self) -> Settings:
        """The same settings with the horizon written out."""
        if self.schedule == "cosine" and self.horizon is None:
            return self.model_copy(update={"horizon": self.epochs})
        return self
