"""Numbers on disk: trees, JSON, the journal of a run, and the cache of generated data. Never pickle.

Whole files are replaced atomically (written beside, flushed to disk, renamed): a reader finds the old file or the new
one. A journal grows record by record: ``kill -9`` costs at most the record that was being written.
"""

from dpcontrol.caching import cache_folder
from dpcontrol.store.arrays import cached_rows
from dpcontrol.store.cache import cached
from dpcontrol.store.files import read_json, write_json
from dpcontrol.store.identity import identity
from dpcontrol.store.journal import Journal, Record, checksum
from dpcontrol.store.trees import load, save

__all__ = [
    "Journal",
    "Record",
    "cache_folder",
    "cached",
    "cached_rows",
    "checksum",
    "identity",
    "load",
    "read_json",
    "save",
    "write_json",
]
