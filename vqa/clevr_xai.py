"""CLEVR-XAI: for each question a mask of the things that one has to look at to answer it."""

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import interpolate

from mmcam.errors import UserError, unknown
from mmcam.truth import Things
from vqa.clevr import read_questions
from vqa.data import Questions

KINDS = {
    "simple": ("single_object", "all_objects"),
    "complex": ("unique_first_nonempty", "unique", "union", "all_objects"),
}
"""Which masks there are of which questions; the first is used if none is named."""

SIZE = 128


class ClevrXai(Questions):
    """The questions of CLEVR-XAI with their ground truth, as published: the mask is the one thing of a question.

    The masks are 128 x 128; they are brought to the picture's size without smoothing.
    """

    def __init__(self, data: str, split: str = "simple", kind: str | None = None) -> None:
        """Read the questions; masks are read when their turn comes.

        Args:
            data: Folder with `CLEVR-XAI_<split>_questions.json`, `images/` and
                `ground_truth_<split>_questions_<kind>/<question_index>.npy`.
            split: "simple" or "complex".
            kind: Of the masks: "single_object", "all_objects"; of complex questions "unique", "unique_first_nonempty",
                "union", "all_objects".

        Raises:
            UserError: A file or the folder of masks is missing or broken, or an id comes twice.
        """
        if split not in KINDS:
            raise unknown("kind of questions of CLEVR-XAI", split, KINDS)
        self.kind = KINDS[split][0] if kind is None else kind
        if self.kind not in KINDS[split]:
            raise unknown(f"mask of {split} questions", self.kind, KINDS[split])
        root = Path(data)
        super().__init__(*read_questions(root / f"CLEVR-XAI_{split}_questions.json", root / "images"))
        self.folder = root / f"ground_truth_{split}_questions_{self.kind}"
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: expected a folder of masks, got none; unpack the ground truth there")

    def things(self, number: int) -> Things:
        """The mask; none where it is undefined, which is where there is no file."""
        file, none = self._file(number), super().things(number)
        if not file.is_file():
            return none
        size = none.masks.shape[1], none.masks.shape[2]
        mask = interpolate(read_mask(file)[None, None].float(), size, mode="nearest-exact")[0] > 0
        return Things.of_masks([self.kind], mask)

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """The mask, for every answer; None where it is undefined."""
        return [(0,) if self._file(number).is_file() else None] * len(words)

    def _file(self, number: int) -> Path:
        return self.folder / f"{self.asked[number].id}.npy"


def read_mask(file: Path) -> Bool[Tensor, "128 128"]:
    """Read one ground truth.

    Raises:
        UserError: It is no array of 128 x 128 booleans.
    """
    expected = f"an array of {SIZE} x {SIZE} booleans"
    try:
        with file.open("rb") as stream:  # NumPy leaves a damaged file open
            mask = np.load(stream, allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, BadZipFile) as error:
        raise UserError(f"{file}: expected {expected}, got a file that is none: {error}") from error
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (SIZE, SIZE):
        came = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else "an archive of several"
        raise UserError(f"{file}: expected {expected}, got {came}")
    return torch.from_numpy(mask)
