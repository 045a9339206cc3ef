"""Judging maps: each metric is a function on tensors and a torchmetrics `Metric` that streams it.

Rules that hold for all functions here, unless one says otherwise:

- A function takes n maps at once and gives n values. NaN means *undefined, excluded and counted*: there is no truth to
  hold the map against (an empty mask).
- A map is held against the truth after ReLU; what is not finite counts as zero. A map that is zero everywhere points
  nowhere: it is judged, not excluded, and gets the worst value.
- The maximum of a map is the first one in reading order; a map that is constant has none.
"""
