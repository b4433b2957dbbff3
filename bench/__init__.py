"""Measures Task Engine on the machine at hand: `python -m bench`, and `python -m bench.demo` to see it at work."""
