# A worker's slate: its account of the batches that it holds, in memory that outlives it. The text is part of
# _fastpath.pyx.
#
# The worker writes, and the router reads once the worker is dead: every store that came before the death is there, and
# none after it, so that plain stores in the right order are enough. The compiler keeps their order, being told that they
# are volatile. What the router reads while the worker lives, and the recall that it writes, are single words.
#
# A batch has the pane that its number picks, by turns. Its answer is written where it lies in the pane, so that what a
# dead worker had done can be answered still. `committed` are the entries that are complete; while `open`, another one is
# being written, of tasks of `job` from `first` on. The positions of tasks are those in their package.

cdef extern from *:
    """
    typedef struct {
        volatile uint64_t number;     /* of the batch */
        volatile uint64_t committed;  /* complete entries << 32 | where they end in the pane */
        volatile uint64_t done;       /* position behind the last finished task << 32 | where its result ends */
        volatile uint64_t until;      /* when the timeout of the running task is over, monotonic ns; 0 for never */
        volatile uint64_t job;
        volatile uint32_t first;
        volatile uint32_t body;       /* where the results of the open entry begin */
        volatile uint32_t started;    /* position behind the last task that was started */
        volatile uint32_t failed;     /* of those that are done */
        volatile uint32_t open;
    } pane_t;

    typedef struct {
        volatile uint64_t recall;  /* batches below this number are to be handed back after the running task */
        volatile uint64_t finished;  /* entries that all workers of this place have completed */
        volatile uint64_t busy;  /* what a user wrote is running, and no task */
        pane_t panes[2];
    } slate_t;
    """
    ctypedef struct Pane "pane_t":
        uint64_t number
        uint64_t committed
        uint64_t done
        uint64_t until
        uint64_t job
        uint32_t first
        uint32_t body
        uint32_t started
        uint32_t failed
        uint32_t open

    ctypedef struct SlateHead "slate_t":
        uint64_t recall
        uint64_t finished
        uint64_t busy
        Pane panes[2]


@cython.final
cdef class Slate:
    """The slate that lies in `memory`, a writable buffer of layouts.SLATE_BYTES that both processes share."""

    cdef Py_buffer view
    cdef SlateHead* head
    cdef object memory

    def __cinit__(self, memory):
        self.memory = memory
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        if <size_t>self.view.len != SLATE_BYTES:
            raise ProtocolError(f"a slate has {SLATE_BYTES} bytes, not {self.view.len}")
        self.head = <SlateHead*>self.view.buf

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef inline u8* data(self, uint64_t number) noexcept:
        return <u8*>self.view.buf + SLATE_HEAD + (number & 1) * MAX_MESSAGE

    cdef Pane* begin(self, uint64_t number, _Out out) except NULL:
        """The pane of a batch that begins; `out` writes into it from here on."""
        cdef Pane* pane = &self.head.panes[number & 1]
        pane.open = 0
        pane.until = 0
        pane.committed = COUNT_SIZE
        pane.number = number
        out.lend(self.data(number), MAX_MESSAGE)
        return pane

    def limit(self, uint64_t timeout_ns):
        """The task that is about to start in the batch at hand may take so many ns, 0 for any number."""
        cdef Pane* pane = &self.head.panes[0]
        if not pane.open:
            pane = &self.head.panes[1]
        pane.until = now_ns() + timeout_ns if timeout_ns else 0

    @property
    def until_ns(self):
        """When the timeout of the running task is over, in monotonic ns; 0 where none runs that has one."""
        return self.head.panes[0].until or self.head.panes[1].until

    @property
    def running(self):
        """A task is running, or what else a user wrote."""
        cdef int j
        if self.head.busy:
            return True
        for j in range(2):
            if self.head.panes[j].open and self.head.panes[j].started > self.head.panes[j].done >> 32:
                return True
        return False

    @property
    def position(self):
        """The position in its package of the task that runs; 0 where none does."""
        cdef int j
        for j in range(2):
            if self.head.panes[j].open and self.head.panes[j].started > self.head.panes[j].done >> 32:
                return self.head.panes[j].started - 1
        return 0

    @property
    def progress(self):
        """What changes whenever a task begins or ends."""
        cdef Pane* one = &self.head.panes[0]
        cdef Pane* two = &self.head.panes[1]
        return self.head.finished, one.number, one.started, one.done, two.number, two.started, two.done

    @property
    def finished(self):
        """How many entries of answers the workers of this place have completed."""
        return self.head.finished

    def recall(self, uint64_t number):
        """Have batches up to this number handed back after the running task."""
        self.head.recall = number + 1

    def recall_all(self):
        """Have handed back what the worker has of the router that there is; the next one has higher numbers."""
        self.head.recall = max(self.head.panes[0].number, self.head.panes[1].number) + IN_FLIGHT + 1

    def busy(self, bint busy):
        """The worker begins, or ends, what a user wrote and is no task."""
        self.head.busy = busy

    def clear(self):
        """Forget what was, before the first batch of a router's new worker."""
        memset(self.head.panes, 0, sizeof(self.head.panes))
        self.head.recall = 0

    def release(self, uint64_t number):
        """Give back the memory, an mmap, of a large answer that has arrived; whether the system takes it."""
        try:
            self.memory.madvise(MADV_REMOVE, SLATE_HEAD + (number & 1) * MAX_MESSAGE, MAX_MESSAGE)
        except OSError:
            return False
        return True

    def read(self, uint64_t number):
        """What a dead worker had done of a batch: (entries, part, running), or None where it had not begun it.

        The entries are as in `read_answer`. `part`, or None, is the one that was being written: its last task may be
        one in the middle of a chunk, and its body holds what the tasks gave, of TASK frames the strings that their
        DATA frame was to hold, with commas between. `running` is the job and the position of the task that had been
        started and not ended, or None.

        Raises ProtocolError where the dead worker left no sense behind.
        """
        cdef Pane* pane = &self.head.panes[number & 1]
        cdef u8* data = self.data(number)
        cdef uint32_t count, end, done, stop
        if pane.number != number:
            return None
        count, end = <uint32_t>(pane.committed >> 32), <uint32_t>pane.committed
        done, stop = <uint32_t>(pane.done >> 32), <uint32_t>pane.done
        if not COUNT_SIZE <= end <= MAX_MESSAGE:
            return malformed(f"entries that end at {end}")
        entries = read_entries(_Reader(some(data + COUNT_SIZE, end - COUNT_SIZE)), count)
        # a death may come between the end of an entry and the word that it is not open any more
        if not pane.open or pane.body < end:
            return entries, None, None
        if not pane.body <= stop <= MAX_MESSAGE or not pane.first <= done:
            return malformed(f"tasks from {pane.first} to {done} with results from {pane.body} to {stop}")
        part = None
        if done > pane.first:
            part = (pane.job, pane.first, done, pane.failed, 0, some(data + pane.body, stop - pane.body))
        return entries, part, (pane.job, done) if pane.started > done else None
