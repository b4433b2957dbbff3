# The worker's turn: a batch in, its answer out. The text is part of _fastpath.pyx.
#
# The whole batch is checked before its first task runs; what is wrong inside one task is that task's failure.

cdef struct Section:
    uint64_t job
    u8 format
    u8 reply
    uint32_t head_size
    uint32_t chunks
    const u8* head

cdef struct Chunk:
    uint32_t part
    uint32_t first
    uint32_t count
    uint32_t base
    uint32_t size
    const u8* ends
    const u8* body


cdef int get_section(_Reader src, Section* section) except -1:
    cdef const u8* at = take(src, SECTION_SIZE)
    section.job = get_u64(at)
    section.format = at[8]
    section.reply = at[9]
    section.head_size = get_u32(at + 10)
    section.chunks = get_u32(at + 14)
    if section.format > LAST_FORMAT or section.reply > NONE:
        raise ProtocolError(f"a section of format {section.format} and reply mode {section.reply}")
    section.head = take(src, section.head_size)
    return 0


cdef int get_chunk(_Reader src, Chunk* chunk) except -1:
    cdef const u8* at = take(src, CHUNK_SIZE)
    chunk.part = get_u32(at)
    chunk.first = get_u32(at + 4)
    chunk.count = get_u32(at + 8)
    chunk.base = get_u32(at + 12)
    chunk.size = get_u32(at + 16)
    chunk.ends = take(src, 4 * <uint64_t>chunk.count)
    chunk.body = take(src, chunk.size)
    return 0


def read_batch(batch):
    """The sections of a batch: (job, format, head, parts). Raises ProtocolError."""
    cdef _Reader src = _Reader(batch)
    cdef Section section
    cdef Chunk chunk
    cdef list sections = [], parts
    for _ in range(get_u32(take(src, 4))):
        get_section(src, &section)
        parts = []
        for _ in range(section.chunks):
            get_chunk(src, &chunk)
            check_ends(chunk.ends, chunk.count, chunk.base, chunk.size)
            parts.append(chunk.part)
        sections.append((section.job, section.format, some(section.head, section.head_size), parts))
    finish(src)
    return sections


@cython.final
cdef class _Turn:
    """One batch being run: the answer so far, and the call at hand."""

    cdef object failed
    cdef object foreign
    cdef _Out out
    cdef u8* at
    cdef PyObject** args  # the first place stays free, which spares callees a copy
    cdef size_t room
    cdef size_t live
    cdef size_t positional
    cdef tuple keywords  # of the last call that had some; the next one most often has the same
    cdef bint has_keywords
    cdef int64_t i

    def __cinit__(self, failed, foreign):
        self.failed = failed
        self.foreign = foreign
        self.out = _Out(MAX_MESSAGE)
        self.at = put_u32(self.out, self.out.data, 0)
        self.keywords = ()

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
        cdef PyObject** args
        claim(src, elements)
        if self.live + values + 1 > self.room:
            args = <PyObject**>realloc(self.args, (self.live + values + 1) * sizeof(PyObject*))
            if args is NULL:
                raise MemoryError
            self.args = args
            self.room = self.live + values + 1
        return 0

    cdef inline int get_argument(self, _Reader src) except -1:
        src.owed -= 1
        value = get_value(src, 0, False)
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

    cdef size_t run_tasks(self, _Reader src, int reply, Chunk* chunk, bytes head, list functions) except? 0:
        """Run a chunk of wire 0.2 and write its body; how many failed."""
        cdef _Out out = self.out
        cdef u8* at
        cdef uint32_t k = 0
        cdef size_t failures = 0, mark
        cdef const u8* task = chunk.body
        while True:
            error = None
            mark = self.at - out.data
            try:
                while k < chunk.count:
                    src.at = task
                    task = src.end = chunk.body + (get_u32(chunk.ends + 4 * k) - chunk.base)
                    function = self.get_call(src, functions)
                    if function is None:
                        break
                    # called here, not in a function of its own: a traceback with this frame alone tells
                    # arguments that did not fit from a task that raised
                    result = PyObject_Vectorcall(
                        function,
                        self.args + 1,
                        self.positional | PY_VECTORCALL_ARGUMENTS_OFFSET,
                        <PyObject*>self.keywords if self.has_keywords else NULL,
                    )
                    self.release()
                    if reply == ALL:
                        at = put_value(out, self.at, result, 0)
                        if <size_t>(at - out.data) > MAX_BODY:
                            raise BadArguments(f"the results of this answer take more than {MAX_BODY} bytes")
                        self.at = at
                        mark = at - out.data
                    result = None
                    k += 1
            except BaseException as raised:
                error = raised
                self.release()
                # what was written of its result may have moved all that was written before
                self.at = out.data + mark
            if k == chunk.count:
                return failures
            self.fail(head, <uint64_t>chunk.first + k, reply, error)
            failures += 1
            k += 1

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

    cdef size_t run_foreign(self, int format, Chunk* chunk, bytes head) except? 0:
        cdef bytes body
        cdef uint32_t k
        ends = [get_u32(chunk.ends + 4 * k) - chunk.base for k in range(chunk.count)]
        body, failures = self.foreign(format, head, chunk.first, ends, some(chunk.body, chunk.size))
        self.at = put_raw(self.out, self.at, PyBytes_AS_STRING(body), len(body))
        return failures

    cdef int run_chunk(self, _Reader src, Section* section, bytes head, list functions) except -1:
        """Run the chunk that begins here and write its entry."""
        cdef _Out out = self.out
        cdef Chunk chunk
        cdef size_t body, failures
        cdef uint64_t begun = now_ns(), elapsed
        cdef const u8* end = src.end
        cdef const u8* after
        cdef u8* at
        get_chunk(src, &chunk)
        after = src.at
        self.at = reserve(out, self.at, ENTRY_SIZE) + ENTRY_SIZE
        body = self.at - out.data
        if section.format == PACKED:
            failures = self.run_tasks(src, section.reply, &chunk, head, functions)
        else:
            failures = self.run_foreign(section.format, &chunk, head)
        src.at, src.end = after, end
        elapsed = now_ns() - begun
        at = put_u64(out, out.data + body - ENTRY_SIZE, section.job)
        at = put_u32(out, at, chunk.part)
        at = put_u32(out, at, <uint32_t>failures)
        at = put_u64(out, at, elapsed)
        put_u32(out, at, <uint32_t>(self.at - out.data - body))
        return 0


cdef uint64_t now_ns() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1000000000 + <uint64_t>now.tv_nsec


def run_batch(batch, resolve, failed, foreign):
    """Run a batch and give the answer to it.

    resolve(head) gives the function of each name, None for one that is unknown; it is asked once a packed section.
    failed(head, i, position, exception) gives the error entry of the task at `position` in its package, `i` its name
    index or -1 where none can be read; the exception is None where resolve knew none. It may be whatever the task
    raised, a ProtocolError for a task that is malformed, BadArguments for a result that cannot be sent.
    foreign(format, head, first, ends, body) runs a chunk of another format, whose first task has position `first` and
    whose tasks end at `ends` in `body`, and gives (body of the answer, tasks that failed).

    Raises ProtocolError, before anything runs, for what is no batch; BadArguments where the answer cannot fit into
    one message, with no more than its foreign bodies and a short error for each task that there is no room for.
    """
    # a copy of what a task could change under our feet
    cdef _Reader src = _Reader(batch if type(batch) is bytes else bytes(memoryview(batch)))
    cdef _Turn turn = _Turn(failed, foreign)
    cdef Section section
    cdef uint32_t count = 0
    cdef list functions
    read_batch(batch)
    for _ in range(get_u32(take(src, 4))):
        get_section(src, &section)
        head = some(section.head, section.head_size)
        functions = list(resolve(head)) if section.format == PACKED else []
        for _ in range(section.chunks):
            turn.run_chunk(src, &section, head, functions)
            count += 1
    put_u32(turn.out, turn.out.data, count)
    return turn.out.taken(turn.at)
