"""Tells which functions are tasks and sources: read from their text, loaded where they run."""
