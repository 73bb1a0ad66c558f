"""The stage-1 networks: encoders of CF and text embeddings into one joint space, and their decoders.

A-LLMRec (KDD'24) §4.1: e_i = f_enc^I(E_i) and q_i = f_enc^T(Q_i), each one linear layer and a sigmoid, width
J = 128; f_dec^I and f_dec^T one linear layer each. `deep` (the university report): the encoders have four
hidden layers of decreasing width with ReLU and dropout 0.2 between them and a linear output; the decoders
stay linear (ours: the report deepens the alignment, and L_rec reads f_dec^I).
"""

from __future__ import annotations

from torch import Tensor, nn

from allmrec.config import Stage1Config

DEEP_DROPOUT = 0.2
DEEP_WIDTHS = (4.0, 3.0, 2.0, 1.5)
"""Hidden widths of the deep encoders, in multiples of the joint width."""


class AlignmentNetworks(nn.Module):
    """f_enc^I, f_enc^T, f_dec^I, f_dec^T for CF width D, text width S and joint width J = `config.width`.

    `centre` is the middle of the joint space, 1/2 behind a sigmoid: cosines are taken around it. Around the
    origin all sigmoid outputs have a cosine near 1 and InfoNCE hardly learns (retrieval of e_i by q_i among
    2,000 items, Hit@10: .04 around 0, .27 around 1/2).
    """

    def __init__(self, cf_width: int, text_width: int, config: Stage1Config) -> None:
        super().__init__()
        self.width = config.width
        self.centre = 0.5 if config.networks == "plain" else 0.0
        self._item_encoder = _encoder(cf_width, config)
        self._text_projector = _encoder(text_width, config)
        self._item_decoder = nn.Linear(config.width, cf_width)
        self._text_decoder = nn.Linear(config.width, text_width)

    def item_encoder(self, E_ND: Tensor) -> Tensor:
        """Return e = f_enc^I(E), [N, D] → [N, J]."""
        return self._item_encoder(E_ND)

    def text_projector(self, Q_NS: Tensor) -> Tensor:
        """Return q = f_enc^T(Q), [N, S] → [N, J]."""
        return self._text_projector(Q_NS)

    def item_decoder(self, e_NJ: Tensor) -> Tensor:
        """Return f_dec^I(e), [N, J] → [N, D]."""
        return self._item_decoder(e_NJ)

    def text_decoder(self, q_NJ: Tensor) -> Tensor:
        """Return f_dec^T(q), [N, J] → [N, S]."""
        return self._text_decoder(q_NJ)


def _encoder(width: int, config: Stage1Config) -> nn.Sequential:
    if config.networks == "plain":
        return nn.Sequential(nn.Linear(width, config.width), nn.Sigmoid())
    layers: list[nn.Module] = []
    for factor in DEEP_WIDTHS:
        hidden = int(factor * config.width)
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(DEEP_DROPOUT)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, config.width))
