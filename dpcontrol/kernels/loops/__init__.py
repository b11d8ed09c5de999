"""Loops over cells, compiled by Numba: importing one of these modules imports numba, so they are imported late."""
