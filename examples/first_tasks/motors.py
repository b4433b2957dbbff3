"""What main.py imports, from beside it."""

STEPS_A_TURN = 200


def steps(degrees: float) -> int:
    """The steps of the motor for so many degrees."""
    return round(degrees * STEPS_A_TURN / 360)
