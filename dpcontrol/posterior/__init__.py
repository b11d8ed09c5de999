"""What a posterior is to its user: draws, diagnostics with a verdict, predictions, pictures, files."""

from dpcontrol.posterior.draws import Draws

__all__ = ["Draws"]
