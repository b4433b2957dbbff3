"""The Python client: session, transport, subscriptions, leases and stops."""
