"""Networks: encoders and decoders that ship with vaelid. Any `torch.nn.Module` may stand in their place.

A network maps (batch, *inputs) to (batch, heads · outputs[0], *outputs[1:]): the box that owns it splits the
heads along the first event dimension. With ``context`` > 0 it is called as ``network(x, context)``.
"""

from vaelid.networks.call import call
from vaelid.networks.convolutional import ConvDecoder, ConvEncoder
from vaelid.networks.dense import MLP
from vaelid.networks.residual import Residual

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "Residual", "call"]
