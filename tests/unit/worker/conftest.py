"""Fixtures that several modules share, so that a process builds each folder once."""

from tests.unit.worker.families import family, family_folder

__all__ = ["family", "family_folder"]
