"""Runs forwards of few tokens piece by piece: what lies between two attentions as a CUDA graph, attention as it is.

Launching the kernels of a layer takes the host 0.4 to 0.8 ms, longer than an H200 computes the layer of few tokens.
What lies between two attentions depends on the number of tokens alone; attention depends on the rows, and its few
launches stay. Steps are padded to sizes that are captured when they come for the second time.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgrun.models.decoder import Between, Decoder
from sgrun.models.inputs import ForwardInputs
from sgrun_kernels.hidden import Hidden

HOST_LIMITED = 2.4e11  # tokens times weights of a layer: an H200 computes 0.8 ms at 6e14 operations a second
SMALLEST = 16
SIZES_PER_OCTAVE = 8  # a step is padded by an eighth at most


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The graphs of one size; `last` is what the last one leaves, and keeps the memory of what all of them read."""

    graphs: list[torch.cuda.CUDAGraph]
    last: Between


class PieceGraphs:
    """For forwards over `kv` (see `Decoder.forward`) that say whose logits are wanted, of at most `max_tokens` tokens.
    Tokens that are padding store their keys and values to `spare_slot`.

    On a CPU the same pieces run without graphs.
    """

    def __init__(self, decoder: Decoder, kv: Tensor, spare_slot: int, token_budget: int) -> None:
        config, device = decoder.config, decoder.device
        self._decoder = decoder
        self._kv = kv
        self._sizes = _sizes(min(int(HOST_LIMITED / _layer_weights(decoder)), token_budget))
        self._pieces: dict[int, _Pieces | None] = {}  # None: has come once
        self._pool: Any = None  # of memory, which all graphs share: only one runs at a time
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        max_tokens, num_heads, head_dim = self.max_tokens, config.num_heads, config.head_dim
        self._tokens = torch.zeros((3, max_tokens), dtype=torch.int64, device=device)  # ids, positions, slots
        self._padding = torch.tensor([[0], [0], [spare_slot]], device=device)
        self._q = torch.zeros((max_tokens, num_heads, head_dim), dtype=decoder.dtype, device=device)
        self._attended = torch.zeros((max_tokens, num_heads * head_dim), dtype=decoder.dtype, device=device)

    @property
    def max_tokens(self) -> int:
        return self._sizes[-1]

    @torch.inference_mode()
    def forward(self, inputs: ForwardInputs) -> Tensor:
        """`Decoder.forward`, with sums that may be rounded otherwise."""
        num_tokens = len(inputs.token_ids)
        size = self._sizes[bisect_left(self._sizes, num_tokens)]
        tokens = self._tokens[:, :size]
        tokens.copy_(self._padding.expand_as(tokens))
        for row, values in zip(tokens, (inputs.token_ids, inputs.positions, inputs.store_slots), strict=True):
            row[:num_tokens].copy_(values)
        if size in self._pieces and self._stream is not None:
            hidden = self._replay(inputs, size)
        else:
            hidden = self._run(inputs, size)
            self._pieces[size] = None
        return self._decoder.logits(hidden, inputs.logits_rows)

    def _run(self, inputs: ForwardInputs, size: int) -> Hidden:
        """Without graphs; compiles what a capture may not."""
        decoder, kv, num_tokens = self._decoder, self._kv, len(inputs.token_ids)
        plan = decoder.plan(inputs, kv)
        between = self._start(size)
        for layer in range(decoder.config.num_layers):
            self._attended[:num_tokens] = decoder.attend(between.q[:num_tokens], plan, kv[layer])
            between = decoder.go_on(layer, between, self._attended[:size], kv)
        return between.hidden

    def _replay(self, inputs: ForwardInputs, size: int) -> Hidden:
        pieces = self._pieces[size]
        if pieces is None:
            pieces = self._pieces[size] = self._capture(size)
        decoder, kv, num_tokens = self._decoder, self._kv, len(inputs.token_ids)
        plan = decoder.plan(inputs, kv)
        first, *others = pieces.graphs
        first.replay()
        for layer, graph in enumerate(others):
            self._attended[:num_tokens] = decoder.attend(self._q[:num_tokens], plan, kv[layer])
            graph.replay()
        return pieces.last.hidden

    def _capture(self, size: int) -> _Pieces:
        """Memory that a piece is done with serves the next ones: they are replayed in the order of their capture."""
        decoder = self._decoder
        graphs: list[torch.cuda.CUDAGraph] = []
        with torch.cuda.stream(self._stream):
            with self._capturing(graphs):
                between = self._start(size)
                self._q[:size] = between.q
            for layer in range(decoder.config.num_layers):
                with self._capturing(graphs):
                    between = decoder.go_on(layer, between, self._attended[:size], self._kv)
                    if layer < decoder.config.num_layers - 1:
                        self._q[:size] = between.q
        return _Pieces(graphs, between)

    def _start(self, size: int) -> Between:
        token_ids, positions, slots = self._tokens[:, :size]
        return self._decoder.start(token_ids, positions, slots, self._kv)

    @contextlib.contextmanager
    def _capturing(self, graphs: list[torch.cuda.CUDAGraph]) -> Iterator[None]:
        """Captures one more of `graphs`. A capture that fails ends too: nothing could be launched while it is open."""
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            yield
        finally:
            graph.capture_end()
        self._pool = graph.pool()
        graphs.append(graph)


def _layer_weights(decoder: Decoder) -> int:
    layer = decoder.weights.layers[0]
    return sum(weight.numel() for weight in (layer.qkv, layer.o, layer.gate_up, layer.down))


def _sizes(most: int) -> list[int]:
    """From SMALLEST up to the least that is no less than `most`."""
    sizes = [SMALLEST]
    while sizes[-1] < most:
        octave = 1 << sizes[-1].bit_length() - 1
        sizes.append(sizes[-1] + octave // SIZES_PER_OCTAVE)
    return sizes
