"""Builds what users install: an sdist, wheels for other processors, and wheels of the libraries that lack them."""
