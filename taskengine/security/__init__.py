"""Keys and the allow-list, the audit log, pairing, and redaction of errors for clients."""
