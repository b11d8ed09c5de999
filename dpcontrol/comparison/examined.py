"""What ``examine`` hands back: marks, with the ways to look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpcontrol import store
from dpcontrol.comparison import examined_figures, examined_words
from dpcontrol.comparison.marks import Marks


@dataclass(frozen=True)
class Examined:
    """An examination of corrections: ``print`` it; ``marks`` has the numbers.

    Made by :func:`~dpcontrol.comparison.examine`; a comparison has one as ``comparison.examination``.
    """

    marks: Marks

    def __str__(self) -> str:
        return examined_words.text(self.marks)

    def markdown(self) -> str:
        """The tables as Markdown, with what their numbers are."""
        return examined_words.markdown(self.marks)

    def figures(self, colours: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Name -> figure: errors along rollouts, spectra, what an error costs.

        Args:
            colours: label -> colour of each strategy; by default those of any comparison.
        """
        return examined_figures.drawn(self.marks, colours)

    def record(self) -> dict[str, Any]:
        """Plain values: every error of every step, for each seed."""
        return self.marks.record()

    def save(self, path: str | Path) -> Path:
        """Keep the record as JSON."""
        return store.write_json(path, self.record())

    @classmethod
    def load(cls, path: str | Path) -> Examined:
        """What :meth:`save` has written.

        Raises:
            UsageError: if it is something else.
        """
        return cls(Marks.from_record(store.read_json(path)))
