# The worker's turn: a batch in, its answer out. The text is part of _fastpath.pyx.
#
# The whole batch is checked before its first task runs; what is wrong inside one task is that task's failure.

cdef struct Section:
    uint64_t job
    uint64_t deadline
    uint32_t part
    uint32_t first
    uint32_t count
    uint32_t lead
    uint32_t larger
    uint32_t size
    uint32_t base
    uint32_t body_size
    uint32_t head_size
    u8 format
    u8 reply
    const u8* head
    const u8* ends
    const u8* body


cdef int get_section(_Reader src, Section* section) except -1:
    cdef const u8* at = take(src, SECTION_SIZE)
    section.job = get_u64(at)
    section.deadline = get_u64(at + 8)
    section.part = get_u32(at + 16)
    section.first = get_u32(at + 20)
    section.count = get_u32(at + 24)
    section.lead = get_u32(at + 28)
    section.larger = get_u32(at + 32)
    section.size = get_u32(at + 36)
    section.base = get_u32(at + 40)
    section.body_size = get_u32(at + 44)
    section.head_size = get_u32(at + 48)
    section.format = at[52]
    section.reply = at[53]
    if section.format > COLUMNS or section.reply > NONE:
        return malformed(f"a section of format {section.format} and reply mode {section.reply}")
    if not 1 <= section.lead <= section.count or (
        section.size == 0 and section.count - section.lead > section.larger
    ):
        return malformed(f"a slice of {section.count} tasks that begins with {section.lead} of them")
    section.head = take(src, section.head_size)
    section.ends = take(src, section.base if section.format == COLUMNS else 4 * <uint64_t>section.count)
    section.body = take(src, section.body_size)
    if section.format != COLUMNS:
        check_ends(section.ends, section.count, section.base, section.body_size)
    elif section.base == 0 or not are_codes(section.ends, section.base) or (
        section.body_size != 8 * <uint64_t>section.base * section.count
    ):
        return malformed(f"{section.body_size} bytes are no {section.base} columns of {section.count} numbers")
    return 0


cdef inline uint32_t next_chunk(const Section* section, uint32_t number, uint32_t left) noexcept:
    """The tasks in the chunk with this number, from 0 in its slice, which has so many tasks left."""
    cdef uint64_t size = section.lead
    if number:
        size = <uint64_t>section.size + (number <= section.larger)
    return left if size > left else <uint32_t>size


def read_batch(batch):
    """The sections of a batch: (job, format, head, parts), the parts as (number, tasks). Raises ProtocolError."""
    cdef _Reader src = _Reader(batch)
    cdef Section section
    cdef uint32_t number, left, size
    cdef list sections = [], parts
    for _ in range(get_u32(take(src, BATCH_SIZE) + 8)):
        get_section(src, &section)
        parts = []
        number = 0
        left = section.count
        while left:
            size = next_chunk(&section, number, left)
            parts.append((<uint64_t>section.part + number, size))
            number += 1
            left -= size
        sections.append((section.job, section.format, some(section.head, section.head_size), parts))
    finish(src)
    return sections


cdef int check_batch(_Reader src) except -1:
    """That the bytes are a batch."""
    cdef Section section
    for _ in range(get_u32(take(src, BATCH_SIZE) + 8)):
        get_section(src, &section)
    return finish(src)


@cython.final
cdef class _Turn:
    """One batch being run: the answer so far, and the call at hand."""

    cdef object failed
    cdef object foreign
    cdef ProgressHead* page  # the shared one, or `own`
    cdef ProgressHead own
    cdef Slot* slot
    cdef uint64_t number
    cdef list limits  # in ns, by name index; None where no task of the section has one
    cdef _Out out
    cdef u8* at
    cdef PyObject** args  # the first place stays free, which spares callees a copy
    cdef size_t room
    cdef size_t live
    cdef size_t positional
    cdef tuple keywords  # of the last call that had some; the next one most often has the same
    cdef bint has_keywords
    cdef int64_t i
    cdef uint32_t entries
    cdef uint32_t ran  # tasks of the section at hand that have run
    cdef uint32_t claimed  # tasks that may run and have not begun
    cdef uint32_t stride  # tasks that were claimed last, 0 for none of the section at hand
    cdef uint64_t claimed_ns  # when
    cdef bint is_offered  # what is not claimed may be taken back

    def __cinit__(self, failed, foreign, uint64_t number, ProgressPage page):
        self.failed = failed
        self.foreign = foreign
        self.out = _Out(MAX_MESSAGE)
        self.number = number
        self.page = &self.own if page is None else page.head
        self.slot = &self.own.slots[0] if page is None else page.begin(number, self.out)
        self.is_offered = page is not None and self.slot.offered == number
        self.at = put_u32(self.out, self.out.data, 0)
        self.keywords = ()
        self.i = -1

    cdef inline bint is_recalled(self) noexcept:
        return self.page.recall > self.number

    cdef inline bint may_run(self, uint32_t left) noexcept:
        """Whether another of the `left` tasks of the section may run; it counts as run."""
        if not self.claimed and not self.claim(left):
            return False
        self.claimed -= 1
        return True

    cdef bint claim_chunk(self, uint32_t k, uint32_t* stop) noexcept:
        """Claim the tasks from `k` to `stop`, which lie in one DATA frame; `stop` is lowered where that was taken back."""
        if self.is_offered:
            stop[0] = k + claim_tasks(&self.slot.claim, stop[0] - k)
        return k < stop[0]

    cdef bint claim(self, uint32_t left) noexcept:
        """Claim the next of so many tasks: about as many as run in STRIDE_NS; whether there are any."""
        cdef uint64_t now
        if not self.is_offered:
            self.claimed = left
            return True
        now = now_ns()
        if not self.stride:
            self.stride = 1
        elif (now - self.claimed_ns) * 2 <= STRIDE_NS:
            self.stride = min(2 * self.stride, left)
        else:
            self.stride = <uint32_t>max(self.stride * STRIDE_NS // (now - self.claimed_ns), 1)
        self.claimed_ns = now
        self.stride = self.claimed = claim_tasks(&self.slot.claim, min(self.stride, left))
        return self.claimed > 0

    cdef inline int note(self, uint64_t position) noexcept:
        """The tasks before this position are done, and their results end here."""
        publish(&self.slot.done, position << 32 | <uint64_t>(self.at - self.out.data))

    cdef int open(self, const Section* section, uint64_t position) except -1:
        """Begin an entry, of tasks from this position on."""
        self.at = reserve(self.out, self.at, ENTRY_SIZE) + ENTRY_SIZE
        order_stores()
        self.slot.job = section.job
        self.slot.first = <uint32_t>position
        self.slot.started = <uint32_t>position
        self.slot.failed = 0
        self.begin_results()
        self.slot.open = 1
        return 0

    cdef int begin_results(self) noexcept:
        """The results of the entry begin here."""
        self.slot.body = <uint32_t>(self.at - self.out.data)
        self.note(self.slot.first)

    def __dealloc__(self):
        self.release()
        free(self.args)

    cdef int release(self) except -1:
        while self.live:
            self.live -= 1
            Py_DECREF(<object>self.args[1 + self.live])
        return 0

    cdef int expect(self, _Reader src, uint64_t values, uint64_t elements) except -1:
        """Make room for as many more arguments, if that many elements can follow."""
        claim(src, elements)
        return self.make_room(values)

    cdef int make_room(self, uint64_t values) except -1:
        cdef PyObject** args
        if self.live + values + 1 > self.room:
            args = <PyObject**>realloc(self.args, (self.live + values + 1) * sizeof(PyObject*))
            if args is NULL:
                raise MemoryError
            self.args = args
            self.room = self.live + values + 1
        return 0

    cdef inline int get_argument(self, _Reader src) except -1:
        src.owed -= 1
        value = get_value(src, 0)
        Py_INCREF(value)
        self.args[1 + self.live] = <PyObject*>value
        self.live += 1
        return 0

    cdef int get_keywords(self, _Reader src) except -1:
        cdef uint64_t n, size
        cdef Py_ssize_t j, length = 0
        cdef const char* key
        cdef const char* known
        cdef list fresh = None
        if get_head(src, &n) != MAP:
            raise ProtocolError("the keyword arguments of a task are a map")
        if n == 0:
            return 0
        self.expect(src, n, 2 * n)
        for j in range(<Py_ssize_t>n):
            src.owed -= 1
            if get_head(src, &size) != STR:
                raise ProtocolError("a keyword is text")
            key = <const char*>take(src, size)
            if fresh is None:
                known = PyUnicode_AsUTF8AndSize(self.keywords[j], &length) if j < len(self.keywords) else NULL
                if known is NULL or <uint64_t>length != size or memcmp(known, key, size):
                    fresh = list(self.keywords[:j])
            if fresh is not None:
                fresh.append(get_text(key, size))
            self.get_argument(src)
        if fresh is None and n != <uint64_t>len(self.keywords):
            fresh = list(self.keywords[:n])
        if fresh is not None:
            if <uint64_t>len(set(fresh)) != n:
                raise ProtocolError("a keyword came twice")
            self.keywords = tuple(fresh)
        self.has_keywords = True
        return 0

    cdef object get_call(self, _Reader src, list functions):
        """The function of the task between `at` and `end`, None where it is unknown; its arguments into `args`."""
        cdef uint64_t n, j
        cdef u8 tag
        src.owed = 0
        self.has_keywords = False
        tag = src.at[0]
        self.i = get_name(src)
        if self.i < 0:
            raise ProtocolError("a task is [i, args] or [i, args, kwargs]")
        if self.i >= len(functions):
            raise ProtocolError(f"a task names {self.i}, and its package has {len(functions)} names")
        function = functions[self.i]
        if function is None:
            return None
        if get_head(src, &n) != ARRAY:
            raise ProtocolError("the arguments of a task are an array")
        self.expect(src, n, n)
        for j in range(n):
            self.get_argument(src)
        self.positional = n
        if tag == 0x93:
            self.get_keywords(src)
        finish(src)
        return function

    cdef object get_row(self, const Section* section, uint32_t k, list functions):
        """The function that columns call, None where it is unknown; the numbers in row `k` into `args`."""
        cdef const u8* number = section.body + 8 * <uint64_t>k
        cdef uint64_t bits, j
        cdef double real
        self.i = 0
        self.has_keywords = False
        if not functions:
            raise ProtocolError("columns call the first of the names of their package, and it has none")
        function = functions[0]
        if function is None:
            return None
        self.make_room(section.base)
        for j in range(section.base):
            bits = get_u64(number)
            number += 8 * <uint64_t>section.count
            if section.ends[j] == c"f":
                memcpy(&real, &bits, 8)
                value = PyFloat_FromDouble(real)
            else:
                value = <int64_t>bits
            Py_INCREF(value)
            self.args[1 + self.live] = <PyObject*>value
            self.live += 1
        self.positional = section.base
        return function

    cdef size_t run_tasks(
        self, _Reader src, const Section* section, uint32_t k, uint32_t stop, bytes head, list functions
    ) except? 0:
        """Run the tasks from `k` to `stop` of a slice of wire 0.2, unless recalled or taken back; write their results.

        How many failed; `ran` is behind the last that ran.
        """
        cdef _Out out = self.out
        cdef u8* at
        cdef size_t failures = 0, mark
        cdef const u8* task = section.body
        cdef bint columns = section.format == COLUMNS, has_result = False
        if k and not columns:
            task += get_u32(section.ends + 4 * (k - 1)) - section.base
        while True:
            error = None
            mark = self.at - out.data
            try:
                while k < stop:
                    if self.is_recalled() or not self.may_run(section.count - k):
                        stop = k
                        break
                    if not columns:
                        src.at = task
                        task = src.end = section.body + (get_u32(section.ends + 4 * k) - section.base)
                    if section.deadline and now_ns() >= section.deadline:
                        self.i = -1
                        raise TaskTimeout("the deadline passed before the task could start")
                    # what a value costs to be read is the task's too: a death there is not another worker's to die
                    self.slot.started = section.first + k + 1
                    function = self.get_row(section, k, functions) if columns else self.get_call(src, functions)
                    if function is None:
                        break
                    if self.limits is not None:
                        self.start_clock()
                    # called here, not in a function of its own: a traceback with this frame alone tells
                    # arguments that did not fit from a task that raised
                    result = PyObject_Vectorcall(
                        function,
                        self.args + 1,
                        self.positional | PY_VECTORCALL_ARGUMENTS_OFFSET,
                        <PyObject*>self.keywords if self.has_keywords else NULL,
                    )
                    self.release()
                    self.slot.until = 0
                    has_result = True
                    if section.reply == ALL:
                        at = put_wide(out, self.at, result) if columns else put_value(out, self.at, result, 0)
                        if <size_t>(at - out.data) > MAX_BODY:
                            raise BadArguments(f"the results of this answer take more than {MAX_BODY} bytes")
                        self.at = at
                        mark = at - out.data
                    result = None
                    has_result = False
                    k += 1
                    self.note(<uint64_t>section.first + k)
            except BaseException as raised:
                error = raised
                if has_result and isinstance(raised, BadArguments):
                    error = TaskFailed(f"the result cannot be sent: {raised}", type="BadArguments")
                has_result = False
                self.release()
                self.slot.until = 0
                # what was written of its result may have moved all that was written before
                self.at = out.data + mark
            if k == stop:
                self.ran = k
                return failures
            self.fail(head, <uint64_t>section.first + k, section.reply, error)
            failures += 1
            k += 1
            self.slot.failed += 1
            self.note(<uint64_t>section.first + k)

    cdef int start_clock(self) except -1:
        """The timeout of the task at hand, if it has one, begins."""
        cdef uint64_t limit = self.limits[self.i]
        if limit:
            self.slot.until = now_ns() + limit
        return 0

    cdef int fail(self, bytes head, uint64_t position, int reply, object error) except -1:
        """Write the entry of a task that raised `error`, or whose name is unknown."""
        cdef bytes entry
        cdef u8* at = self.at
        if reply == NONE:
            return 0
        entry = self.failed(head, self.i, position, error)
        if at - self.out.data + len(entry) > <Py_ssize_t>MAX_BODY:
            error = BadArguments(f"the errors of this answer take more than {MAX_BODY} bytes")
            entry = self.failed(head, self.i, position, error)
        if reply == ERRORS:
            at = put_uint(self.out, at, position)
        self.at = put_raw(self.out, at, PyBytes_AS_STRING(entry), len(entry))
        return 0

    cdef size_t run_foreign(
        self, const Section* section, uint32_t k, uint32_t stop, bytes head
    ) except? 0:
        """Have the tasks from `k` to `stop` of a slice of another format run; how many failed, `ran` as above."""
        cdef bytes body
        cdef uint32_t start = 0, j
        cdef Py_ssize_t room = MAX_BODY - (self.at - self.out.data)
        if k:
            start = get_u32(section.ends + 4 * (k - 1)) - section.base
        ends = [get_u32(section.ends + 4 * j) - section.base - start for j in range(k, stop)]
        tasks = some(section.body + start, get_u32(section.ends + 4 * (stop - 1)) - section.base - start)
        self.slot.started = section.first + stop
        body, failures = self.foreign(section.format, head, <uint64_t>section.first + k, ends, tasks, max(room, 0))
        self.at = put_raw(self.out, self.at, PyBytes_AS_STRING(body), len(body))
        self.slot.failed += failures
        self.ran = stop
        self.note(<uint64_t>section.first + stop)
        return failures

    cdef uint32_t run_section(
        self, _Reader src, const Section* section, bytes head, list functions, _Frames frames, uint64_t until
    ) except? 0:
        """Run the chunks of a slice, one entry for them all or, of another format, for each; how many tasks ran.

        Ends behind the chunk at which the time `until` has come, 0 for never, and where the batch is recalled.
        """
        cdef uint32_t first = 0, k = 0, stop, chunk, number = 0
        cdef size_t body = 0, failures = 0
        cdef uint64_t begun = now_ns(), now
        cdef bint ends = False
        self.stride = 0
        while k < section.count and not ends:
            if k == first:
                self.open(section, <uint64_t>section.first + k)
                body = self.at - self.out.data
            stop = chunk = k + next_chunk(section, number, section.count - k)
            if section.format == PACKED or section.format == COLUMNS:
                failures += self.run_tasks(src, section, k, stop, head, functions)
                k = self.ran
            elif not self.claim_chunk(k, &stop):
                pass
            elif section.format == LEGACY_JSON and frames is not None:
                failures += frames.run(section, k, stop)
                k = self.ran
            else:
                failures += self.run_foreign(section, k, stop, head)
                k = self.ran
            number += 1
            now = now_ns()
            ends = k < chunk or (until and now >= until)
            if section.format == LEGACY_JSON or section.format == DATA or k == section.count or ends:
                if k > first:
                    self.put_entry(section, first, k, failures, now - begun, body)
                else:
                    self.at = self.out.data + body - ENTRY_SIZE
                self.slot.open = 0
                first, failures, begun = k, 0, now
        return k

    cdef int put_entry(
        self, const Section* section, uint32_t first, uint32_t stop, size_t failures, uint64_t elapsed, size_t body
    ) except -1:
        """Write the entry of tasks whose results begin at `body`, into the room before it."""
        cdef u8* at = self.out.data + body - ENTRY_SIZE
        at = put_u64(self.out, at, section.job)
        at = put_u32(self.out, at, section.first + first)
        at = put_u32(self.out, at, stop - first)
        at = put_u32(self.out, at, <uint32_t>failures)
        at = put_u64(self.out, at, elapsed)
        put_u32(self.out, at, <uint32_t>(self.at - self.out.data - body))
        self.entries += 1
        self.page.finished += 1
        publish(&self.slot.committed, <uint64_t>self.entries << 32 | <uint64_t>(self.at - self.out.data))
        return 0


cdef uint64_t now_ns() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1000000000 + <uint64_t>now.tv_nsec


def run_batch(batch, resolve, failed, foreign, frames=None, ProgressPage page=None, limits=None):
    """Run a batch and give the answer to it.

    resolve(head) gives the function of each name, None for one that is unknown; it is asked once a packed section.
    failed(head, i, position, exception) gives the error entry of the task at `position` in its package, `i` its name
    index or -1 where none can be read; the exception is None where resolve knew none. It may be whatever the task
    raised, a ProtocolError for a task that is malformed, BadArguments for a result that cannot be sent, TaskTimeout
    for a task that came too late to start.
    foreign(format, head, first, ends, body, room) runs a chunk of another format, whose first task has position
    `first` and whose tasks end at `ends` in `body`, and gives (body of the answer, tasks that failed); the body should
    have at most `room` bytes.
    frames does for TASK frames of wire 0.1 what compiled code does not; where it is None they are foreign too.
    frames.pack(head) gives the package's pack, JSON, and frames.find(name) a task's function, or None.
    frames.run(frame, room) runs a task, and frames.tell(label, result, room) tells what one gave that was run: both
    give (entry, whether it failed), the entry a JSON string, of at most `room` bytes unless it failed.
    frames.fail(label, name, exception) gives the entry of a task that raised; frames.limit(name) a task's timeout in
    ns, 0 for none.
    page, where it is given, holds the account of the batch, and the answer while it is made.
    limits(head) gives the timeout of each name in ns, 0 for none, or None where no name has one.

    Raises ProtocolError, before anything runs, for what is no batch; BadArguments where the answer cannot fit into
    one message, with no more than its foreign bodies and a short error for each task that there is no room for.
    """
    global turn_at_hand
    # a copy of what a task could change under our feet
    cdef _Reader src = _Reader(batch if type(batch) is bytes else bytes(memoryview(batch)))
    cdef _Reader task = _Reader(b"")
    cdef _Turn turn
    cdef _Frames seed = None
    cdef Section section
    cdef uint64_t until
    cdef const u8* at = src.at
    cdef list functions
    check_batch(src)
    src.at = at
    turn = _Turn(failed, foreign, get_u64(take(src, BATCH_SIZE)), page)
    if frames is not None:
        seed = _Frames(frames, turn)
    until = get_u64(at + 12)
    if until:
        until += now_ns()
    turn_at_hand = turn
    try:
        for _ in range(get_u32(at + 8)):
            get_section(src, &section)
            head = some(section.head, section.head_size)
            is_packed = section.format == PACKED or section.format == COLUMNS
            functions = list(resolve(head)) if is_packed else []
            turn.limits = limits(head) if is_packed and limits is not None else None
            if section.format == LEGACY_JSON and seed is not None:
                seed.pack = frames.pack(head)
            if turn.run_section(task, &section, head, functions, seed, until) < section.count:
                break
            if until and now_ns() >= until:
                break
    finally:
        turn_at_hand = None
    put_u32(turn.out, turn.out.data, turn.entries)
    return turn.out.taken(turn.at)
