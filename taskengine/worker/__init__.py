"""The processes that run tasks and publish values."""
