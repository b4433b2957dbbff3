"""The documentation site: the pages of docs/ and of the repository, and an API reference made from docstrings."""
