"""Owns the model together with its KV pool tensor."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sgrun.models.decoder import Decoder
from sgrun.models.inputs import ForwardInputs
from sgrun.models.piece_graphs import PieceGraphs


@dataclass(frozen=True, slots=True)
class ModelRunner:
    """Runs batches: `kv` is [num_layers, 2, num_pages, page_size, num_kv_heads, head_dim]. `pieces`, if any, take
    packed steps of few tokens."""

    decoder: Decoder
    kv: Tensor
    pieces: PieceGraphs | None = None

    def __call__(self, inputs: ForwardInputs) -> Tensor:
        """Logits [L, vocab] in the decoder's dtype of the wanted rows."""
        is_packed = inputs.logits_rows is not None
        if self.pieces is not None and is_packed and len(inputs.token_ids) <= self.pieces.max_tokens:
            return self.pieces.forward(inputs)
        return self.decoder.forward(inputs, self.kv)
