"""The command `taskengine`."""
