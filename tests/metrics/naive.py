"""The metrics once more, pixel by pixel in plain Python, sharing no code with mmcam.

Maps are lists of rows of floats, masks lists of rows of bools, boxes (left, top, right, bottom). None means undefined.
"""

import math

NAN = float("nan")


def clean(map):
    rows = [[v if math.isfinite(v) and v > 0 else 0.0 for v in row] for row in map]
    values = [v for row in rows for v in row]
    flat = max(values) - min(values) <= 1e-6 * max(values)
    return [[max(values)] * len(row) for row in rows] if flat else rows


def spots(map):
    for y in range(len(map)):
        for x in range(len(map[0])):
            yield y, x


def kept(map, ignored):
    return [(y, x) for y, x in spots(map) if ignored is None or not ignored[y][x]]


def peak(map):
    map, best, where = clean(map), -1.0, None
    for y, x in spots(map):
        if map[y][x] > best:
            best, where = map[y][x], (y, x)
    return None if all(v == best for row in map for v in row) else where


def pointing(map, mask, tolerance=0, ignored=None):
    places = [(y, x) for y, x in kept(map, ignored) if mask[y][x]]
    where = peak(map)
    if not places or (where and ignored is not None and ignored[where[0]][where[1]]):
        return NAN
    if where is None:
        return 0.0
    return float(any(math.hypot(y - where[0], x - where[1]) < tolerance or (y, x) == where for y, x in places))


def mass(map, mask, ignored=None):
    map, inside, total, pixels = clean(map), 0.0, 0.0, 0
    for y, x in kept(map, ignored):
        total += map[y][x]
        if mask[y][x]:
            inside += map[y][x]
            pixels += 1
    return NAN if not pixels else inside / total if total else 0.0


def rank(map, mask, ignored=None, orders=None):
    """The share of the N greatest in the mask; ties resolved by averaging over all places a tied pixel may take."""
    map, places = clean(map), kept(map, ignored)
    n = sum(mask[y][x] for y, x in places)
    if not n:
        return NAN
    if not any(map[y][x] for y, x in places):
        return 0.0
    found = 0.0
    for y, x in places:
        if mask[y][x]:
            greater = sum(map[v][u] > map[y][x] for v, u in places)
            equal = sum(map[v][u] == map[y][x] for v, u in places)
            found += min(max((n - greater) / equal, 0.0), 1.0)
    return found / n


def ratio(map, mask, ignored=None, least=1e-6):
    map, places = clean(map), kept(map, ignored)
    inside = [map[y][x] for y, x in places if mask[y][x]]
    outside = [map[y][x] for y, x in places if not mask[y][x]]
    if not inside or not outside:
        return NAN
    top = max(inside + outside)
    return sum(inside) / len(inside) / max(sum(outside) / len(outside), least * top) if top else 0.0


def box(map, threshold, ignored=None):
    """Flood fill over eight neighbours."""
    map, places = clean(map), kept(map, ignored)
    top = max(map[y][x] for y, x in places)
    strong = {(y, x) for y, x in places if map[y][x] > 0 and map[y][x] / top >= threshold}
    best, seen = set(), set()
    for start in sorted(strong):
        part, stack = set(), [start] if start not in seen else []
        while stack:
            y, x = stack.pop()
            if (y, x) not in part:
                part.add((y, x))
                stack += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (y + i, x + j) in strong]
        seen |= part
        if len(part) > len(best):
            best = part
    if not best:
        return (0, 0, 0, 0)
    rows, columns = [y for y, _ in best], [x for _, x in best]
    return (min(columns), min(rows), max(columns) + 1, max(rows) + 1)


def box_iou(one, two):
    """By counting unit squares; whole numbers only."""
    squares = [{(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])} for b in (one, two)]
    union = squares[0] | squares[1]
    return len(squares[0] & squares[1]) / len(union) if union else 0.0


def iou(map, mask, threshold, ignored=None):
    map, places = clean(map), kept(map, ignored)
    truth = {(y, x) for y, x in places if mask[y][x]}
    top = max(map[y][x] for y, x in places)
    strong = {(y, x) for y, x in places if top and map[y][x] / top >= threshold}
    return len(strong & truth) / len(strong | truth) if truth else NAN


def grounding(map, boxes, size, official):
    """GQA's evaluator, read again: cells in unit coordinates, its (i, j) -> (x, y); the other one by fine sampling."""
    map, (height, width) = clean(map), size
    h, w = len(map), len(map[0])
    total = sum(map[i][j] for i, j in spots(map))
    if not boxes:
        return 0.0 if official else NAN
    if not total:
        return 0.0
    unit = [(b[0] / width, b[1] / height, b[2] / width, b[3] / height) for b in boxes]
    score = 0.0
    if official:
        for region in unit:
            for i, j in spots(map):
                cell = (i / h, j / w, (i + 1) / h, (j + 1) / w)
                across = max(0.0, min(cell[2], region[2]) - max(cell[0], region[0]))
                down = max(0.0, min(cell[3], region[3]) - max(cell[1], region[1]))
                score += map[i][j] / total * across * down * h * w
        return score
    steps = 20
    for i, j in spots(map):
        inside = 0
        for a in range(steps):
            for b in range(steps):
                y, x = (i + (a + 0.5) / steps) / h, (j + (b + 0.5) / steps) / w
                inside += any(r[0] <= x < r[2] and r[1] <= y < r[3] for r in unit)
        score += map[i][j] / total * inside / steps**2
    return score


def discrimination(map, mask, others, by_mean, ignored=None):
    map, places = clean(map), kept(map, ignored)
    right = [map[y][x] for y, x in places if mask[y][x]]
    amounts = [[map[y][x] for y, x in places if other[y][x] and not mask[y][x]] for other in others]
    amounts = [amount for amount in amounts if amount]
    if not right or not amounts:
        return NAN
    if not any(map[y][x] for y, x in places):
        return 0.0

    def amount(values):
        return sum(values) / (len(values) if by_mean else 1)

    points = [
        0.5 if math.isclose(amount(right), amount(v), rel_tol=1e-6) else float(amount(right) > amount(v))
        for v in amounts
    ]
    return sum(points) / len(points)


def seeds(maps, classes, background):
    maps = [clean(map) for map in maps]
    tops = [max(v for row in map for v in row) for map in maps]
    labels = []
    for y in range(len(maps[0])):
        labels.append([])
        for x in range(len(maps[0][0])):
            label, best = 0, 0.0
            for map, top, number in zip(maps, tops, classes, strict=True):
                if top and map[y][x] / top >= background and map[y][x] / top > best:
                    label, best = number, map[y][x] / top
            labels[-1].append(label)
    return labels


def mean_iou(pictures, classes):
    """Over (labels, truth, ignored) of all pictures."""
    scores = []
    for number in range(classes):
        both = either = 0
        for labels, truth, ignored in pictures:
            for y, x in kept(labels, ignored):
                both += labels[y][x] == number == truth[y][x]
                either += number in (labels[y][x], truth[y][x])
        if either:
            scores.append(both / either)
    return sum(scores) / len(scores)


def entities(captions, only_right):
    """The script of ActivityNet-Entities, read again: two passes over dictionaries of lists by class.

    A caption is (said [(name, box)], true [(name, boxes)]) with whole boxes.
    """
    precision, recall, vocabulary = {}, {}, set()
    for said, true in captions:
        names = [name for name, _ in true]
        vocabulary |= set(names)
        for name, own in said:
            if name in names:
                hit = max(box_iou(own, other) for other in true[names.index(name)][1]) >= 0.5
                precision.setdefault(name, []).append(hit)
            elif not only_right:
                precision.setdefault(name, []).append(False)
        for name, boxes in true:
            guesses = [own for other, own in said if other == name]
            if guesses:
                recall.setdefault(name, []).append(max(box_iou(guesses[0], other) for other in boxes) >= 0.5)
            elif not only_right:
                recall.setdefault(name, []).append(False)
    p = sum(sum(hits) / len(hits) for hits in precision.values()) / len(vocabulary)
    r = sum(sum(hits) / len(hits) for hits in recall.values()) / len(vocabulary)
    return 2 * p * r / (p + r) if p + r else 0.0
