"""Whether two pieces of the demo's page say and show the same, but for what rounding does."""

import base64
import io
import re

import numpy as np
from PIL import Image

__all__ = ["URI", "same"]

CLOSE = 0.011
"""By how much two numbers in a text may differ: a unit of the second digit, as sums may round otherwise."""
LEVELS = 1.0
"""By how much two pictures may differ on average, of 255."""
URI = re.compile(r'data:([^;"]+);base64,([^"]+)"')
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def same(page: str, expected: str) -> bool:
    """Tell whether two pieces of a page say and show the same, but for what rounding does."""
    if page == expected:
        return True
    return alike(URI.sub("", page), URI.sub("", expected)) and all(
        kind == other and same_file(kind, base64.b64decode(one), base64.b64decode(two))
        for (kind, one), (other, two) in zip(URI.findall(page), URI.findall(expected), strict=True)
    )


def alike(text: str, expected: str) -> bool:
    """Tell whether two texts are the same but for the last digit of numbers."""
    numbers = zip(NUMBER.findall(text), NUMBER.findall(expected), strict=False)
    return NUMBER.sub("0", text) == NUMBER.sub("0", expected) and all(
        abs(float(one) - float(two)) <= (CLOSE if "." in two else 1) for one, two in numbers
    )


def same_file(kind: str, data: bytes, expected: bytes) -> bool:
    """Tell whether two files hold the same: pictures, raw maps, or text."""
    if data == expected:
        return True
    if kind.startswith("image/"):
        one, two = (np.asarray(Image.open(io.BytesIO(part)).convert("RGB"), np.int16) for part in (data, expected))
        return one.shape == two.shape and float(np.abs(one - two).mean()) <= LEVELS
    if kind == "application/json":
        return alike(data.decode(), expected.decode())
    with np.load(io.BytesIO(data)) as one, np.load(io.BytesIO(expected)) as two:
        return set(one.files) == set(two.files) and all(
            bool((one[name] == two[name]).all())
            if one[name].dtype.kind == "U"
            else np.allclose(one[name], two[name], rtol=1e-3, atol=1e-3 * float(np.abs(two[name]).max(initial=0)))
            for name in two.files
        )
