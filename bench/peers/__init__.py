"""Other systems, each optional, in processes and an environment of their own: `make bench-peers`.

Nothing here imports what the engine needs: the environment of the peers holds the peers.
"""
