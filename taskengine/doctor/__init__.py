"""What `taskengine doctor` looks at on a machine, and what it finds."""
