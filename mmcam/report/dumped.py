"""A dump as what the page shows: read one picture after the other, each with its maps and what is known about it."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image

from mmcam.dumps.reader import MapReader
from mmcam.errors import UserError
from mmcam.evaluation.evaluate import RIGHT
from mmcam.report.judged import marks
from mmcam.report.shown import Shown
from mmcam.sources import Source
from mmcam.truth import Truth

__all__ = ["Dumped"]

logger = logging.getLogger(__name__)


class Dumped:
    """What a dump holds, for `mmcam.report.write`; may be gone through once.

    Attributes:
        unread: Number of pictures that the source could not give.
    """

    def __init__(
        self,
        path: Path,
        source: Source | None = None,
        *,
        missing: str = "",
        methods: Sequence[str] = (),
        limit: int | None = None,
    ) -> None:
        """Look what there is.

        Args:
            path: The file, or the folder of a finished dump.
            source: That of the dump: its pictures, and the truth if it is a `Truth`; None if there is none.
            missing: Why there is none.
            methods: Whose maps are shown; all of the file if none is named.
            limit: Only the first of the file.

        Raises:
            UserError: There is no such file or method, or the source has none of the pictures.
        """
        self.path, self.source, self.unread = path, source, 0
        self._missing = missing
        with MapReader(path) as maps:
            self.methods = tuple(methods) or maps.methods
            self.ids = maps.ids[:limit]
            settings = maps.attributes["config"].get("settings", {})
            self._people = settings.get("targets") == "given"
            for name in self.methods:
                MapReader(path, name).close()  # names the methods that there are
        self._numbers = {} if source is None else {name: number for number, name in enumerate(source.ids)}
        if source is not None and self.ids and not any(self._base(name) in self._numbers for name in self.ids):
            raise UserError(f"expected the data of the dump, got data without {self.ids[0]!r}; name them with --data")
        self._said: dict[int, tuple[int, tuple[str, ...]]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Shown]:
        """Read one after the other."""
        with ExitStack() as stack:
            readers = {name: stack.enter_context(MapReader(self.path, name)) for name in self.methods}
            for place, identity in enumerate(self.ids):
                explanations = {name: reader[place] for name, reader in readers.items()}
                shown = Shown(explanations, missing=self._missing)
                number = self._numbers.get(self._base(identity))
                if self.source is None:
                    yield shown
                elif number is None:
                    self.unread += 1
                    yield Shown(explanations, missing="not in the data")
                else:
                    yield self._seen(place, number, shown)

    def columns(self) -> dict[str, list[float | None]]:
        """What the sentences, answers or classes are worth, one value a thing shown, and `right`, 1 or 0.

        Known when all have been read. What people said is not judged.
        """
        if not isinstance(self.source, Truth) or not self._said:
            return {}
        try:
            judged = self.source.judge({number: words for number, (_, words) in self._said.items()})
        except UserError as error:
            logger.warning("what was said is not judged: %s", error)
            return {}
        found: dict[str, list[float | None]] = {}
        for name, values in judged.items():
            column: list[float | None] = [None] * len(self.ids)
            for (place, _), value in zip(self._said.values(), values.tolist(), strict=True):
                column[place] = value if math.isfinite(value) else None
            found[name] = column
        for name in (*RIGHT, "true_captions"):
            if name in found:
                return {"right": [None if v is None else float(v > 0.5) for v in found[name]], **found}
        return found

    def evaluated(self, results: Mapping[str, Any]) -> dict[str, list[float | None]]:
        """The metrics of each picture out of `mmcam evaluate --json`.

        Args:
            results: See `mmcam.evaluation.compare.read_results`.

        Raises:
            UserError: They are of other pictures.
        """
        # Of a dump of both, results about what people said are none about what the model said.
        people = results.get("conditions", {}).get("explained") == "given"
        places = {name: place for place, name in enumerate(results["pictures"]["ids"])}
        at = [places.get(self._base(name) if people else name) for name in self.ids]
        if all(place is None for place in at) and places and self.ids:
            raise UserError("expected results of this dump, got results of other pictures; evaluate this dump")
        several = len(self.methods) > 1
        return {
            f"{metric} ({row})" if several else metric: [None if place is None else values[place] for place in at]
            for row, metrics in results["pictures"]["values"].items()
            if row in self.methods
            for metric, values in metrics.items()
        }

    def _base(self, identity: str) -> str:
        """The name of the picture or question that an id belongs to."""
        return identity if identity in self._numbers else identity.rpartition(":given")[0] or identity

    def _seen(self, place: int, number: int, shown: Shown) -> Shown:
        """Put to the maps what the source knows."""
        source, explanation = self.source, shown.first
        assert source is not None
        image, missing = self._picture(source, number, explanation.size)
        self.unread += image is None
        known = ""
        if isinstance(source, Truth):
            try:
                known = marks(source, number, explanation)
            except UserError as error:  # the picture can be shown all the same
                logger.warning("%s is not judged: %s", explanation.id, error)
            if self.ids[place] == source.ids[number] and not self._people:
                self._said[number] = place, explanation.words
        return Shown(shown.explanations, image, missing, source.given(number), known)

    @staticmethod
    def _picture(source: Source, number: int, size: tuple[int, int]) -> tuple[Image.Image | None, str]:
        try:
            image = source.sample(number).image
        except (UserError, OSError) as error:
            return None, str(error)
        if (image.height, image.width) != size:
            came, expected = f"{image.width} x {image.height}", f"{size[1]} x {size[0]}"
            return None, f"expected the explained picture of {expected}, got one of {came}"
        return image, ""
