# The router's counts of each package, slice and entry of an answer. The text is part of _fastpath.pyx.

cdef extern from *:
    """
    #define bit_length(x) ((x) ? 64 - __builtin_clzll(x) : 0)
    """
    int bit_length(uint64_t x) nogil

cdef enum:
    MOST_BUCKETS = 65

cdef int LATENCY_BUCKETS = layouts.LATENCY_BUCKETS
cdef int LATENCY_SHIFT = layouts.LATENCY_SHIFT
if not 0 < LATENCY_BUCKETS <= MOST_BUCKETS:
    raise ImportError(f"{LATENCY_BUCKETS} buckets are too many")

cdef struct Stage:
    uint64_t tasks[MOST_BUCKETS]
    double total_ns


cdef inline void observe(Stage* stage, uint64_t ns, uint64_t tasks) noexcept:
    cdef int bucket = bit_length(ns >> LATENCY_SHIFT)
    stage.tasks[bucket if bucket < LATENCY_BUCKETS else LATENCY_BUCKETS - 1] += tasks
    stage.total_ns += <double>ns * tasks


cdef tuple told(Stage* stage):
    """Return the tasks of each bucket, without empty ones at the end, and the seconds of all tasks together."""
    cdef int used = LATENCY_BUCKETS
    while used and not stage.tasks[used - 1]:
        used -= 1
    return [stage.tasks[bucket] for bucket in range(used)], stage.total_ns / 1e9


cdef class Tally:
    """Counts the tasks accepted, answered and failed at workers, and the time that they took; `tick` sets the time."""

    cdef uint64_t _now
    cdef Stage _waiting, _running, _total
    cdef public Py_ssize_t accepted
    cdef public Py_ssize_t answered
    cdef readonly Py_ssize_t failed
    """The tasks that workers have answered with errors."""

    def tick(self, double now):
        """Set the time for what follows: `now` in s, monotonic."""
        self._now = <uint64_t>(now * 1e9 + 0.5)

    @property
    def now(self):
        """When the turn began, in s, monotonic."""
        return self._now / 1e9

    def accept(self, package):
        """Note that a package is in flight from here on."""
        package.flight.accepted_ns = self._now
        self.accepted += package.count

    def release(self, package):
        """Note that a package is whole."""
        observe(&self._total, self._now - <uint64_t>package.flight.accepted_ns, package.count)

    def hand_out(self, list slices not None):
        """A worker is given slices, (package, run, first, stop, cost, is_again): how many tasks these are.

        Tasks that are handed out again have waited for the first time only.
        """
        cdef Py_ssize_t tasks, given = 0
        for slice in slices:
            tasks = <Py_ssize_t>(<tuple>slice)[3] - <Py_ssize_t>(<tuple>slice)[2]
            given += tasks
            if not (<tuple>slice)[5]:
                observe(&self._waiting, self._now - <uint64_t>(<object>(<tuple>slice)[0]).flight.accepted_ns, tasks)
        return given

    def answer(self, Py_ssize_t tasks, Py_ssize_t failed, uint64_t took_ns):
        """Note that a worker has answered tasks, `failed` with errors, in `took_ns` for all, 0 if not known."""
        self.answered += tasks
        self.failed += failed
        if took_ns and tasks > 0:
            observe(&self._running, took_ns // <uint64_t>tasks, tasks)

    def stages(self):
        """Return for waiting, running and in all: the tasks of each bucket, and the seconds of all tasks together."""
        return told(&self._waiting), told(&self._running), told(&self._total)
