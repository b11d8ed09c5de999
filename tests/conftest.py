"""One torch thread for each test process: ``pytest -n 2`` on two cores must not start four."""

import torch

torch.set_num_threads(1)
