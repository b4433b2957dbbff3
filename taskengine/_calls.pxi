# The calls that a worker of a concurrent lane has begun, in its progress page. The text is part of _fastpath.pyx.
#
# Each of its batches is one task. The worker notes a batch before it reads the task, so that the router knows after a
# death which of the batches had been begun. It does not take the note back with the answer, which may be lost with the
# worker: a place is used again only after as many other batches as run at once have been begun. The router gives a
# worker no more than these, and answers come in order, so it has taken that answer by then. Until then the answer itself
# is kept, too, unless it is large: the results area of the page has room for one a place.

cdef extern from *:
    """
    #define CALLS 2048  /* places: twice limits.MAX_LANE */
    #define CALLS_AT 4096  /* bytes from the beginning of the page */
    #define ANSWER_KEPT 4096  /* the largest answer that is kept, in bytes */

    typedef struct {
        uint64_t number;  /* of the batch; 0 where none was begun here */
        uint64_t until;   /* when its worker is to be killed for it, monotonic ns; 0 for never */
        uint64_t size;    /* of its answer, where that is kept; 0 where it has none yet */
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
        ANSWER_KEPT

    ctypedef struct Call "call_t":
        uint64_t number
        uint64_t until
        uint64_t size

    ctypedef struct Calls "calls_t":
        uint32_t used
        Call calls[1]

    uint64_t read_word(uint64_t* at)
    void write_word(uint64_t* at, uint64_t value)

if CALLS != 2 * limits.MAX_LANE or CALLS_AT + sizeof(Calls) > PROGRESS_HEAD or CALLS * ANSWER_KEPT > 2 * MAX_MESSAGE:
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
        write_word(&self.table.calls[place].size, 0)
        write_word(&self.table.calls[place].number, number)
        if place >= self.table.used:
            self.table.used = place + 1

    def limit(self, uint32_t place, uint64_t timeout_ns):
        """Have the worker killed when the call at a place takes so many ns from now on, 0 for never. Raises IndexError."""
        self.check(place)
        write_word(&self.table.calls[place].until, now_ns() + timeout_ns if timeout_ns else 0)

    def end(self, uint32_t place, bytes answer):
        """Note that the call at a place was answered; it still counts as begun. Raises IndexError."""
        self.check(place)
        write_word(&self.table.calls[place].until, 0)
        if len(answer) <= ANSWER_KEPT:
            memcpy(self.kept(place), <const u8*>answer, len(answer))
            write_word(&self.table.calls[place].size, len(answer))
        self.page.head.finished += 1

    cdef inline u8* kept(self, uint32_t place) noexcept:
        """Where the answer of a place is kept."""
        return <u8*>self.page.view.buf + PROGRESS_HEAD + <size_t>place * ANSWER_KEPT

    def has_begun(self, uint64_t number):
        """Return whether a batch was begun; to be asked when the worker is dead."""
        cdef uint32_t j
        for j in range(self.used()):
            if read_word(&self.table.calls[j].number) == number:
                return True
        return False

    def answer(self, uint64_t number):
        """Return the answer to a batch that was begun, b"" if none is kept; to be asked when the worker is dead."""
        cdef uint32_t j
        cdef uint64_t size
        for j in range(self.used()):
            if read_word(&self.table.calls[j].number) == number:
                size = min(read_word(&self.table.calls[j].size), <uint64_t>ANSWER_KEPT)
                return (<const char*>self.kept(j))[:size]
        return b""

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
