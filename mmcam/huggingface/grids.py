"""How the leaf's tensors lie on pictures: five rules that bring them to a canvas (b, k, h, w) and back.

    Maps          (b, k, h, w)                    a feature map is its own canvas
    Raster        (b, p + h·w, k)                 p tokens that lie nowhere, then rows of places
    Packed        (Σ h_i·w_i, k)                  pictures one after the other, each of its own size
    Tiles         (Σ tiles, p + h·w, k)           parts of pictures, and often the whole besides; one below the other
    Coordinates   (b, n, k) and (b, n, 2)         every token says its row and column

The canvas is where `mmcam.cam` computes; `lay` brings its maps over the pictures. A rule is made anew from the tensors
of each batch, so that samples can be chosen, repeated and moved without it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmcam.draw import upsample
from mmcam.errors import UserError
from mmcam.huggingface.windows import NOWHERE
from mmcam.task import Window

__all__ = ["Coordinates", "Grid", "Maps", "Packed", "Raster", "Tiles", "sides"]


class Grid(ABC):
    """A rule for one batch."""

    @abstractmethod
    def spread(self, leaf: Sequence[Tensor]) -> tuple[Float[Tensor, "b k h w"], Tensor | None]:
        """Bring the leaf's tensors onto the canvas; several of one kind are channels beside one another.

        Returns:
            The canvas, and what lies nowhere, with first axis b.
        """

    @abstractmethod
    def gather(self, canvas: Float[Tensor, "b k h w"], rest: Tensor | None) -> list[Tensor]:
        """Bring the canvas back to what the model expects."""

    @property
    def places(self) -> Sequence[int] | None:
        """How many places of the canvas are real, of each picture; None if all are."""
        return None

    def lay(self, maps: Float[Tensor, "b r h w"]) -> list[Float[Tensor, "r _ _"]]:
        """Bring maps on the canvas over the pictures."""
        return list(maps)


class Maps(Grid):
    """Feature maps."""

    def spread(self, leaf: Sequence[Tensor]) -> tuple[Float[Tensor, "b k h w"], None]:
        """Nothing to do."""
        (x,) = leaf
        if x.ndim != 4:
            raise UserError(f"expected feature maps (b, k, h, w), got {tuple(x.shape)}; choose another layer")
        return x, None

    def gather(self, canvas: Float[Tensor, "b k h w"], rest: None) -> list[Tensor]:
        """Nothing to do."""
        return [canvas]


@dataclass(frozen=True)
class Raster(Grid):
    """Tokens in rows.

    Attributes:
        height: Rows.
        width: Columns.
        prefix: Tokens before them.
    """

    height: int
    width: int
    prefix: int = 0

    def spread(self, leaf: Sequence[Tensor]) -> tuple[Float[Tensor, "b k h w"], Tensor | None]:
        """Cut the prefix off."""
        (x,) = leaf
        _fits(x.shape[1] - self.prefix, self.height * self.width, x)
        canvas = x[:, self.prefix :].transpose(1, 2).unflatten(2, (self.height, self.width))
        return canvas, x[:, : self.prefix] if self.prefix else None

    def gather(self, canvas: Float[Tensor, "b k h w"], rest: Tensor | None) -> list[Tensor]:
        """Put the prefix on again."""
        tokens = canvas.flatten(2).transpose(1, 2)
        return [tokens if rest is None else torch.cat([rest.to(tokens.dtype), tokens], 1)]


@dataclass(frozen=True)
class Packed(Grid):
    """Rows of the tokens of pictures of several sizes, one picture after the other.

    Attributes:
        sizes: Height and width of each picture in tokens.
        leaves: How many tensors of the same kind.
    """

    sizes: tuple[tuple[int, int], ...]
    leaves: int = 1

    @property
    def places(self) -> Sequence[int]:
        """The tokens of each picture."""
        return [h * w for h, w in self.sizes]

    def spread(self, leaf: Sequence[Tensor]) -> tuple[Float[Tensor, "b k h w"], None]:
        """Pad every picture to the largest."""
        x = torch.cat(list(leaf), -1)
        _fits(len(x), sum(self.places), x)
        height, width = (max(side) for side in zip(*self.sizes, strict=True))
        canvas = x.new_zeros(len(self.sizes), x.shape[-1], height, width)
        for i, (part, (h, w)) in enumerate(zip(x.split(list(self.places)), self.sizes, strict=True)):
            canvas[i, :, :h, :w] = part.T.unflatten(1, (h, w))
        return canvas, None

    def gather(self, canvas: Float[Tensor, "b k h w"], rest: None) -> list[Tensor]:
        """Drop the padding."""
        parts = [x[:, :h, :w].flatten(1).T for x, (h, w) in zip(canvas, self.sizes, strict=True)]
        return list(torch.cat(parts).chunk(self.leaves, -1))

    def lay(self, maps: Float[Tensor, "b r h w"]) -> list[Float[Tensor, "r _ _"]]:
        """Drop the padding."""
        return [x[:, :h, :w] for x, (h, w) in zip(maps, self.sizes, strict=True)]


@dataclass(frozen=True)
class Tiles(Grid):
    """Parts of pictures, each a raster; the whole picture is often one of them.

    Attributes:
        height: Rows of a tile.
        width: Columns of a tile.
        windows: Which part of its picture each tile shows, of each picture; ragged.
        prefix: Tokens before a tile's rows.
        shape: Of the leaf beyond tiles, tokens and channels, such as (b, pictures, tiles); packed if not given.
    """

    height: int
    width: int
    windows: tuple[tuple[Window, ...], ...]
    prefix: int = 0
    shape: tuple[int, ...] | None = None

    @property
    def places(self) -> Sequence[int]:
        """The places of each picture's tiles."""
        return [len(tiles) * self.height * self.width for tiles in self.windows]

    @property
    def _most(self) -> int:
        return max(len(tiles) for tiles in self.windows)

    def spread(self, leaf: Sequence[Tensor]) -> tuple[Float[Tensor, "b k h w"], Tensor]:
        """Put a picture's tiles one below the other."""
        (x,) = leaf
        _fits(x.shape[-2] - self.prefix, self.height * self.width, x)
        if self.shape is None:
            counts = [len(tiles) for tiles in self.windows]
            _fits(len(x), sum(counts), x)
            padded = x.new_zeros(len(counts), self._most, *x.shape[1:])
            for i, part in enumerate(x.split(counts)):
                padded[i, : len(part)] = part
            rest = padded
        else:
            rest = x.reshape(len(self.windows), -1, *x.shape[-2:])
            padded = torch.zeros_like(rest[:, : self._most])
            for i, tiles in enumerate(self.windows):
                padded[i, : len(tiles)] = rest[i, : len(tiles)]
        tokens = padded[:, :, self.prefix :]  # (b, t, n, k)
        return tokens.movedim(3, 1).unflatten(3, (self.height, self.width)).flatten(2, 3), rest

    def gather(self, canvas: Float[Tensor, "b k h w"], rest: Tensor | None) -> list[Tensor]:
        """Take the tiles apart again."""
        assert rest is not None
        tokens = canvas.unflatten(2, (-1, self.height)).flatten(3).movedim(1, 3)  # (b, t, n, k)
        whole = torch.cat([rest[:, : tokens.shape[1], : self.prefix].to(tokens.dtype), tokens], 2)
        if self.shape is None:
            return [torch.cat([row[: len(tiles)] for row, tiles in zip(whole, self.windows, strict=True)])]
        # Tiles that are padding stay what the tower made of them.
        rows = [
            torch.cat([row[: len(tiles)], left[len(tiles) :].to(row.dtype)])
            for row, left, tiles in zip(whole, rest, self.windows, strict=True)
        ]
        return [torch.stack(rows).reshape(len(rows), *self.shape[1:], *whole.shape[2:])]

    def lay(self, maps: Float[Tensor, "b r h w"]) -> list[Float[Tensor, "r _ _"]]:
        """Sum the tiles' maps, each over its own part, as finely as the finest tile: what a place adds, it adds."""
        laid = []
        for picture, windows in zip(maps, self.windows, strict=True):
            # A tile that is all padding shows nothing of the picture.
            parts = picture.unflatten(1, (-1, self.height))[
                :, [i for i, w in enumerate(windows) if w != NOWHERE]
            ].unbind(1)
            tiles = [window for window in windows if window != NOWHERE]
            top, left, bottom, right = whole_window(tiles)
            y = min(b - t for t, _, b, _ in tiles) / self.height
            x = min(r - s for _, s, _, r in tiles) / self.width
            size = max(1, round((bottom - top) / y)), max(1, round((right - left) / x))
            ys, xs = size[0] / (bottom - top), size[1] / (right - left)
            laid.append(
                sum(
                    upsample(part, size, ((t - top) * ys, (s - left) * xs, (b - top) * ys, (r - left) * xs))
                    for part, (t, s, b, r) in zip(parts, tiles, strict=True)
                )
            )
        return laid


@dataclass(frozen=True, eq=False)
class Coordinates(Grid):
    """Tokens that say where they lie; others come before them.

    Attributes:
        index: Row and column of each token, the last ones of each sample; negative where there is nothing.
        sizes: Rows and columns of each picture.
    """

    index: Int[Tensor, "b n 2"]
    sizes: tuple[tuple[int, int], ...]

    @property
    def places(self) -> Sequence[int]:
        """Rows times columns."""
        return [h * w for h, w in self.sizes]

    def spread(self, leaf: Sequence[Tensor]) -> tuple[Float[Tensor, "b k h w"], Tensor]:
        """Put every token at its place."""
        (x,) = leaf
        _fits(x.shape[1] >= self.index.shape[1], True, x)
        height, width = (max(side) for side in zip(*self.sizes, strict=True))
        flat, here = self._flat(width)
        tokens = (x[:, -self.index.shape[1] :] * here).transpose(1, 2)
        canvas = x.new_zeros(len(x), x.shape[2], height * width)
        canvas = canvas.scatter_add(2, flat[:, None].expand_as(tokens), tokens)
        return canvas.unflatten(2, (height, width)), x

    def gather(self, canvas: Float[Tensor, "b k h w"], rest: Tensor | None) -> list[Tensor]:
        """Fetch every token from its place; what lies nowhere stays."""
        assert rest is not None
        n = self.index.shape[1]
        flat, here = self._flat(canvas.shape[3])
        found = canvas.flatten(2).gather(2, flat[:, None].expand(-1, canvas.shape[1], -1)).transpose(1, 2)
        tokens = torch.where(here, found, rest[:, -n:].to(found.dtype))
        return [torch.cat([rest[:, :-n].to(found.dtype), tokens], 1)]

    def lay(self, maps: Float[Tensor, "b r h w"]) -> list[Float[Tensor, "r _ _"]]:
        """Cut the padding off."""
        return [x[:, :h, :w] for x, (h, w) in zip(maps, self.sizes, strict=True)]

    def _flat(self, width: int) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n 1"]]:
        here = (self.index >= 0).all(2)
        flat = self.index[..., 0] * width + self.index[..., 1]
        return torch.where(here, flat, 0), here[..., None]


def whole_window(windows: Sequence[Window]) -> Window:
    """The smallest window that holds all of these."""
    tops, lefts, bottoms, rights = zip(*(window for window in windows if window != NOWHERE), strict=True)
    return min(tops), min(lefts), max(bottoms), max(rights)


def sides(count: int, picture: tuple[int, int], prefixes: Sequence[int] = (0, 1, 2, 5)) -> tuple[int, int, int]:
    """Find rows, columns and prefix of a number of tokens that lie like a picture.

    Args:
        count: Number of tokens.
        picture: Height and width of the network's input.
        prefixes: How many tokens may come before.

    Returns:
        Rows, columns and prefix.

    Raises:
        UserError: There are none.
    """
    for prefix in prefixes:
        n = count - prefix
        for h in range(1, n + 1):
            if n % h == 0 and h * picture[1] == (n // h) * picture[0]:
                return h, n // h, prefix
    raise UserError(
        f"expected tokens on a grid like the picture's {picture[0]} x {picture[1]}, got {count}; choose another layer"
    )


def _fits(count: int, wanted: int, x: Tensor) -> None:
    if count != wanted:
        raise UserError(
            f"expected {wanted} places on the grid, got {count} in a tensor of shape {tuple(x.shape)}; "
            "choose another layer"
        )
