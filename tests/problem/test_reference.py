"""Reference trajectories: made once and mapped into memory, split by trajectories, cut into windows of their part."""

import numpy as np
import pytest
import torch
from correction_cases import CELLS, reference, trajectories

from dpcontrol import tree
from dpcontrol.engine import rollout
from dpcontrol.problem import Reference, Windows, simulated_reference
from dpcontrol.results import UsageError
from dpcontrol.sim import FiniteVolumeBurgers, FunctionSimulator
from dpcontrol.store import cached_rows

F64 = torch.float64
FINE = FiniteVolumeBurgers(0.005, 0.01)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DPCONTROL_CACHE", str(tmp_path / "cache"))


def starts(count=5):
    return 0.5 * torch.randn(count, 2 * CELLS, generator=torch.Generator().manual_seed(4), dtype=F64)


def halved(fine):
    return fine.reshape(len(fine), CELLS, 2).mean(-1)


def made(**fields):
    given = {
        "initial_state": starts(),
        "steps": 3,
        "every": 4,
        "downsample": halved,
        "spin_up": 1,
        "batch": 2,
    }
    return simulated_reference(FINE, **{**given, **fields})


class Spy:
    """Counts, and does not look another one for it: a cache goes by what a function closes over, and that by this."""

    def __init__(self):
        self._seen = []

    def __getstate__(self):
        return None

    def append(self, value):
        self._seen.append(value)

    def __len__(self):
        return len(self._seen)


def test_a_simulated_reference_is_what_a_rollout_gives():
    viscosity = torch.linspace(0.01, 0.02, 5, dtype=F64)
    found = made(parameters={"viscosity": viscosity, "label": torch.arange(5.0)})
    whole = rollout(FINE, starts(), length=16, parameters={"viscosity": viscosity}).states
    wanted = torch.stack([halved(state) for state in whole[4::4]])
    assert (found.steps, found.count) == (3, 5) and tuple(found.states.shape) == (4, 5, CELLS)
    torch.testing.assert_close(found.states, wanted, rtol=1e-12, atol=1e-13)
    assert torch.equal(found.parameters["viscosity"], viscosity)


def test_it_is_made_once_for_each_thing_that_makes_it(monkeypatch):
    steps = Spy()

    def step(state, control):
        steps.append(len(state))
        return 0.9 * state

    options = {"initial_state": starts(), "steps": 3, "batch": 2}
    first = simulated_reference(FunctionSimulator(step), **options)
    cost = len(steps)
    again = simulated_reference(FunctionSimulator(step), **options)
    assert len(steps) == cost + 1  # only the fingerprint
    assert torch.equal(first.states, again.states)
    for other in ({"steps": 2}, {"initial_state": 2 * starts()}, {"downsample": halved}, {"spin_up": 2}):
        before = len(steps)
        simulated_reference(FunctionSimulator(step), **{**options, **other})
        assert len(steps) > before + 3
    before = len(steps)
    simulated_reference(FunctionSimulator(lambda x, u: 0.5 * step(x, u)), **options)
    assert len(steps) > before + 3


def test_what_made_it_counts_to_the_last_digit_and_behind_the_first_step():
    # a viscosity that is a hundred-thousandth larger, and a law that changes long after the first step
    def late(rate):
        return lambda state, control, *, t: state * (0.99 if t < 1.5 else rate)

    for one, other in (
        (FiniteVolumeBurgers(0.0025, 0.01), FiniteVolumeBurgers(0.0025, 0.01 * (1 + 1e-5))),
        (FunctionSimulator(late(0.5)), FunctionSimulator(late(0.9))),
    ):
        options = {"initial_state": starts(), "steps": 3}
        first, second = (simulated_reference(fine, **options).states for fine in (one, other))
        assert not torch.equal(first, second)
        assert torch.equal(simulated_reference(one, **options).states, first)


def test_plain_functions_and_arrays_will_do():
    def step(state, control, *, parameters):
        return parameters["rate"][:, None] * state

    rates = torch.linspace(0.5, 0.9, 5, dtype=F64)
    found = simulated_reference(step, initial_state=starts().numpy(), steps=3, parameters={"rate": rates})
    torch.testing.assert_close(found.states[2], rates[:, None] ** 2 * starts())
    stored = Reference({"u": found.states.numpy()})
    assert torch.equal(stored.states["u"], found.states)


def test_what_is_not_finite_is_named():
    states = torch.ones(5, 4, 3)
    states[2, 1, 0] = torch.nan
    with pytest.raises(UsageError, match="trajectory 1 of a reference is not finite at step 2"):
        Reference(states)
    with pytest.raises(UsageError, match="downsample must map"):
        simulated_reference(FINE, initial_state=starts(), steps=2, downsample=lambda state: state.mean())


def test_trees_are_stored_leaf_by_leaf_and_mapped(tmp_path):
    def parts():
        for row in (0, 2):
            yield {
                "u": torch.arange(row, row + 2.0)[:, None] * torch.ones(2, 3),
                "v": [torch.full((2,), row)],
            }

    found = cached_rows({"name": "x"}, 4, parts)
    assert found["u"].tolist() == [[float(k)] * 3 for k in range(4)] and found["v"][0].tolist() == [
        0,
        0,
        2,
        2,
    ]
    folder = next(path for path in (tmp_path / "cache").iterdir() if (path / "index.json").is_file())
    assert isinstance(np.load(folder / "0.npy", mmap_mode="r"), np.memmap)
    found["u"][0] = 7.0  # one's own copy
    assert cached_rows({"name": "x"}, 4, lambda: iter(()))["u"][0].tolist() == [0.0] * 3
    (folder / "0.npy").write_bytes(b"garbage")
    with pytest.raises(UsageError, match="is broken"):
        cached_rows({"name": "x"}, 4, parts)


def test_a_making_that_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="3 rows in all; found 2"):
        cached_rows({"name": "short"}, 3, lambda: iter([torch.ones(2, 1)]))
    with pytest.raises(UsageError, match="trajectory 3 of the fine simulator becomes infinite"):
        start = starts()
        start[3] = 1e200
        simulated_reference(FunctionSimulator(lambda x, u: x * x), initial_state=start, steps=2, batch=2)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")]


def test_windows_come_from_their_own_part_and_lie_on_the_trajectories():
    whole = reference()
    for part in ("train", "validation", "test"):
        cut = Windows(whole, 4, part)
        for data in (cut(torch.Generator().manual_seed(0), 40), cut.spread(40)):
            seen = set()
            for start, rows, speed in zip(
                data["initial_state"], data["reference"], data["velocity_0"], strict=True
            ):
                (index,) = torch.nonzero(whole.parameters["velocity_0"] == speed).flatten().tolist()
                places = (whole.states[:, index] == start).all(-1).nonzero().flatten().tolist()
                assert len(places) == 1 and index in whole.split[part]
                assert torch.equal(rows, whole.states[places[0] : places[0] + 5, index])
                seen.add((index, places[0]))
            assert {index for index, _ in seen} == set(whole.split[part])
            assert {place for _, place in seen} == (
                {0, 4, 8} if data["reference"].shape[0] < 40 else set(range(9))
            )


def test_spread_windows_are_as_many_as_asked_for_and_do_not_overlap():
    cut = Windows(reference(), 3)
    assert [len(cut.spread(most)["reference"]) for most in (1, 5, 24, 100)] == [1, 5, 24, 24]
    firsts = cut.spread(24)["initial_state"]
    assert len({tuple(row.tolist()) for row in firsts}) == 24
    longer = cut.of("test", 12).spread(9)
    assert tuple(longer["reference"].shape) == (2, 13, CELLS)


def test_a_default_split_is_the_same_every_time_and_covers_all():
    states, _ = trajectories(20)
    first, second = (Reference(states).split for _ in range(2))
    assert first == second and [len(first[part]) for part in ("train", "validation", "test")] == [14, 3, 3]
    assert sorted(index for part in first.values() for index in part) == list(range(20))
    assert [len(part) for part in Reference(states[:, :3]).split.values()] == [1, 1, 1]


def test_what_is_no_reference_is_refused_in_a_sentence():
    states, speeds = trajectories()
    with pytest.raises(UsageError, match="three trajectories or more"):
        Reference(states[:, :2])
    with pytest.raises(UsageError, match="same two leading axes"):
        Reference({"u": states, "v": states[1:]})
    with pytest.raises(UsageError, match="one finite number for each of its 10 trajectories"):
        Reference(states, {"velocity_0": speeds[1:]})
    for split in (
        {"train": (0, 1), "validation": (1,), "test": (2,)},
        {"train": (0,), "validation": (), "test": (2,)},
        {"train": (0,), "validation": (1,), "test": (10,)},
    ):
        with pytest.raises(UsageError, match="do not overlap and name trajectories 0 to 9"):
            Reference(states, split=split)
    with pytest.raises(UsageError, match="a split names train, validation, test"):
        Reference(states, split={"train": (0,)})
    with pytest.raises(UsageError, match="from 1 to the 12 steps of the reference; found 13"):
        Windows(reference(), 13)
    with pytest.raises(UsageError, match="every must be a whole number, at least 1"):
        made(every=0)


def test_trees_of_states_are_cut_leaf_by_leaf():
    states, _ = trajectories()
    whole = Reference({"u": states, "v": states[..., :3]})
    data = Windows(whole, 2)(torch.Generator().manual_seed(0), 6)
    assert tree.describe(data["reference"]) == "{u: (6, 3, 16) float64, v: (6, 3, 3) float64}"
    assert torch.equal(data["reference"]["u"][..., :3], data["reference"]["v"])
    assert torch.equal(data["initial_state"]["u"], data["reference"]["u"][:, 0])
