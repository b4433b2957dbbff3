"""What is on the wires: layouts and limits, the heads of messages, arrays."""
