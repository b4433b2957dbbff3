"""Layouts and limits of both wires, the heads of messages, and numpy arrays."""
