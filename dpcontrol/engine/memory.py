"""What a loop keeps for its way back: measured on its first steps, compared with the memory at hand."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.gradients import Auto, Checkpointed, Full, GradientMode
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

MEASURED_STEPS = 3
MEMINFO = Path("/proc/meminfo")
# a container may be allowed less than its machine has: (limit, used), version 2 and version 1 of control groups
GROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def available_bytes(device: torch.device | None = None) -> int:
    """Memory that can be taken now on a device: free, or freed by the system on demand.

    Linux says it in ``/proc/meminfo``, the control group of a container may say less; CUDA is asked, and what torch
    has reserved there without using it counts as free.

    Raises:
        UsageError: where the system does not say; ``Auto(memory="2GB")`` does without.
    """
    if device is not None and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    found = []
    if MEMINFO.exists():
        entry = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
        if entry:
            found.append(int(entry[1]) * 1024)
    elif "SC_AVPHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit, used in GROUPS:
        if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
            found.append(max(int(limit.read_text()) - int(used.read_text()), 0))
    if not found:
        raise UsageError(
            "this system does not say how much memory is available: give Auto(memory='2GB') or another size."
        )
    return min(found)


def physical_bytes(leaves: Iterable[Tensor]) -> int:
    """Bytes of tensors; under ``vmap`` those of the whole batch."""
    total = 0
    for leaf in leaves:
        while torch._C._functorch.is_functorch_wrapped_tensor(leaf):
            leaf = torch._C._functorch.get_unwrapped(leaf)
        total += leaf.numel() * leaf.element_size()
    return total


class SavedBytes:
    """Counts the memory that autograd keeps for a backward sweep while it is entered, each storage once.

    ``beside``: tensors that are there anyway (inputs, constants), which are not counted.
    """

    def __init__(self, beside: Iterable[Tensor] = ()) -> None:
        self._known = {_address(leaf) for leaf in beside}
        # held, so that no address is given out twice
        self._held: list[Tensor] = []
        self.total = 0

    def note(self, leaf: Tensor) -> Tensor:
        """Count one tensor."""
        address = _address(leaf)
        if address not in self._known:
            self._known.add(address)
            self._held.append(leaf.detach())
            self.total += leaf.untyped_storage().nbytes()
        return leaf

    def __enter__(self) -> SavedBytes:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self.note, lambda leaf: leaf)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)


def full_bytes(
    body: Callable[[Tree, Tree, Tree, int], tuple[Tree, Tree]],
    carry: Tree,
    rows: list[Tree],
    constants: Tree,
) -> int:
    """Bytes that :class:`~dpcontrol.engine.gradients.Full` keeps for the way back through a loop over ``rows``.

    The first steps are run and what they save is counted; the last of them stands for those that follow. Inputs and
    constants are not counted, they are there in every mode.
    """
    start, fixed = _copied(carry), _copied(constants)
    taken = [_copied(row) for row in rows[:MEASURED_STEPS]]
    beside = [leaf for leaf in tree.leaves((start, fixed, taken)) if isinstance(leaf, Tensor)]
    totals, outputs = [0], 0
    with torch.enable_grad(), SavedBytes(beside) as saved:
        for k, row in enumerate(taken):
            start, output = body(start, row, fixed, k)
            outputs = tree.nbytes(output)
            totals.append(saved.total)
    each = totals[-1] - totals[-2] if len(totals) > 1 else 0
    return totals[-1] + each * (len(rows) - len(taken)) + outputs * len(rows)


def choose(
    mode: Auto,
    body: Callable[[Tree, Tree, Tree, int], tuple[Tree, Tree]],
    carry: Tree,
    rows: list[Tree],
    constants: Tree,
) -> Full | Checkpointed:
    """What :class:`~dpcontrol.engine.gradients.Auto` stands for in one loop.

    Raises:
        UsageError: if not even one state fits.
    """
    if len(rows) <= 1 or not torch.is_grad_enabled():
        return Full()
    state = [leaf for leaf in tree.leaves(carry) if isinstance(leaf, Tensor)]
    device = state[0].device if state else None
    room = mode.room(lambda: available_bytes(device))
    if torch._C._functorch.peek_interpreter_stack() is not None:
        # a function transform forbids the hooks that measure; stored states are the safe choice
        return stored(room, physical_bytes(state), len(rows))
    if full_bytes(body, carry, rows, constants) <= room:
        return Full()
    return stored(room, physical_bytes(state), len(rows))


def stored(room: int, state_bytes: int, steps: int) -> Checkpointed:
    """Stored states in so much room: all of them if they fit."""
    if state_bytes * max(steps - 1, 1) <= room:
        return Checkpointed()
    return Checkpointed(snapshots=Checkpointed(memory=max(room, 1)).states(state_bytes, steps))


def keeps_all_states(mode: GradientMode, state: Tree, steps: int) -> bool:
    """Whether a mode is exact and lets a run keep every state, and their cotangents on the way back."""
    leaves = [leaf for leaf in tree.leaves(state) if isinstance(leaf, Tensor)]
    size = physical_bytes(leaves)
    if isinstance(mode, Checkpointed):
        return mode.states(size, steps) >= steps
    if isinstance(mode, Auto):
        return 2 * size * steps <= mode.room(lambda: available_bytes(leaves[0].device))
    return mode.exact


def _address(leaf: Tensor) -> tuple[torch.device, int]:
    return leaf.device, leaf.untyped_storage().data_ptr()


def _copied(value: Tree) -> Tree:
    """The same tensors cut off from their history; they ask for a gradient where they did."""

    def cut(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.detach().requires_grad_(leaf.requires_grad)

    return tree.map(cut, value)
