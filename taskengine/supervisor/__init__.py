"""The parent process: starts, watches, reloads and stops the others."""
