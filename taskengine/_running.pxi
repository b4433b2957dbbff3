# Tells which task runs in this process. The text is part of _fastpath.pyx.

cdef _Turn turn_at_hand = None  # a process runs one batch at a time


def running_index():
    """Return the name index of the task that runs in this process, or ran last in its batch; -1 where none runs."""
    return -1 if turn_at_hand is None else turn_at_hand.i
