"""One thing that the page shows."""

from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from mmcam.explanation import Explanation

__all__ = ["ABSENT", "HIT", "MISS", "UNKNOWN", "Shown"]

HIT, MISS, ABSENT, UNKNOWN = "+-?."
"""Of a word: its map's peak lies on its thing, or beside it; it names a thing that is not there; nothing is known."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One picture, question or caption.

    Attributes:
        explanations: By method, all of the same words; the first is shown first.
        image: The picture; None if it is absent, then the maps are shown alone.
        missing: Why it is absent.
        given: What people said or answered.
        marks: A letter a word: `HIT`, `MISS`, `ABSENT` or `UNKNOWN`; "" where there is no truth.
    """

    explanations: Mapping[str, Explanation]
    image: Image.Image | None = None
    missing: str = ""
    given: tuple[str, ...] = ()
    marks: str = ""

    @property
    def first(self) -> Explanation:
        """The explanation by the first method."""
        return next(iter(self.explanations.values()))
