"""What stands between two products: the residual stream and its norm. Shape legend: see `reference`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Hidden:
    """The residual stream `total` [T, H] and `normed` [T, H], its rms norm by `eps`, for products of it.

    Where there are `squares` [T, P] float32, `normed` still lacks the factor 1 / sqrt(mean(total^2) + eps): a row's sum
    over P is the sum of its squares. A product of it applies the factor to what it has summed.

    `arrivals` [H] int32 counts programs that share an output, in products that add to the stream: 0 between launches.
    """

    total: Tensor
    normed: Tensor
    eps: float
    squares: Tensor | None = None
    arrivals: Tensor | None = None

    def rows(self, rows: Tensor) -> Hidden:
        squares = None if self.squares is None else self.squares[rows]
        return Hidden(self.total[rows], self.normed[rows], self.eps, squares, self.arrivals)
