"""What ends a run. What is wrong with one recording is in its record instead."""

from __future__ import annotations


class BatchError(Exception):
    """The run cannot begin or go on. The message names the bad value, its place and valid ones."""
