"""What a robot did and saw, in MCAP files: recorded, listed and replayed by clients of the engine."""
