# Runs a batch of a worker and writes its answer. The text is part of _fastpath.pyx.
#
# The whole batch is checked before its first task runs; an error inside one task is that task's failure.

@cython.final
cdef class _Turn:
    """A batch that is being run: the answer so far, and the present call."""

    cdef object failed
    cdef object foreign
    cdef ProgressHead* page  # the shared one, or `own`
    cdef ProgressHead own
    cdef Slot* slot
    cdef uint64_t number
    cdef list limits  # in ns, by name index; None where no task of the section has one
    cdef object may_retry  # see run_batch; None where no task is ever run again
    cdef object again  # what the task at `ran` raised, or its entry of wire 0.1, where it may be run again
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
        """Return whether another of the `left` tasks of the section may run; if so, it counts as run."""
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
        """Claim some of the `left` tasks, about as many as run in STRIDE_NS; return whether it claimed any."""
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
        """Begin an entry for tasks from this position on."""
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
        """Note that the results of the entry begin here."""
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
        """Make room for `values` more arguments, if that many `elements` can follow."""
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
        """Return the function of the task that the reader is at, None if unknown, and put its arguments into `args`."""
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
        """Return the function that columns call, None if unknown, and put the numbers in row `k` into `args`."""
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

        Return how many failed; `ran` is then behind the last task that ran.
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
                elif self.may_retry is not None and self.i >= 0 and self.may_retry(head, self.i, raised):
                    self.again = raised
                has_result = False
                self.release()
                self.slot.until = 0
                # what was written of its result may have moved all that was written before
                self.at = out.data + mark
            if k == stop or self.again is not None:
                self.ran = k
                return failures
            self.fail(head, <uint64_t>section.first + k, section.reply, error)
            failures += 1
            k += 1
            self.slot.failed += 1
            self.note(<uint64_t>section.first + k)

    cdef int start_clock(self) except -1:
        """Start the timeout of the present task, if it has one."""
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
        """Have the tasks from `k` to `stop` of a slice of another format run; return how many failed, and set `ran`."""
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
        """Run the chunks of a slice, with one entry for all or, in another format, for each; return how many tasks ran.

        It ends after the chunk in which the time `until` comes, 0 for never, and when the batch is recalled.
        """
        cdef uint32_t first = 0, k = 0, stop = 0, chunk = 0, number = 0
        cdef size_t body = 0, failures = 0
        cdef uint64_t begun = now_ns(), now
        cdef bint ends = False, is_claimed = False
        self.out.values = src.values = section.values
        self.stride = 0
        while k < section.count and not ends:
            if k == first:
                self.open(section, <uint64_t>section.first + k)
                body = self.at - self.out.data
            if k == stop:
                stop = chunk = k + next_chunk(section, number, section.count - k)
                number += 1
                is_claimed = False
            if section.format == PACKED or section.format == COLUMNS:
                failures += self.run_tasks(src, section, k, stop, head, functions)
                k = self.ran
            elif not is_claimed and not self.claim_chunk(k, &stop):
                pass
            elif section.format == LEGACY_JSON and frames is not None:
                is_claimed = True  # also what comes behind a task that may be run again
                failures += frames.run(section, k, stop)
                k = self.ran
            else:
                failures += self.run_foreign(section, k, stop, head)
                k = self.ran
            now = now_ns()
            if self.again is not None:
                self.put_again(section, first, k, failures, now - begun, body, head, frames)
                k += 1
                first, failures, begun = k, 0, now
                ends = k == stop and k < chunk
                continue
            ends = k < chunk or (until and now >= until)
            if section.format == LEGACY_JSON or section.format == DATA or k == section.count or ends:
                if k > first:
                    self.put_entry(section, first, k, failures, now - begun, body)
                else:
                    self.at = self.out.data + body - ENTRY_SIZE
                self.slot.open = 0
                first, failures, begun = k, 0, now
        return k

    cdef int put_again(
        self, const Section* section, uint32_t first, uint32_t k, size_t failures, uint64_t elapsed, size_t body,
        bytes head, _Frames frames
    ) except -1:
        """End the open entry before task `k`, which failed and may be run again, and write an entry of it alone.

        Both are committed at once: where the worker dies before that, the task counts as running.
        """
        error, self.again = self.again, None
        if k > first:
            self.put_head(section, first, k, failures, elapsed, body)
            elapsed = 0
        else:
            self.at = self.out.data + body - ENTRY_SIZE
        self.at = reserve(self.out, self.at, ENTRY_SIZE) + ENTRY_SIZE
        body = self.at - self.out.data
        if section.format == LEGACY_JSON:
            frames.put_alone(error)
        else:
            self.fail(head, <uint64_t>section.first + k, section.reply, error)
        self.put_head(section, k, k + 1, MAY_RETRY | 1, elapsed, body)
        self.commit()
        self.slot.open = 0
        return 0

    cdef int put_entry(
        self, const Section* section, uint32_t first, uint32_t stop, size_t failures, uint64_t elapsed, size_t body
    ) except -1:
        """Write the entry of tasks whose results begin at `body`, into the room before it."""
        self.put_head(section, first, stop, failures, elapsed, body)
        self.commit()
        return 0

    cdef int put_head(
        self, const Section* section, uint32_t first, uint32_t stop, size_t failures, uint64_t elapsed, size_t body
    ) except -1:
        cdef u8* at = self.out.data + body - ENTRY_SIZE
        at = put_u64(self.out, at, section.job)
        at = put_u32(self.out, at, section.first + first)
        at = put_u32(self.out, at, stop - first)
        at = put_u32(self.out, at, <uint32_t>failures)
        at = put_u64(self.out, at, elapsed)
        put_u32(self.out, at, <uint32_t>(self.at - self.out.data - body))
        self.entries += 1
        return 0

    cdef inline int commit(self) noexcept:
        """The entries that have been written are complete."""
        self.page.finished += 1
        publish(&self.slot.committed, <uint64_t>self.entries << 32 | <uint64_t>(self.at - self.out.data))
        return 0


cdef uint64_t now_ns() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1000000000 + <uint64_t>now.tv_nsec


def run_batch(batch, resolve, failed, foreign, frames=None, ProgressPage page=None, limits=None, may_retry=None):
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
    frames.fail(label, name, exception) gives the entry of a task that raised, and whether it failed, 2 where it may be
    run again; frames.limit(name) a task's timeout in ns, 0 for none.
    page, where it is given, holds the account of the batch, and the answer while it is made.
    limits(head) gives the timeout of each name in ns, 0 for none, or None where no name has one.
    may_retry(head, i, exception) says whether the task with name index `i`, which raised that, may be run again; it is
    then alone in its entry, whose count of failures has the bit layouts.MAY_RETRY. It is None where no task may.

    Raises ProtocolError, before any task runs, for bytes that are no batch. Raises BadArguments if the answer does not
    fit into one message even with only its foreign bodies, and a short error for each task without room.
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
    turn.may_retry = may_retry
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
