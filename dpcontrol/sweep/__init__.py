"""Where jobs run: in this process or in spawned worker processes."""

from dpcontrol.sweep.jobs import Job, Outcome, cores, run_jobs

__all__ = ["Job", "Outcome", "cores", "run_jobs"]
