"""What a posterior is to its user: draws, diagnostics with a verdict, predictions, pictures, files."""

from dpcontrol.posterior.draws import Draws
from dpcontrol.posterior.posterior import Posterior
from dpcontrol.posterior.predictive import Check, Predictions
from dpcontrol.posterior.summary import Summary
from dpcontrol.posterior.verdict import Verdict, judge, plain

__all__ = ["Check", "Draws", "Posterior", "Predictions", "Summary", "Verdict", "judge", "plain"]
