# The answers of a package until all of them are there. The text is part of _fastpath.pyx.

cdef class Assembly:
    """Collects the answers of a package, in pieces of neighbouring tasks, until all `tasks` tasks are there."""

    cdef list _firsts
    cdef list _pieces  # (first, stop, body), in order
    cdef Py_ssize_t _tasks
    cdef readonly Py_ssize_t missing
    """The number of tasks whose answers are missing."""
    cdef readonly Py_ssize_t held
    """The bytes of all bodies so far."""

    def __cinit__(self, Py_ssize_t tasks):
        if tasks < 0:
            raise ProtocolError(f"a package has no {tasks} tasks")
        self._firsts = []
        self._pieces = []
        self._tasks = tasks
        self.missing = tasks
        self.held = 0

    def put(self, Py_ssize_t first, Py_ssize_t stop, bytes body not None):
        """Add the answers of the tasks from `first` to `stop`; return whether none is missing now.

        Raises ProtocolError for tasks that the package does not have, or that have been added before.
        """
        cdef Py_ssize_t place
        if not 0 <= first < stop <= self._tasks:
            raise ProtocolError(f"a package of {self._tasks} tasks has none from {first} to {stop}")
        place = bisect_right(self._firsts, first)
        if (place and (<tuple>self._pieces[place - 1])[1] > first) or (
            place < len(self._firsts) and self._firsts[place] < stop
        ):
            raise ProtocolError(f"some of the tasks from {first} to {stop} came twice")
        self._firsts.insert(place, first)
        self._pieces.insert(place, (first, stop, body))
        self.held += len(body)
        self.missing -= stop - first
        return self.missing == 0

    def lacks(self, position):
        """Return whether the package has a task at this position, and its answer is missing."""
        cdef Py_ssize_t place
        if not 0 <= position < self._tasks:
            return False
        place = bisect_right(self._firsts, position)
        return not place or <Py_ssize_t>(<tuple>self._pieces[place - 1])[1] <= position

    def gaps(self):
        """Return the tasks whose answers are missing, as runs (first, stop), in order."""
        cdef list runs = []
        cdef Py_ssize_t at = 0
        for first, stop, _ in self._pieces:
            if first > at:
                runs.append((at, first))
            at = stop
        if at < self._tasks:
            runs.append((at, self._tasks))
        return runs

    def pieces(self):
        """Return all pieces (first, stop, body), in order. Raises ProtocolError while tasks are missing."""
        if self.missing:
            raise ProtocolError(f"{self.missing} of {self._tasks} tasks are missing")
        return list(self._pieces)

    def bodies(self):
        """Return the bodies, in the order of the tasks. Raises ProtocolError while tasks are missing."""
        return [body for _, _, body in self.pieces()]

    def join(self):
        """Return the bodies end to end. Raises ProtocolError while tasks are missing."""
        return b"".join(self.bodies())
