"""Networks of the user's own, as they are: `wrap`, and readers of what such networks return."""

from vaelid.wrapping.adapters import Decoder, Encoder
from vaelid.wrapping.build import wrap
from vaelid.wrapping.readers import log_scale, log_variance, logits, scale, single

__all__ = ["Decoder", "Encoder", "log_scale", "log_variance", "logits", "scale", "single", "wrap"]
