"""What one user looks at: a picture that went through the trunk once, and every map made of it since.

A `Look` is never changed. Words are read out of it; another text, another method or a phrase is a new backward pass of
the head alone. Nothing here knows of pages, so that the session, the HTTP interface and the tests share it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import isfinite

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmcam import heard
from mmcam.demo.served import Served
from mmcam.draw import upsample
from mmcam.engine import check, explain_activations
from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.methods.table import check_method
from mmcam.pixels import channel_maximum, pixel_gradients, times_maps
from mmcam.task import Batch, Sample, Targets, Task, evaluating

__all__ = ["Beside", "Look", "again", "heard_by", "look", "phrase", "side_by_side", "small"]

SMALLEST_SHOWN, LARGEST_SHOWN = 384, 768
"""Of a picture on the page, its longest side in pixels."""
LONGEST_TEXT = 500

Tell = Callable[[float, str], object]
"""Told how far the work is, from 0 to 1, and what is being done."""


@dataclass(frozen=True, eq=False)
class Look:
    """A picture, what is said of it, and where the model looked for each word.

    Attributes:
        key: Digest of picture, question, configuration and layer: the same trunk pass.
        task: At the layer.
        picture: As large as it is shown.
        batch: The sample, with what the trunk left.
        activations: A.
        targets: The words.
        explanation: Their maps, over the picture as it was uploaded.
        shown: The same, over the picture as it is shown.
        probabilities: Of each word; None of rows made of several, or where the task does not say.
        peaks: The greatest value of each map, at the size shown.
    """

    key: str
    task: Task
    picture: Image.Image
    batch: Batch
    activations: Float[Tensor, "1 k h w"]
    targets: Targets
    explanation: Explanation
    shown: Explanation
    probabilities: tuple[float | None, ...]
    peaks: tuple[float, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """What is explained: the words of a caption, answers or classes."""
        return self.explanation.words


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


def look(
    served: Served,
    image: Image.Image,
    question: str = "",
    text: str = "",
    method: str = "",
    layer: str = "",
    tell: Tell = lambda part, what: None,
) -> Look:
    """Run the trunk over a picture and explain what the model says of it, or what the user says.

    Args:
        served: The model.
        image: The picture.
        question: For models that want one.
        text: The user's own caption, answers or classes; the model's own if empty.
        method: By which; the configuration's if empty.
        layer: The configuration's if empty.
        tell: Told of progress.

    Raises:
        UserError: A word, answer, class, method or layer is not known, or the method does not fit the model.
    """
    check_lengths(question, text)
    task = served.at(layer)
    if method:
        check_method(method)
    tell(0.1, "looking at the picture")
    with torch.inference_mode(False), evaluating(task), torch.no_grad():
        batch = task.collate([Sample(image, "picture", " ".join(question.split()))]).to(task.device)
        if not text:
            activations = task.trunk(batch).detach()
            check(activations, batch, task.layer)
            targets = task.predict(activations, batch)
        else:
            targets = task.given([text], batch)  # first: a word that is not known costs no trunk pass
            activations = task.trunk(batch).detach()
            check(activations, batch, task.layer)
    tell(0.4, "explaining it")
    key = key_of(served, image, question, layer)
    return _looked(key, task, small(image), batch, activations, targets, method)


def again(before: Look, text: str = "", method: str = "", tell: Tell = lambda part, what: None) -> Look:
    """Explain another text, or by another method, of the same picture and question: no trunk pass for Grad-CAM.

    Args:
        before: The look whose activations are used.
        text: As for `look`.
        method: As for `look`.
        tell: Told of progress.

    Raises:
        UserError: As for `look`.
    """
    check_lengths(text)
    if method:
        check_method(method)
    task = before.task
    tell(0.4, "explaining it")
    with torch.inference_mode(False), evaluating(task), torch.no_grad():
        targets = task.given([text], before.batch) if text else task.predict(before.activations, before.batch)
    return _looked(before.key, task, before.picture, before.batch, before.activations, targets, method)


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
    return _resized(found, look.picture)


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
    shown = _resized(cam, look.picture)
    return Beside(_as_colours(gradients, look, shown), shown, _as_colours(product, look, shown))


def heard_by(look: Look, rows: Sequence[int]) -> Explanation:
    """Which words heard (of the question, or of the caption so far) drive a word or phrase.

    Raises:
        UserError: There is no such word, or the model hears none.
    """
    targets = _joined(look, check_rows(look, rows))
    (found,) = explain_activations(look.task, look.activations, look.batch, targets, "grad_cam")
    return heard.with_words([found], look.task, look.activations, look.batch, targets)[0]


def small(image: Image.Image) -> Image.Image:
    """The picture as large as it is shown."""
    longest = max(image.size)
    ratio = min(max(longest, SMALLEST_SHOWN), LARGEST_SHOWN) / longest
    size = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def key_of(served: Served, image: Image.Image, question: str, layer: str) -> str:
    """Digest of all that a trunk pass depends on."""
    texts = "\0".join((served.config, layer or served.task.layer, " ".join(question.split()), str(image.size)))
    return sha256(texts.encode(errors="surrogatepass") + b"\0" + image.tobytes()).hexdigest()


def check_lengths(*texts: str) -> None:
    """Refuse texts that are no caption or question.

    Raises:
        UserError: One is too long.
    """
    for text in texts:
        if len(text) > LONGEST_TEXT:
            raise UserError(f"expected a text of at most {LONGEST_TEXT} characters, got {len(text)}; shorten it")


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


def _looked(
    key: str, task: Task, picture: Image.Image, batch: Batch, activations: Tensor, targets: Targets, method: str
) -> Look:
    (explanation,) = explain_activations(task, activations, batch, targets, method)
    shown = _resized(explanation, picture)
    peaks = tuple(
        float(upsample(row[None], shown.size, shown.window).nan_to_num(0.0, 0.0, 0.0).amax()) for row in shown.maps
    )
    probable = _probabilities(task, activations, batch, targets)
    return Look(key, task, picture, batch, activations, targets, explanation, shown, probable, peaks)


def _probabilities(task: Task, activations: Tensor, batch: Batch, targets: Targets) -> tuple[float | None, ...]:
    """Of each row that is a single id without a foil."""
    count = len(targets.words[0])
    if targets.foils is not None:
        return (None,) * count
    try:
        with torch.inference_mode(False), evaluating(task), torch.no_grad():
            found = task.probabilities(activations, batch, targets.to(activations.device))[0]
    except UserError:
        return (None,) * count
    rows = targets.rows[0, :count].to(found)
    values = (rows @ found).tolist()
    alone = ((rows != 0).sum(1) == 1).tolist()
    return tuple(value if single and isfinite(value) else None for value, single in zip(values, alone, strict=True))


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


def _resized(explanation: Explanation, picture: Image.Image) -> Explanation:
    """The same maps over a smaller or larger copy of the picture."""
    down, across = picture.height / explanation.size[0], picture.width / explanation.size[1]
    top, left, bottom, right = explanation.window
    return replace(
        explanation,
        size=(picture.height, picture.width),
        window=(top * down, left * across, bottom * down, right * across),
    )


def _as_colours(gradients: Float[Tensor, "1 1 c H W"], look: Look, shown: Explanation) -> Image.Image:
    """Gradients as a picture: grey is zero, 99.5 % of the magnitudes lie within the range."""
    signed = gradients[0, 0].float().cpu().nan_to_num(0.0, 0.0, 0.0)
    if signed.shape[0] != 3:
        signed = channel_maximum(signed[None, None])[0].expand(3, -1, -1)
    most = float(torch.quantile(signed.abs().flatten()[: 2**24], 0.995)) or float(signed.abs().max()) or 1.0
    large = upsample(signed / (2 * most), (look.picture.height, look.picture.width), shown.window)
    return Image.fromarray(((large + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).numpy())
