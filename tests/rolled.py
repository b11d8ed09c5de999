"""The last state of a rollout, for tests of simulators."""

from dpcontrol.engine import rollout


def roll(simulator, state, steps, control=None, **parameters):
    """``steps`` steps from ``state`` under ``control`` ``(steps or more, scenarios, ...)``."""
    controls = None if control is None else control[:steps]
    return rollout(simulator, state, controls, length=steps, parameters=parameters).states[-1]
