"""The full matrix of `make bench-full`: one file for each question, each gives a table."""
