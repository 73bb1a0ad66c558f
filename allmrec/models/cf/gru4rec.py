"""GRU4Rec: a recurrent network over the history (Hidasi et al., ICLR 2016; Tan et al., DLRS 2016).

    h_t = GRU(h_{t−1}, E_{i_t}),  h_0 = 0,  x_u = W h_n + b,  s_ui = x_u · E_i

Gates have no bias, their weights start Xavier-uniform, and `cf.dropout` is that of the embeddings, as in
RecBole's `gru4rec.py`.

Departures from the papers: the table of the output is that of the input by W and b; every position of a
user's history predicts the next item by `cf.loss`, where the first paper has session-parallel batches with
the losses TOP1 and BPR.
"""

from __future__ import annotations

from torch import Tensor, nn

from allmrec.config import CFConfig
from allmrec.models.cf.base import Backbone, Catalogue
from allmrec.models.cf.causal import CausalModel


class GRU4Rec(CausalModel):
    """Layers of gated recurrent units of width H = `hidden_width`, and a map from H to D."""

    def __init__(
        self, num_items: int, width: int, hidden_width: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__(num_items, width)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(width, hidden_width, num_layers, bias=False, batch_first=True)
        self.output = nn.Linear(hidden_width, width)
        for weights in self.gru.parameters():
            nn.init.xavier_uniform_(weights)

    @classmethod
    def of(cls, settings: CFConfig, catalogue: Catalogue) -> GRU4Rec:
        """Return the untrained model of `cf` and `cf.gru4rec`."""
        own = settings.gru4rec
        return cls(catalogue.num_items, settings.width, own.hidden_width, own.num_layers, settings.dropout)

    def states(self, items_BM: Tensor) -> Tensor:
        """[B, M, D]: W h_t + b after every item of [B, M] int64, with 0 behind the items of a row."""
        hidden_BMH, _ = self.gru(self.dropout(self.item_embedding(items_BM)))
        return self.output(hidden_BMH)


BACKBONE = Backbone(GRU4Rec.of)
