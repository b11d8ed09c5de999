"""The folder of one run: what was asked, what an interrupted run needs to go on, and the solution."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dpcontrol import store
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

KEEP_EVERY_SECONDS = 2.0


class RunFolder:
    """Opened for a new run, or to resume one.

    Args:
        path: the folder; it is made if it does not exist.
        asked: plain values that say what was asked (problem, strategy, options, budget, seed), kept as ``run.json``.
        resume: go on with what an earlier run stored here.

    Raises:
        UsageError: if the folder holds a run and ``resume`` is false, or the other way round, or holds another run.
    """

    def __init__(self, path: str | Path, asked: Mapping[str, Any], *, resume: bool = False) -> None:
        self.path = Path(path)
        self._log: store.Journal | None = None
        self._written = time.perf_counter()
        there = (self.path / "run.json").exists()
        if there and not resume:
            raise UsageError(
                f"{self.path} holds a run already; resume it (resume=True), or name another folder."
            )
        if resume and not there:
            raise UsageError(
                f"{self.path} holds no run to resume; name the folder that an earlier run wrote."
            )
        self._resume = resume
        if resume:
            self._same_question(asked)
        else:
            store.write_json(self.path / "run.json", dict(asked))

    def _same_question(self, asked: Mapping[str, Any]) -> None:
        before = store.read_json(self.path / "run.json")
        for key in ("problem", "size", "problem_seed", "strategy", "options", "seed"):
            if before.get(key) != dict(asked).get(key):
                raise UsageError(
                    f"{self.path} holds a run with {key} {before.get(key)!r}, not {dict(asked).get(key)!r}; "
                    "resume it as it was, or name another folder."
                )

    def meter_options(self, stores_state: bool, generator: torch.Generator) -> dict[str, Any]:
        """What the meter needs to store the run, and to go on where it stopped."""
        if stores_state:
            return {"kept": self._kept(generator), "keep_state": lambda make: self._keep(make, generator)}
        self._log = store.Journal(self.path / "journal.bin")
        answers = list(self._log.replay()) if self._resume else []
        return {"log": self._log, "answers": answers}

    def close(self) -> None:
        """Close the journal."""
        if self._log is not None:
            self._log.close()

    def _kept(self, generator: torch.Generator) -> Tree:
        if not self._resume or not (self.path / "state.safetensors").exists():
            return None
        kept, _ = store.load(self.path / "state.safetensors")
        generator.set_state(kept["generator"])
        return kept["state"]

    def _keep(self, make_state: Callable[[], Tree], generator: torch.Generator) -> None:
        now = time.perf_counter()
        if now - self._written > KEEP_EVERY_SECONDS:
            content = {"state": make_state(), "generator": generator.get_state()}
            store.save(self.path / "state.safetensors", content)
            self._written = now
