"""Owns the model together with its KV pool tensor."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sgrun.models.decoder import Decoder
from sgrun.models.inputs import ForwardInputs


@dataclass(frozen=True, slots=True)
class ModelRunner:
    """Runs batches: `kv` is [num_layers, 2, num_pages, page_size, num_kv_heads, head_dim]."""

    decoder: Decoder
    kv: Tensor

    def __call__(self, inputs: ForwardInputs) -> Tensor:
        """Logits [L, vocab] in the decoder's dtype of the wanted rows."""
        return self.decoder.forward(inputs, self.kv)
