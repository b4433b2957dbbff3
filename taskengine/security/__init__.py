"""Keys, who is let in by them, the audit log, pairing, and what clients are not told."""
