"""Words held against the truth: which maps point at their things, and which words name what is not there."""

from mmcam.draw import upsample
from mmcam.explanation import Explanation
from mmcam.metrics.pointing import peaks
from mmcam.report.shown import ABSENT, HIT, MISS, UNKNOWN
from mmcam.truth import Truth

__all__ = ["marks"]


def marks(truth: Truth, number: int, explanation: Explanation) -> str:
    """Hold each word against the truth: the pointing game without tolerance, see `mmcam.metrics.pointing`.

    Args:
        truth: About the picture.
        number: Of the picture or question in it.
        explanation: Of it.

    Returns:
        A letter a word, as for `Shown`; "" where no word of it can be judged.

    Raises:
        UserError: The annotations of the picture are missing or broken.
    """
    about = truth.about(number, explanation.words)
    if all(meant is None for meant in about) or truth.human(number) is not None:
        return ""  # where people pointed there are no things
    things = truth.things(number)
    if tuple(things.masks.shape[1:]) != explanation.size:
        return ""
    found = []
    for row, meant in zip(explanation.maps, about, strict=True):
        if not meant:
            found.append(UNKNOWN if meant is None else ABSENT)
            continue
        mask = things.masks[list(meant)].any(0)
        kept = mask if things.ignored is None else mask & ~things.ignored
        place = int(peaks(upsample(row[None], explanation.size, explanation.window))[0])
        beside = things.ignored is not None and place >= 0 and bool(things.ignored.flatten()[place])
        if beside or not bool(kept.any()):
            found.append(UNKNOWN)
        else:
            found.append(HIT if place >= 0 and bool(kept.flatten()[place]) else MISS)
    return "".join(found)
