"""What is said of draws: tables, warnings with their remedies, and the status of a run."""

from __future__ import annotations

import re

import numpy as np
import pytest

from dpcontrol.posterior import Draws, judge, plain
from dpcontrol.posterior.summary import summarise
from dpcontrol.results import Status


def chains(count=4, draws=1000, shift=0.0, seed=0):
    values = np.random.default_rng(seed).standard_normal((count, draws, 2))
    values[-1, :, 1] += shift
    return values


def summary(values, few=16, names=(), **fields):
    draws = Draws(values, -0.5 * (values**2).sum(2), **fields)
    return summarise(draws, {"rate": values[..., 0], "pair": values}, names, few=few)


def test_good_chains_are_praised():
    found = judge(summary(chains(), divergent=np.zeros((4, 1000))))
    assert found.good and found.mixed and not found.approximate
    assert found.headline.startswith("4 chains of 1,000 draws have mixed: worst R-hat 1.00")
    assert "no divergences" in found.headline
    assert found.on(Status("converged", "Done.")).kind == "converged"


@pytest.mark.parametrize(
    ("values", "fields", "said"),
    [
        (chains(shift=2.0), {}, r"! R-hat 1\.\d+ at pair\[1\]: the chains disagree\. Do not use"),
        (chains(draws=60), {}, "! only 60 draws of each chain"),
        (chains(count=1), {}, "! a single chain"),
        (
            chains(),
            {"divergent": np.arange(4000).reshape(4, 1000) < 20},
            r"! 20 transitions diverged \(0\.5 %\)",
        ),
        (chains(), {"energy": chains()[..., 0].cumsum(1)}, r"! E-BFMI 0\.0\d+, below 0\.3"),
        (np.repeat(chains(draws=40), 25, axis=1), {}, r"! bulk ESS 1?\d\d at .*, below 400"),
        (np.zeros((4, 1000, 2)), {}, "! rate never moved"),
    ],
)
def test_trouble_is_told_with_a_remedy(values, fields, said):
    found = judge(summary(values, **fields))
    assert not found.good
    assert re.search(said, str(found)), str(found)
    assert all(trouble.remedy.endswith(".") for trouble in found.troubles)
    assert "Warning: " in found.on(Status("budget spent", "Spent.")).sentence


def test_chains_that_have_not_mixed_are_not_called_converged():
    found = judge(summary(chains(shift=2.0)))
    assert found.on(Status("converged", "Done.")).kind == "iterations spent"
    assert found.on(Status("budget spent", "Spent.")).kind == "budget spent"
    # divergences are a warning, not a lack of mixing
    diverged = judge(summary(chains(), divergent=np.ones((4, 1000))))
    assert diverged.mixed and not diverged.good


def test_approximations_are_called_approximations():
    values = chains(count=1)
    known = summary(values, kind="independent")
    assert "how far it is from the posterior was not checked" in judge(known).headline
    assert judge(known).approximate and judge(known).mixed is None
    assert "ensemble of 1,000 particles" in judge(summary(values, kind="ensemble")).headline
    draws = Draws(values, np.zeros((1, 1000)), kind="independent")
    sites = {"rate": values[..., 0]}
    assert "Pareto k 0.20, below" in judge(summarise(draws, sites, weights_shape=0.2)).headline
    assert "it is the posterior itself" in judge(summarise(draws, sites, weights_shape=-np.inf)).headline
    lost = Draws(values, np.where(np.arange(1000) < 3, -np.inf, 0.0)[None], kind="independent")
    assert "-∞" in str(summarise(lost, sites))
    bad = judge(summarise(draws, sites, weights_shape=1.3))
    assert not bad.good and "misses much of the posterior" in bad.warning


def test_table_names_entries_and_condenses_fields():
    values = chains(draws=200)
    found = summary(values)
    text = str(found)
    assert [line.split()[0] for line in text.splitlines()[2:5]] == ["rate", "pair[0]", "pair[1]"]
    assert "log density" in text and "R-hat" in text
    assert found._repr_html_().count("<tr>") == 5
    field = str(summary(values, few=1))
    assert "pair (2 entries)" in field and "…" in field
    assert found.sites["pair"].mean == pytest.approx(values.mean((0, 1)))
    assert found.sites["rate"].sd == pytest.approx(values[..., 0].std(ddof=1))
    assert plain(found)["ess_bulk"] == found.worst_bulk.value


def test_large_fields_are_examined_in_places():
    values = np.random.default_rng(0).standard_normal((2, 120, 40, 40))
    values[0, :, 39, 39] += 5  # the last entry is among those examined
    draws = Draws(values.reshape(2, 120, -1), np.zeros((2, 120)))
    found = summarise(draws, {"field": values})
    assert len(found.sites["field"].examined) == 512
    assert found.worst_rhat.where == "field[39, 39]" or found.worst_rhat.where == "log density"
    assert "512 entries, evenly spaced, were examined" in found.footer()


def test_state_entries_have_the_names_of_the_state():
    values = np.random.default_rng(0).standard_normal((2, 120, 1, 2))
    draws = Draws(values.reshape(2, 120, -1), np.zeros((2, 120)))
    found = summarise(draws, {"initial_state": values}, ("hare", "lynx"))
    assert found.sites["initial_state"].labels == ("initial_state[hare]", "initial_state[lynx]")


def test_trajectories_without_end_are_told():
    steps = np.where(np.arange(4000).reshape(4, 1000) < 100, 1023, 7)
    found = summary(chains(), steps=steps, energy=chains()[..., 0], accepted=np.full((4, 1000), 0.83))
    assert "2.5 % of the transitions went on for 1,023 leapfrogs" in judge(found).warning
    assert "Mean acceptance 0.83, 32.4 evaluations for each draw." in str(found)
    # a random walk has no trajectories, however many steps are thinned away
    assert judge(summary(chains(), steps=steps)).good
