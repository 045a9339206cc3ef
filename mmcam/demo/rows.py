"""Maps of a word, or of several words as one, out of what is kept of a picture; Grad-CAM costs no trunk pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmcam import heard
from mmcam.demo.kept import Look, resized
from mmcam.draw import upsample
from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.pixels import channel_maximum, pixel_gradients, times_maps
from mmcam.task import Targets

__all__ = ["Beside", "check_rows", "heard_by", "phrase", "side_by_side"]


@dataclass(frozen=True, eq=False)
class Beside:
    """Guided Backprop and Guided Grad-CAM of one row, as colours that can be shown, and its Grad-CAM.

    Attributes:
        guided: Guided backpropagation; grey where there is none.
        cam: The row's Grad-CAM, over the picture as it is shown.
        product: Guided Grad-CAM.
    """

    guided: Image.Image
    cam: Explanation
    product: Image.Image


def phrase(look: Look, rows: Sequence[int]) -> Explanation:
    """The map of one word out of the cache, or of several as one: the sum of their scores explained.

    Args:
        look: The words.
        rows: Numbers of words, in any order; each counts once.

    Returns:
        One row, over the picture as it is shown.

    Raises:
        UserError: There is no such word.
    """
    chosen = check_rows(look, rows)
    if len(chosen) == 1:
        return _row(look.shown, chosen[0])
    (found,) = explain_activations(
        look.task, look.activations, look.batch, _joined(look, chosen), look.explanation.method
    )
    return resized(found, look.picture)


def side_by_side(look: Look, rows: Sequence[int]) -> Beside:
    """Guided Backprop, Grad-CAM and Guided Grad-CAM of a word or phrase, as the papers' own demo shows them.

    Args:
        look: The words.
        rows: As for `phrase`.

    Raises:
        UserError: There is no such word, or the model's rectifiers cannot be guided.
    """
    targets = _joined(look, check_rows(look, rows))
    (cam,) = explain_activations(look.task, look.activations, look.batch, targets, "grad_cam")
    gradients = pixel_gradients(look.task, replace(look.batch, memo={}), targets, "guided")
    product = times_maps(gradients, cam.signed[None].to(gradients))
    shown = resized(cam, look.picture)
    return Beside(_as_colours(gradients, look, shown), shown, _as_colours(product, look, shown))


def heard_by(look: Look, rows: Sequence[int]) -> Explanation:
    """Which words heard (of the question, or of the caption so far) drive a word or phrase.

    Raises:
        UserError: There is no such word, or the model hears none.
    """
    targets = _joined(look, check_rows(look, rows))
    (found,) = explain_activations(look.task, look.activations, look.batch, targets, "grad_cam")
    return heard.with_words([found], look.task, look.activations, look.batch, targets)[0]


def check_rows(look: Look, rows: Sequence[int]) -> list[int]:
    """Sort numbers of words, each once.

    Raises:
        UserError: There are none, or one is no word's.
    """
    chosen = sorted(set(rows))
    if not chosen:
        raise UserError("expected a word to explain, got none; choose one")
    if chosen[0] < 0 or chosen[-1] >= len(look.words):
        raise UserError(f"expected words 0 to {len(look.words) - 1}, got {chosen}; explain the picture again")
    return chosen


def _joined(look: Look, rows: list[int]) -> Targets:
    """One row, the sum of some."""
    return look.targets.only([rows]).merged([[(0, len(rows))]], look.task.separator)


def _row(explanation: Explanation, number: int) -> Explanation:
    part = slice(number, number + 1)
    return replace(
        explanation,
        words=explanation.words[part],
        scores=explanation.scores[part],
        signed=explanation.signed[part],
    )


def _as_colours(gradients: Float[Tensor, "1 1 c H W"], look: Look, shown: Explanation) -> Image.Image:
    """Gradients as a picture: grey is zero, 99.5 % of the magnitudes lie within the range."""
    signed = gradients[0, 0].float().cpu().nan_to_num(0.0, 0.0, 0.0)
    if signed.shape[0] != 3:
        signed = channel_maximum(signed[None, None])[0].expand(3, -1, -1)
    most = float(torch.quantile(signed.abs().flatten()[: 2**24], 0.995)) or float(signed.abs().max()) or 1.0
    large = upsample(signed / (2 * most), (look.picture.height, look.picture.width), shown.window)
    return Image.fromarray(((large + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).numpy())
