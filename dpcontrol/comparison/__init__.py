"""Several strategies on one problem: equal budgets, several seeds, intervals, tuning on equal terms, and a report."""

from dpcontrol.comparison.comparison import Comparison
from dpcontrol.comparison.examined import Examined
from dpcontrol.comparison.examining import examine
from dpcontrol.comparison.matrix import compare
from dpcontrol.comparison.planning import given_again
from dpcontrol.comparison.tunable import TUNABLE, Choice, Range, spaces_of_words
from dpcontrol.comparison.tuning import Tuned, tune, tuned_in

__all__ = [
    "TUNABLE",
    "Choice",
    "Comparison",
    "Examined",
    "Range",
    "Tuned",
    "compare",
    "examine",
    "given_again",
    "spaces_of_words",
    "tune",
    "tuned_in",
]
