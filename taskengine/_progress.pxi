# A worker's progress page: how far it is with the batches that it holds, in memory that outlives it. The text is part
# of _fastpath.pyx.
#
# The worker writes, and the router reads when the worker is dead. Then the page has every store from before the death,
# and none from after it, so that plain stores in the right order are enough. They are volatile, so that the compiler
# keeps their order. While the worker lives, the router reads single words only, and writes only the recall.
#
# The router also `peek`s at the results of a living worker. `number`, `committed` and `done` are published: what was
# stored before one of them is seen by whoever has seen it. Results that they cover never change while the router waits
# for the answer to their batch, since the next batch in the slot is not sent before that. The fields of the open entry
# are those of one entry where `committed` has not changed while they were read (a sequence lock; Boehm, "Can seqlocks
# get along with programming language memory models?", MSPC 2012).
#
# A batch has the slot that its number picks, by turns. Its answer is written where it lies in the slot, so that what a
# dead worker had done can be answered still. `committed` are the entries that are complete; while `open`, another one is
# being written, of tasks of `job` from `first` on. The positions of tasks are those in their package.
#
# Of a batch that the router has `offered` the worker runs only tasks that it has claimed (see _claim.h); the others the
# router may take back, from the last on.

cdef extern from "_claim.h":
    ctypedef uint32_t claim_t
    enum:
        CLAIM_MOST
    void claim_offer(claim_t* word, uint32_t tasks) nogil
    uint32_t claim_tasks(claim_t* word, uint32_t most) nogil
    uint32_t claim_unclaimed(claim_t* word) nogil
    uint32_t claim_take_back(claim_t* word, uint32_t most) nogil

cdef extern from *:
    """
    typedef struct {
        volatile uint64_t number;     /* of the batch */
        volatile uint64_t committed;  /* complete entries << 32 | where they end in the slot */
        volatile uint64_t done;       /* position behind the last finished task << 32 | where its result ends */
        volatile uint64_t until;      /* when the timeout of the running task is over, monotonic ns; 0 for never */
        volatile uint64_t job;
        volatile uint32_t first;
        volatile uint32_t body;       /* where the results of the open entry begin */
        volatile uint32_t started;    /* position behind the last task that was started */
        volatile uint32_t failed;     /* of those that are done */
        volatile uint32_t open;
        claim_t claim;
        volatile uint64_t offered;    /* number of the batch whose tasks `claim` counts */
    } slot_t;

    typedef struct {
        volatile uint64_t recall;  /* batches below this number are to be handed back after the running task */
        volatile uint64_t finished;  /* entries that all workers of this place have completed */
        volatile uint64_t busy;  /* code of the user that is no task is running */
        slot_t slots[2];
    } page_t;

    /* single copies on every processor: of 8 bytes, too, where a word has 4 */
    #define publish(place, value) __atomic_store_n(place, value, __ATOMIC_RELEASE)
    #define published(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
    /* what is stored, or loaded, before comes before what is stored, or loaded, after */
    #define order_stores() __atomic_thread_fence(__ATOMIC_RELEASE)
    #define order_loads() __atomic_thread_fence(__ATOMIC_ACQUIRE)
    """
    void order_stores() noexcept nogil
    void order_loads() noexcept nogil
    void publish(uint64_t* place, uint64_t value) noexcept nogil
    uint64_t published(const uint64_t* place) noexcept nogil
    ctypedef struct Slot "slot_t":
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
        claim_t claim
        uint64_t offered

    ctypedef struct ProgressHead "page_t":
        uint64_t recall
        uint64_t finished
        uint64_t busy
        Slot slots[2]


if layouts.MAX_OFFERED != CLAIM_MOST:
    raise ImportError(f"a claim word counts {CLAIM_MOST} tasks, not {layouts.MAX_OFFERED}")


@cython.final
@cython.no_gc_clear  # the collector would take the buffer that is to be released
cdef class ProgressPage:
    """A progress page in `memory`, a writable buffer of layouts.PROGRESS_BYTES that router and worker share."""

    cdef Py_buffer view
    cdef ProgressHead* head
    cdef object memory

    def __cinit__(self, memory):
        self.memory = memory
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        if <size_t>self.view.len != PROGRESS_BYTES:
            raise ProtocolError(f"a progress page has {PROGRESS_BYTES} bytes, not {self.view.len}")
        self.head = <ProgressHead*>self.view.buf

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef inline u8* data(self, uint64_t number) noexcept:
        return <u8*>self.view.buf + PROGRESS_HEAD + (number & 1) * MAX_MESSAGE

    cdef Slot* begin(self, uint64_t number, _Out out) except NULL:
        """Return the slot of a batch that begins; `out` writes into it from here on."""
        cdef Slot* slot = &self.head.slots[number & 1]
        slot.open = 0
        slot.until = 0
        # that of an older batch may lie beyond this one's results: who reads it and then what is open would mix the two
        publish(&slot.done, 0)
        publish(&slot.committed, COUNT_SIZE)
        publish(&slot.number, number)
        out.lend(self.data(number), MAX_MESSAGE)
        return slot

    def offer(self, uint64_t number, uint32_t tasks):
        """Have the worker claim each task of a batch that is sent next, of at most layouts.MAX_OFFERED tasks."""
        cdef Slot* slot = &self.head.slots[number & 1]
        claim_offer(&slot.claim, tasks)
        slot.offered = number

    def unclaimed(self, uint64_t number):
        """Return how many tasks of a batch may be taken back: 0 if it was not offered."""
        cdef Slot* slot = &self.head.slots[number & 1]
        return claim_unclaimed(&slot.claim) if slot.offered == number else 0

    def take_back(self, uint64_t number, uint32_t most):
        """Take back up to `most` of the last tasks of a batch that was offered; return how many it has left."""
        return claim_take_back(&self.head.slots[number & 1].claim, most)

    def limit(self, uint64_t timeout_ns):
        """Start the timeout, in ns, of the task that is about to start; 0 for no timeout."""
        cdef Slot* slot = &self.head.slots[0]
        if not slot.open:
            slot = &self.head.slots[1]
        slot.until = now_ns() + timeout_ns if timeout_ns else 0

    @property
    def until_ns(self):
        """The time, in monotonic ns, when the running task's timeout is over; 0 if no task with a timeout runs."""
        return self.head.slots[0].until or self.head.slots[1].until

    @property
    def running(self):
        """Whether a task runs, or other code of the user."""
        cdef int j
        if self.head.busy:
            return True
        for j in range(2):
            if self.head.slots[j].open and self.head.slots[j].started > self.head.slots[j].done >> 32:
                return True
        return False

    @property
    def position(self):
        """The position of the running task in its package; 0 if none runs."""
        cdef int j
        for j in range(2):
            if self.head.slots[j].open and self.head.slots[j].started > self.head.slots[j].done >> 32:
                return self.head.slots[j].started - 1
        return 0

    @property
    def running_task(self):
        """The job and the position of the task that runs, or None."""
        cdef int j
        for j in range(2):
            if self.head.slots[j].open and self.head.slots[j].started > self.head.slots[j].done >> 32:
                return self.head.slots[j].job, self.head.slots[j].started - 1
        return None

    @property
    def progress(self):
        """A value that changes whenever a task begins or ends."""
        cdef Slot* one = &self.head.slots[0]
        cdef Slot* two = &self.head.slots[1]
        return self.head.finished, one.number, one.started, one.done, two.number, two.started, two.done

    @property
    def finished(self):
        """The number of entries of answers that the workers of this place have completed."""
        return self.head.finished

    def recall(self, uint64_t number):
        """Have the worker hand back batches up to this number after the running task."""
        self.head.recall = number + 1

    def recall_all(self):
        """Have the worker hand back all batches of the present router; the next router's have higher numbers."""
        self.head.recall = max(self.head.slots[0].number, self.head.slots[1].number) + IN_FLIGHT + 1

    def busy(self, bint busy):
        """Note that the worker begins, or ends, code of the user that is no task."""
        self.head.busy = busy

    def clear(self):
        """Clear the page, before the first batch of a worker that is new to the router."""
        memset(self.head.slots, 0, sizeof(self.head.slots))
        self.head.recall = 0

    def release(self, uint64_t number):
        """Return the memory of a large answer that has arrived to the system; return whether the system takes it."""
        try:
            self.memory.madvise(MADV_REMOVE, PROGRESS_HEAD + (number & 1) * MAX_MESSAGE, MAX_MESSAGE)
        except OSError:
            return False
        return True

    def read(self, uint64_t number):
        """Return how far a dead worker had come with a batch: (entries, part, running), or None if it had not begun.

        The entries are as in `read_answer`. `part`, or None, is the entry that was being written. It may end in the
        middle of a chunk. Its body holds the results so far; for TASK frames, the strings for their DATA frame, with
        commas between. `running` is the job and the position of the task that had started and not ended, or None.

        Raises ProtocolError if the page makes no sense.
        """
        cdef Slot* slot = &self.head.slots[number & 1]
        cdef u8* data = self.data(number)
        cdef uint32_t count, end, done, stop
        if slot.number != number:
            return None
        count, end = <uint32_t>(slot.committed >> 32), <uint32_t>slot.committed
        done, stop = <uint32_t>(slot.done >> 32), <uint32_t>slot.done
        if not COUNT_SIZE <= end <= MAX_MESSAGE:
            return malformed(f"entries that end at {end}")
        entries = read_entries(_Reader(some(data + COUNT_SIZE, end - COUNT_SIZE)), count)
        # a death may come between the end of an entry and the word that it is not open any more
        if not slot.open or slot.body < end:
            return entries, None, None
        if not slot.body <= stop <= MAX_MESSAGE or not slot.first <= done:
            return malformed(f"tasks from {slot.first} to {done} with results from {slot.body} to {stop}")
        part = None
        if done > slot.first:
            part = (slot.job, slot.first, done, slot.failed, 0, some(data + slot.body, stop - slot.body))
        return entries, part, (slot.job, done) if slot.started > done else None

    def peek(self, uint64_t number, tuple cursor not None, jobs):
        """What a living worker has finished of a batch since `cursor`: (pieces, cursor), None where that is nothing.

        A piece is (job, first, stop, failed, body) of tasks in a row; the body is None where `jobs` does not contain
        the job. The first cursor is FIRST_LOOK. Raises ProtocolError where the worker has overwritten its account; what
        was read before may then be senseless, too.
        """
        cdef Slot* slot = &self.head.slots[number & 1]
        cdef u8* data = self.data(number)
        cdef _Look look
        cdef Slot opened
        cdef uint64_t word
        cdef uint32_t count, end, done, stop, first
        cdef list pieces = []
        if published(&slot.number) != number:
            return None
        word = published(&slot.committed)
        count, end = <uint32_t>(word >> 32), <uint32_t>word
        look.entries, look.entry, look.position, look.at, look.failed = cursor
        if not look.entry <= look.at <= MAX_MESSAGE or not look.entry <= end <= MAX_MESSAGE or count < look.entries:
            return malformed(f"{count} entries that end at {end}")
        while look.entries < count:
            if end - look.entry < ENTRY_SIZE or end - look.entry - ENTRY_SIZE < get_u32(data + look.entry + 28):
                return malformed(f"an entry that begins at {look.entry}, where all end at {end}")
            first = get_u32(data + look.entry + 8)
            stop = look.entry + ENTRY_SIZE + get_u32(data + look.entry + 28)
            seen(&look, pieces, data, jobs, get_u64(data + look.entry), first,
                 first + get_u32(data + look.entry + 12), get_u32(data + look.entry + 16), stop)
            look.entries += 1
            look.entry = look.at = stop
            look.position = look.failed = 0
        opened.done = published(&slot.done)
        opened.open, opened.body, opened.first, opened.job, opened.failed = (
            slot.open, slot.body, slot.first, slot.job, slot.failed
        )
        order_loads()
        done, stop = <uint32_t>(opened.done >> 32), <uint32_t>opened.done
        # while an entry is being opened, some of this is of the one before, whose results lie before this one's
        if (
            published(&slot.committed) == word and opened.open and opened.body == end + ENTRY_SIZE
            and opened.body <= stop <= MAX_MESSAGE and opened.first < done
        ):
            seen(&look, pieces, data, jobs, opened.job, opened.first, done, opened.failed, stop)
        if not pieces:
            return None
        return pieces, (look.entries, look.entry, look.position, look.at, look.failed)


FIRST_LOOK = (0, COUNT_SIZE, 0, COUNT_SIZE, 0)
"""The cursor of who has not seen anything of a batch."""


cdef struct _Look:
    uint32_t entries  # that were seen as a whole
    uint32_t entry  # where the next one begins
    uint32_t position  # behind the last task of it that was seen; 0 where none was
    uint32_t at  # where the result of that task ends
    uint32_t failed  # of those that were seen of it


cdef int seen(
    _Look* look, list pieces, const u8* data, object jobs, uint64_t job, uint32_t first, uint32_t done, uint32_t failed,
    uint32_t stop,
) except -1:
    """Add the tasks of an entry that are new, of those from `first` to `done`, whose results end at `stop`."""
    cdef uint32_t position = look.position or first
    cdef uint32_t at = look.at if look.position else look.entry + ENTRY_SIZE
    cdef uint32_t mark = failed & MAY_RETRY
    failed ^= mark
    if not first <= position <= done or not at <= stop:
        return malformed(f"tasks from {first} to {done} with results to {stop}, seen to {position}, {at}")
    if position == done:
        return 0
    failed = min(failed - min(failed, look.failed), done - position)
    pieces.append((job, position, done, failed | mark, some(data + at, stop - at) if job in jobs else None))
    look.position, look.at = done, stop
    look.failed += failed
    return 0
