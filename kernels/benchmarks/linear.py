"""Products of few rows against the time that reading their weights takes, and against torch's.

    PYTHONPATH=kernels python kernels/benchmarks/linear.py [--chain] [--tune] [--smoke]

Each product of a layer and the last one, with what stands before and after it. "torch" is the library's product with
this package's norm and gate beside it, as it is run for more rows. `--chain` times the products of eight layers one
after the other instead, microseconds a layer, attention left out: there the end of one stands beside the start of the
next. `--tune` tries other cuts and prints the best ones; `--smoke` runs one tiny shape anywhere. A table and, last, one
JSON line.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torch.nn.functional as F

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from timing import copy_bandwidth, median_us, num_cold_copies, print_result
from torch import Tensor

from sgrun_kernels.activation import silu_mul
from sgrun_kernels.hidden import Hidden
from sgrun_kernels.linear import linear_add_norm, normed_gate_up, normed_linear, stream_config
from sgrun_kernels.norms import add_rms_norm
from sgrun_kernels.streaming import TILE_ROWS, StreamConfig, stream, stream_add_norm

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16 if torch.cuda.is_available() else torch.float32  # the interpreter cannot multiply bfloat16
EPS = 1e-5
WARP_CUTS = [(16, 256, 2), (16, 256, 4), (16, 512, 4), (16, 512, 8), (32, 128, 2), (32, 128, 4), (32, 256, 4)]
TILE_CUTS = [(16, 64, 4), (16, 128, 4), (32, 64, 4), (32, 128, 4), (32, 128, 8), (64, 64, 4), (64, 128, 4)]
NUM_LAYERS = 8 if torch.cuda.is_available() else 1


@dataclass(frozen=True)
class Product:
    name: str
    num_outputs: int  # rows of the weight
    num_columns: int
    adds: bool = False  # to the residual stream, and norms it
    is_gated: bool = False

    def config(self, num_rows: int) -> StreamConfig | None:
        num_outputs = self.num_outputs // (1 + self.is_gated)
        return stream_config(num_rows, num_outputs, self.num_columns, DTYPE, self.is_gated, self.adds)


def layer(hidden: int, inner: int, qkv: int, attended: int, vocab: int) -> list[Product]:
    return [
        Product("qkv", qkv, hidden),
        Product("o", hidden, attended, adds=True),
        Product("gate_up", 2 * inner, hidden, is_gated=True),
        Product("down", hidden, inner, adds=True),
        Product("lm_head", vocab, hidden),
    ]


MODELS = {
    "llama-8b": layer(4096, 14336, 6144, 4096, 128256),
    "llama-1b": layer(2048, 8192, 3072, 2048, 128256),
    "qwen3-0.6b": layer(1024, 3072, 4096, 2048, 151936),
    "smollm2-135m": layer(576, 1536, 960, 576, 49152),
}
SMOKE = {"smoke": layer(64, 96, 96, 48, 130)}


@dataclass(frozen=True)
class Data:
    x: Tensor
    norm: Tensor
    weight: Tensor
    hidden: Hidden  # of x, with squares that make the norm's factor 1
    residual: Hidden


def data(product: Product, num_rows: int) -> list[Data]:
    """Copies enough that no weight is found in the L2."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=DEVICE, dtype=DTYPE)

    columns, outputs = product.num_columns, product.num_outputs
    copies = []
    for _ in range(num_cold_copies(outputs * columns * DTYPE.itemsize)):
        x = normal(num_rows, columns)
        squares = torch.full((num_rows, 128), columns / 128, device=DEVICE)
        arrivals = torch.zeros(outputs, dtype=torch.int32, device=DEVICE)
        residual = Hidden(normal(num_rows, outputs), x, EPS, arrivals=arrivals)
        copies.append(Data(x, normal(outputs), normal(outputs, columns), Hidden(x, x, EPS, squares), residual))
    return copies


def run_stream(product: Product, config: StreamConfig, of: Data) -> Tensor:
    if product.adds:
        return stream_add_norm(of.x, of.weight, None, config, of.residual, of.norm).total
    return stream(of.x, of.weight, None, config, of.hidden, product.is_gated)


def run_torch(product: Product, of: Data) -> Tensor:
    out = F.linear(of.x, of.weight)
    if product.adds:
        return add_rms_norm(out, of.residual.total, of.norm, EPS)[1]
    return silu_mul(out) if product.is_gated else out


def check(product: Product, config: StreamConfig, of: Data) -> None:
    expected = run_torch(product, of).float()
    error = (run_stream(product, config, of).float() - expected).norm() / expected.norm()
    assert error < 0.02, f"{product} {config}: relative error {error:.3g}"


def calls(function: Callable[[Data], Tensor], inputs: list[Data]) -> list[Callable[[], Tensor]]:
    return [partial(function, of) for of in inputs]


def cuts(product: Product, num_rows: int) -> list[StreamConfig]:
    """Those that fit; programs share an output where the product adds to the residual stream."""
    is_tile = num_rows > 8
    block_rows = TILE_ROWS if is_tile else 8
    fitting = []
    for outputs, columns, warps in TILE_CUTS if is_tile else WARP_CUTS:
        for stages in (3, 4, 5, 6, 8):
            stage_bytes = DTYPE.itemsize * columns * (outputs * (1 + product.is_gated) + block_rows)
            if stages * stage_bytes <= 200 * 1024:
                for splits in (1, 2, 4) if product.adds and is_tile else (1,):
                    fitting.append(StreamConfig(block_rows, outputs, columns, warps, stages, splits))
    return fitting


def tuned(product: Product, num_rows: int, inputs: list[Data]) -> tuple[StreamConfig, float]:
    """The fastest cut with its microseconds."""
    times = {}
    for config in cuts(product, num_rows):
        check(product, config, inputs[0])
        times[config] = median_us(calls(partial(run_stream, product, config), inputs), repeats=7)
    best = min(times, key=lambda config: times[config])
    return best, times[best]


def library_layer(weights: list[Tensor], hidden: Hidden, norm: Tensor) -> Hidden:
    qkv, o, gate_up, down = weights
    attended = F.linear(hidden.normed, qkv)[:, : o.shape[1]]
    normed, total = add_rms_norm(F.linear(attended, o), hidden.total, norm, EPS)
    inner = silu_mul(F.linear(normed, gate_up))
    normed, total = add_rms_norm(F.linear(inner, down), total, norm, EPS)
    return Hidden(total, normed, EPS)


def chosen_layer(weights: list[Tensor], hidden: Hidden, norm: Tensor) -> Hidden:
    qkv, o, gate_up, down = weights
    hidden = linear_add_norm(normed_linear(hidden, qkv)[:, : o.shape[1]], o, None, hidden, norm)
    return linear_add_norm(normed_gate_up(hidden, gate_up), down, None, hidden, norm)


def run_chain(
    layer: Callable[[list[Tensor], Hidden, Tensor], Hidden], layers: list[list[Tensor]], x: Tensor, norm: Tensor
) -> Tensor:
    hidden = Hidden(x, x, EPS, arrivals=torch.zeros(len(norm), dtype=torch.int32, device=DEVICE))
    for weights in layers:
        hidden = layer(weights, hidden, norm)
    return hidden.total


def chains(models: dict[str, list[Product]], rows: list[int]) -> list[dict[str, object]]:
    results: list[dict[str, object]] = []
    print(f"{'model':<14}{'rows':>5}{'us a layer':>12}{'torch us':>10}")
    for model, products in models.items():
        layers = [
            [
                torch.randn(p.num_outputs, p.num_columns, device=DEVICE, dtype=DTYPE) / p.num_columns**0.5
                for p in products[:4]
            ]
            for _ in range(NUM_LAYERS)
        ]
        norm = torch.ones(products[0].num_columns, device=DEVICE, dtype=DTYPE)
        for num_rows in rows:
            x = torch.randn(num_rows, len(norm), device=DEVICE, dtype=DTYPE)
            actual, expected = (run_chain(layer, layers, x, norm).float() for layer in (chosen_layer, library_layer))
            error = (actual - expected).norm() / expected.norm()
            assert error < 0.05, f"{model}, {num_rows} rows: relative error {error:.3g}"
            us, torch_us = (
                median_us([partial(run_chain, layer, layers, x, norm)]) / NUM_LAYERS
                for layer in (chosen_layer, library_layer)
            )
            print(f"{model:<14}{num_rows:>5}{us:>12.2f}{torch_us:>10.2f}", flush=True)
            results.append({"model": model, "rows": num_rows, "us_a_layer": us, "torch_us_a_layer": torch_us})
    return results


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--chain", action="store_true")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--models", nargs="*", default=["llama-8b", "qwen3-0.6b"], choices=list(MODELS))
    parser.add_argument("--rows", nargs="*", type=int, default=[1, 4, 8, 16, 32, 64])
    args = parser.parse_args()
    bandwidth, results = copy_bandwidth(), []
    models = SMOKE if args.smoke else {name: MODELS[name] for name in args.models}
    rows = [2] if args.smoke else args.rows
    if args.chain:
        print_result("linear-chain", bandwidth, chains(models, rows))
        return
    print(f"{'model':<14}{'product':<9}{'rows':>5}{'us':>9}{'GB/s':>7}{'x floor':>9}{'torch us':>10}  best cut")
    for model, products in models.items():
        for product in products:
            for num_rows in rows:
                config = product.config(num_rows)
                if config is None:
                    continue
                inputs = data(product, num_rows)
                check(product, config, inputs[0])
                weight_bytes = product.num_outputs * product.num_columns * DTYPE.itemsize
                us = median_us(calls(partial(run_stream, product, config), inputs))
                torch_us = median_us(calls(partial(run_torch, product), inputs))
                best, best_us = tuned(product, num_rows, inputs) if args.tune else (config, us)
                floor_us = 1e6 * weight_bytes / bandwidth
                print(
                    f"{model:<14}{product.name:<9}{num_rows:>5}{us:>9.2f}{weight_bytes / us / 1e3:>7.0f}"
                    f"{us / floor_us:>9.2f}{torch_us:>10.2f}  {best_us:.2f} {best if best != config else '(this)'}",
                    flush=True,
                )
                results.append(
                    {
                        "model": model,
                        "product": product.name,
                        "rows": num_rows,
                        "us": us,
                        "floor_us": floor_us,
                        "torch_us": torch_us,
                        "best_us": best_us,
                        "best": asdict(best),
                    }
                )
                del inputs
    print_result("linear", bandwidth, results)


if __name__ == "__main__":
    main()
