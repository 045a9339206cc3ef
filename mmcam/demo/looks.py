"""What one user looks at: a picture that goes through the trunk once, and every map made of it since.

A `Look` is never changed. Words are read out of it; another text, another method or a phrase is a new backward pass of
the head alone. Nothing here knows of pages, so that the session, the HTTP interface and the tests share it.
"""

from collections.abc import Callable
from hashlib import sha256
from math import isfinite

import torch
from PIL import Image
from torch import Tensor

from mmcam.demo.kept import Look, resized, small
from mmcam.demo.rows import Beside, heard_by, phrase, side_by_side
from mmcam.demo.served import Served
from mmcam.draw import upsample
from mmcam.engine import check, explain_activations
from mmcam.errors import UserError
from mmcam.methods.table import check_method
from mmcam.task import Batch, Sample, Targets, Task, evaluating

__all__ = ["Beside", "Look", "again", "check_lengths", "heard_by", "key_of", "look", "phrase", "side_by_side", "small"]

LONGEST_TEXT = 500

Tell = Callable[[float, str], object]
"""Told how far the work is, from 0 to 1, and what is being done."""


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


def _looked(
    key: str, task: Task, picture: Image.Image, batch: Batch, activations: Tensor, targets: Targets, method: str
) -> Look:
    (explanation,) = explain_activations(task, activations, batch, targets, method)
    shown = resized(explanation, picture)
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
