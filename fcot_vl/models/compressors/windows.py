"""Base of the compressors that work on the two-dimensional grid of a tile: each window becomes one token.

The tokens of a tile form a square in raster order (16 x 16 in InternVL). For a ratio that is not a square, windows are
wider than high. The windows, and the tokens in each window, are again in raster order.
"""

from __future__ import annotations

from math import isqrt

from torch import Tensor, nn

WINDOWS = {2: (1, 2), 4: (2, 2), 8: (2, 4), 16: (4, 4)}  # by ratio: rows, columns


def window_grid(n_tokens: int, ratio: int) -> tuple[int, int]:
    """Return the numbers of rows and columns of windows in a tile of `n_tokens` tokens.

    Raises:
        ValueError: If the tile is not a square, or windows do not fill it.
    """
    side, (high, wide) = isqrt(n_tokens), WINDOWS[ratio]
    if side**2 != n_tokens or side % high or side % wide:
        raise ValueError(
            f"windows of {high} x {wide} tokens (compress_ratio {ratio}) do not fill a tile of {n_tokens} tokens: "
            "choose another ratio, or compressor conv or pooling, which take runs of tokens."
        )
    return side // high, side // wide


def first_tokens(n_tokens: int, ratio: int) -> list[int]:
    """Return the index of the upper left token of each window, that is, the position of each compressed token.

    Windows are in raster order.
    """
    rows, columns = window_grid(n_tokens, ratio)
    high, wide = WINDOWS[ratio]
    return [row * high * columns * wide + column * wide for row in range(rows) for column in range(columns)]


class Windows(nn.Module):
    """Base class of a compressor that makes one token of each window of the grid.

    Attributes:
        side: Number of tokens in a row and in a column of a tile.
        window: Rows and columns of a window.
        grid: Rows and columns of windows.
    """

    def __init__(self, n_tokens: int, ratio: int) -> None:
        super().__init__()
        self.grid = window_grid(n_tokens, ratio)
        self.window = WINDOWS[ratio]
        self.side = isqrt(n_tokens)

    def split(self, x: Tensor) -> Tensor:
        """Reshape `[n_tiles, n_tokens, channels]` to `[n_tiles, windows, ratio, channels]`."""
        (rows, columns), (high, wide) = self.grid, self.window
        return x.unflatten(1, (rows, high, columns, wide)).transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def mean(self, x: Tensor) -> Tensor:
        """Compute the mean of each window: `[n_tiles, n_tokens, channels]` to `[n_tiles, windows, channels]`."""
        return self.split(x).mean(2)

    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        """Add `branch`, in units of each token's root mean square, to `x`; both `[n_tiles, tokens, channels]`.

        The tokens of a ViT have norms of hundreds; beside them a branch of unit scale would stay invisible.
        """
        scale = x.float().square().mean(-1, keepdim=True).sqrt().to(x.dtype)
        return x + scale * branch

    def reset_parts(self) -> None:
        """Initialize every submodule as torch does, from the current random state."""
        for part in self.modules():
            if part is not self and callable(reset := getattr(part, "reset_parameters", None)):
                reset()


def depthwise(channels: int, bias: bool) -> nn.Conv2d:
    """Return a 3x3 convolution of each channel separately, with zero padding."""
    return nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels, bias=bias)


def convolve(conv: nn.Conv2d, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Apply a convolution to tokens in a grid: `[n, rows * columns, channels]` in and out."""
    return conv(x.unflatten(1, grid).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2)
