"""When what is learned in the warm-up: the step size, then the metric in growing windows, then the step size again."""

from __future__ import annotations

from dataclasses import dataclass

FIRST, LAST, WINDOW = 75, 50, 25
SHORT = 20  # below so many transitions only the step size is learned


@dataclass(frozen=True)
class Schedule:
    """Transitions of a warm-up: ``edges`` are where windows end and the metric is learned from their draws.

    Attributes:
        warmup: transitions in all.
        begin: where the first window begins.
        edges: ascending; none where the metric is not learned.
    """

    warmup: int
    begin: int
    edges: tuple[int, ...]

    @classmethod
    def of(cls, warmup: int, *, metric: bool = True) -> Schedule:
        """75 transitions for the step, windows of 25, 50, 100, ... and a last one that takes the rest, 50 for the step.

        Shorter warm-ups than 150 take 15, 75 and 10 percent with one window. As in Stan (its reference manual, chapter
        on HMC algorithm parameters); a window that would leave less than twice its length behind it takes all.
        """
        if not metric or warmup < SHORT:
            return cls(warmup, warmup, ())
        if warmup < FIRST + LAST + WINDOW:
            begin, last = int(0.15 * warmup), int(0.1 * warmup)
            return cls(warmup, begin, (warmup - last,))
        begin, end = FIRST, warmup - LAST
        edges, length, edge = [], WINDOW, begin
        while edge < end:
            edge += length
            length *= 2
            if edge + length > end:
                edge = end
            edges.append(edge)
        return cls(warmup, begin, tuple(edges))

    def next_edge(self, done: int) -> int:
        """How far the chains may go before something happens to all of them."""
        return next((edge for edge in (*self.edges, self.warmup) if edge > done), -1)
