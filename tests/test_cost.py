import time

import torch

from mmcam.cost import Live, peak, seconds


def test_live_bytes_are_those_of_what_is_held_at_once():
    with Live() as live:
        x = torch.zeros(1000, dtype=torch.float64)
        for _ in range(5):
            x = x + 1  # the old and the new one
        x.view(10, 100).add_(1)  # nothing new
    assert (live.now, live.peak) == (8000, 16000)


def test_peak_and_seconds():
    cpu = torch.device("cpu")
    assert peak(lambda: torch.zeros(10) + 1, cpu) == 80
    assert peak(lambda: None, cpu) == 0
    assert 0.02 <= seconds(lambda: time.sleep(0.02), cpu) < 10


def test_peak_counts_what_a_backward_holds():
    x = torch.zeros(100, requires_grad=True)

    def backward():
        return torch.autograd.grad((x * x).sum(), x)

    assert peak(backward, torch.device("cpu")) >= 800
