"""What every test shares: one torch thread and the same seed."""

import random

import pytest
import torch

# Two threads on a small busy machine were seen 20 times slower than one.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    """Seed Python and torch before each test; a test that wants NumPy takes `np.random.default_rng(seed)`."""
    random.seed(0)
    torch.manual_seed(0)
    return 0
