# The calls that a worker of a concurrent lane has begun, in its progress page. The text is part of _fastpath.pyx.
#
# Each of its batches is one task. The worker notes a batch before it reads the task, so that the router knows after a
# death which of the batches had been begun. It does not take the note back with the answer, which may be lost with the
# worker: a place is used again only after as many other batches as run at once have been begun. The router gives a
# worker no more than these, and answers come in order, so it has taken that answer by then.

cdef extern from *:
    """
    #define CALLS 2048  /* places: twice limits.MAX_LANE */
    #define CALLS_AT 4096  /* bytes from the beginning of the page */

    typedef struct {
        uint64_t number;  /* of the batch; 0 where none was begun here */
        uint64_t until;   /* when its worker is to be killed for it, monotonic ns; 0 for never */
    } call_t;

    typedef struct {
        uint32_t used;  /* places that were ever used */
        call_t calls[CALLS];
    } calls_t;

    _Static_assert(sizeof(page_t) <= CALLS_AT, "the calls lie behind the head of the page");

    #define read_word(at) __atomic_load_n(at, __ATOMIC_ACQUIRE)
    #define write_word(at, value) __atomic_store_n(at, value, __ATOMIC_RELEASE)
    """
    enum:
        CALLS
        CALLS_AT

    ctypedef struct Call "call_t":
        uint64_t number
        uint64_t until

    ctypedef struct Calls "calls_t":
        uint32_t used
        Call calls[1]

    uint64_t read_word(uint64_t* at)
    void write_word(uint64_t* at, uint64_t value)

if CALLS != 2 * limits.MAX_LANE or CALLS_AT + sizeof(Calls) > PROGRESS_HEAD:
    raise ImportError("the calls of a concurrent lane do not fit into a progress page")


@cython.final
cdef class CallTable:
    """The calls that were begun by the worker which has this progress page."""

    cdef ProgressPage page
    cdef Calls* table

    def __cinit__(self, ProgressPage page):
        self.page = page
        self.table = <Calls*>(<u8*>page.view.buf + CALLS_AT)

    cdef uint32_t used(self) noexcept:
        """How many places to look at; tasks may have written anything there."""
        return min(self.table.used, <uint32_t>CALLS)

    def begin(self, uint32_t place, uint64_t number):
        """Note at a place that a batch is begun. Raises IndexError."""
        self.check(place)
        write_word(&self.table.calls[place].until, 0)
        write_word(&self.table.calls[place].number, number)
        if place >= self.table.used:
            self.table.used = place + 1

    def limit(self, uint32_t place, uint64_t timeout_ns):
        """Have the worker killed when the call at a place takes so many ns from now on, 0 for never. Raises IndexError."""
        self.check(place)
        write_word(&self.table.calls[place].until, now_ns() + timeout_ns if timeout_ns else 0)

    def end(self, uint32_t place):
        """Note that the call at a place was answered; it still counts as begun. Raises IndexError."""
        self.check(place)
        write_word(&self.table.calls[place].until, 0)
        self.page.head.finished += 1

    def has_begun(self, uint64_t number):
        """Return whether a batch was begun; to be asked when the worker is dead."""
        cdef uint32_t j
        for j in range(self.used()):
            if read_word(&self.table.calls[j].number) == number:
                return True
        return False

    def overdue(self, uint64_t at_ns):
        """Return the numbers of the batches for which the worker is to be killed at the time `at_ns`."""
        cdef uint32_t j
        cdef uint64_t until
        cdef list found = []
        for j in range(self.used()):
            until = read_word(&self.table.calls[j].until)
            if 0 < until <= at_ns:
                found.append(read_word(&self.table.calls[j].number))
        return found

    def clear(self):
        """Forget all calls, before the first of another router."""
        memset(self.table, 0, sizeof(Calls))

    cdef int check(self, uint32_t place) except -1:
        if place >= CALLS:
            raise IndexError(f"there are {CALLS} places, and no place {place}")
        return 0
