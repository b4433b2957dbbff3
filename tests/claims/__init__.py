"""The claim word: a model of all that can happen, races on this machine, and what other machines would run."""
