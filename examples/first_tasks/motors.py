"""A module that main.py imports from its own folder."""

STEPS_A_TURN = 200


def steps(degrees: float) -> int:
    """The steps of the motor for so many degrees."""
    return round(degrees * STEPS_A_TURN / 360)
