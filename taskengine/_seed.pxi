# TASK frames of wire 0.1: what the router looks up in them, and how a worker runs them. The text is part of
# _fastpath.pyx.
#
# Most frames are plain: surely JSON, each key once, no escapes in what is looked up. All others go to Python, which
# reads them with msgspec, so that what is taken and what errors say does not depend on this file.

cdef enum:
    AGAIN = 2  # a task failed, and may be run again
    ERROR_ROOM = 8  # the position of an error in its DATA frame, with a comma


cdef struct Frame:
    const u8* name
    Py_ssize_t name_size
    const u8* args  # behind the bracket that opens them, or NULL
    const u8* label  # the task's pack, without quotes
    Py_ssize_t label_size
    bint is_simple  # no keywords, and no escapes in the label: a worker calls it without Python


cdef bint scan_frame(const u8* at, const u8* end, Frame* frame) noexcept:
    """Return whether the bytes are surely a TASK frame, and fill `frame`."""
    cdef int known = 0, key
    memset(frame, 0, sizeof(Frame))
    frame.is_simple = True
    frame.label = at
    at = scan_space(at, end)
    if at >= end or at[0] != c"{":
        return False
    while True:
        at = scan_member(scan_space(at + 1, end), end, frame, &key)
        if at is NULL or known & key:
            return False
        known |= key
        at = scan_space(at, end)
        if at >= end or (at[0] != c"," and at[0] != c"}"):
            return False
        if at[0] == c"}":
            return frame.name is not NULL and scan_space(at + 1, end) == end


cdef const u8* scan_member(const u8* at, const u8* end, Frame* frame, int* key) noexcept:
    """Scan a member of a TASK frame; `key` is then the bit of its key, 0 for a key without a meaning."""
    cdef bint has_escapes = False
    cdef const u8* name = at + 1
    cdef Py_ssize_t size
    key[0] = 0
    if at >= end or at[0] != c'"':
        return NULL
    at = scan_text(name, end, &has_escapes)
    if at is NULL or has_escapes:
        return NULL
    size = at - name
    at = scan_space(at + 1, end)
    if at >= end or at[0] != c":":
        return NULL
    at = scan_space(at + 1, end)
    if at >= end:
        return NULL
    if size == 4 and memcmp(name, b"task", 4) == 0:
        key[0] = 1
        return scan_name(at, end, frame)
    if size == 4 and memcmp(name, b"args", 4) == 0:
        key[0] = 2
        frame.args = at + 1
        return scan_nest(at, end, 1) if at[0] == c"[" else NULL
    if size == 6 and memcmp(name, b"kwargs", 6) == 0:
        key[0] = 4
        if at[0] != c"{":
            return NULL
        name = scan_nest(at, end, 1)
        frame.is_simple = frame.is_simple and name is not NULL and scan_space(at + 1, end) == name - 1
        return name
    if size == 4 and memcmp(name, b"pack", 4) == 0:
        key[0] = 8
        return scan_label(at, end, frame)
    return scan_value(at, end, 1)


cdef const u8* scan_name(const u8* at, const u8* end, Frame* frame) noexcept:
    cdef bint has_escapes = False
    if at[0] != c'"':
        return NULL
    frame.name = at + 1
    at = scan_text(at + 1, end, &has_escapes)
    if at is NULL or has_escapes:
        return NULL
    frame.name_size = at - frame.name
    return at + 1


cdef const u8* scan_label(const u8* at, const u8* end, Frame* frame) noexcept:
    cdef bint has_escapes = False
    if at[0] != c'"':
        frame.label = at
        at = scan_number(at, end)
        frame.label_size = at - frame.label
        return at
    frame.label = at + 1
    at = scan_text(at + 1, end, &has_escapes)
    if at is NULL:
        return NULL
    frame.label_size = at - frame.label
    frame.is_simple = frame.is_simple and not has_escapes
    return at + 1


# ---- the router's side

def frame_names(index, body, decode, mark=None, Py_ssize_t most=MAX_TASKS):
    """Return the names of the tasks in TASK frames, laid end to end, as runs of equal ones: (first, stop, name).

    decode(frame, position) returns the name in a frame that is not surely plain. With `mark`, runs have mark(name) in
    place of the name; it is called once for each name. Runs beyond the first `most` are left out. Raises ProtocolError
    for frames that are no package.
    """
    cdef _Reader places = _Reader(index), src = _Reader(body)
    cdef Py_ssize_t k, first = 0, count = frame_count(places, src.end - src.at)
    cdef const u8* start = src.at
    cdef const u8* at = start
    cdef const u8* end
    cdef Frame frame, known
    cdef list runs = []
    cdef dict marks = {}
    cdef object name, current = None
    known.name = NULL
    for k in range(count):
        end = start + get_u32(places.at + 4 * k)
        if scan_frame(at, end, &frame):
            if known.name is not NULL and known.name_size == frame.name_size and (
                memcmp(known.name, frame.name, frame.name_size) == 0
            ):
                at = end
                continue
            known = frame
            name = get_text(<const char*>frame.name, frame.name_size)
        else:
            known.name = NULL
            name = decode(some(at, end - at), k)
        at = end
        if mark is not None:
            if name not in marks:
                marks[name] = mark(name)
            name = marks[name]
        if k and name != current:
            runs.append((first, k, current))
            if len(runs) == most:
                return runs
            first = k
        current = name
    if count:
        runs.append((first, count, current))
    return runs


cdef Py_ssize_t frame_count(_Reader index, size_t size) except -1:
    cdef size_t count = (index.end - index.at) // 4, k
    cdef uint32_t previous = 0, end
    if count > MAX_TASKS:
        raise ProtocolError(f"a package has at most {MAX_TASKS} tasks, not {count}")
    if count and get_u32(index.at + 4 * (count - 1)) > MAX_BODY:
        raise ProtocolError(f"a package has at most {MAX_BODY} bytes of tasks")
    for k in range(count):
        end = get_u32(index.at + 4 * k)
        if end == previous:
            raise ProtocolError("a frame is empty")
        if end < previous:
            raise ProtocolError(f"the index ends task {k} before it begins")
        previous = end
    if previous != size:
        raise ProtocolError(f"the index tells of {previous} bytes of tasks, and {size} came")
    return count


# ---- the worker's side

@cython.final
cdef class _Frames:
    """Runs the TASK frames of a batch; `python` does what is not plain (`frames` in run_batch)."""

    cdef object python
    cdef _Turn turn
    cdef bytes pack  # of the package at hand
    cdef object function  # of the last name, which lies in the batch
    cdef uint64_t limit  # its timeout in ns, 0 for none
    cdef const u8* name
    cdef Py_ssize_t name_size

    def __cinit__(self, python, _Turn turn):
        self.python = python
        self.turn = turn

    cdef size_t run(self, const Section* section, uint32_t k, uint32_t stop) except? 0:
        """Run the tasks from `k` to `stop` of a slice, unless recalled, and write their DATA frame; how many failed."""
        cdef _Turn turn = self.turn
        cdef _Out out = turn.out
        cdef const u8* at = section.body
        cdef const u8* end
        cdef int64_t room = max(<int64_t>MAX_BODY - (turn.at - out.data), 0)
        cdef size_t failures = 0, mark, size_at, size_room
        cdef uint32_t begin = k
        cdef int kind
        cdef list failed = []
        if k:
            at += get_u32(section.ends + 4 * (k - 1)) - section.base
        turn.at = put_raw(out, turn.at, b'{"size":', 8)
        size_at = turn.at - out.data
        turn.at = write_digits(reserve(out, turn.at, NUMBER_ROOM), stop - k, 1)
        size_room = turn.at - out.data - size_at
        turn.at = put_raw(out, turn.at, b',"data":[', 9)
        turn.begin_results()
        while k < stop and not turn.is_recalled():
            end = section.body + (get_u32(section.ends + 4 * k) - section.base)
            mark = turn.at - out.data
            turn.slot.started = section.first + k + 1
            kind = self.run_frame(at, end, room)
            if kind == AGAIN:
                turn.again = some(out.data + mark, turn.at - out.data - mark)
                turn.at = out.data + mark
                turn.slot.until = 0
                break
            if kind:
                failures += 1
                turn.slot.failed += 1
                failed.append(k - begin)
                room -= ERROR_ROOM
            turn.slot.until = 0
            room -= turn.at - out.data - mark
            at = end
            k += 1
            turn.note(<uint64_t>section.first + k)
            turn.at = put_byte(out, turn.at, c",")
        turn.ran = k
        if k < stop:
            if k == begin:
                return failures
            memset(out.data + size_at, c" ", size_room)
            write_digits(out.data + size_at, k - begin, 1)
        turn.at = put_raw(out, turn.at - 1, b'],"pack":', 9)
        turn.at = put_raw(out, turn.at, PyBytes_AS_STRING(self.pack), PyBytes_GET_SIZE(self.pack))
        turn.at = put_raw(out, turn.at, b',"errors":[', 11)
        for place, position in enumerate(failed):
            if place:
                turn.at = put_byte(out, turn.at, c",")
            turn.at = write_digits(reserve(out, turn.at, NUMBER_ROOM), position, 1)
        turn.at = put_raw(out, turn.at, b"]}", 2)
        return failures

    cdef int put_alone(self, bytes entry) except -1:
        """Write the DATA frame of one task, which failed."""
        cdef _Turn turn = self.turn
        cdef bytes pack = self.pack
        turn.at = put_raw(turn.out, turn.at, b'{"size":1,"data":[', 18)
        turn.at = put_raw(turn.out, turn.at, PyBytes_AS_STRING(entry), PyBytes_GET_SIZE(entry))
        turn.at = put_raw(turn.out, turn.at, b'],"pack":', 9)
        turn.at = put_raw(turn.out, turn.at, PyBytes_AS_STRING(pack), PyBytes_GET_SIZE(pack))
        turn.at = put_raw(turn.out, turn.at, b',"errors":[0]}', 14)
        return 0

    cdef int run_frame(self, const u8* at, const u8* end, int64_t room) except -1:
        """Run a task and write its entry, for which there is so much room; whether it failed, or is to run AGAIN."""
        cdef _Turn turn = self.turn
        cdef Frame frame
        if not (
            scan_frame(at, end, &frame)
            and frame.is_simple
            and self.find(&frame)
            and self.get_arguments(frame.args, end)
        ):
            self.name = NULL  # Python finds the function of this one, and is to say so again of the next
            return self.put_told(self.python.run(some(at, end - at), room))
        result = error = None
        if self.limit:
            turn.slot.until = now_ns() + self.limit
        try:
            # called here, not in a function of its own: see run_tasks
            result = PyObject_Vectorcall(
                self.function, turn.args + 1, turn.live | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL
            )
        except BaseException as raised:
            error = raised
        turn.release()
        if error is None and self.put_plain(&frame, result, room):
            return False
        label = get_text(<const char*>frame.label, frame.label_size)
        if error is None:
            return self.put_told(self.python.tell(label, result, room))
        name = get_text(<const char*>frame.name, frame.name_size)
        return self.put_told(self.python.fail(label, name, error))

    cdef int put_told(self, tuple told) except -1:
        """Write an entry that Python made, and say whether the task failed, or is to run AGAIN.

        A space before it marks an error, in case the worker dies before it has written the rest of the DATA frame.
        """
        cdef bytes entry
        cdef int is_failure
        entry, is_failure = told
        if is_failure:
            self.turn.at = put_byte(self.turn.out, self.turn.at, c" ")
        self.turn.at = put_raw(self.turn.out, self.turn.at, PyBytes_AS_STRING(entry), PyBytes_GET_SIZE(entry))
        return is_failure

    cdef bint find(self, const Frame* frame) except -1:
        """Return whether there is such a task; its function is then `function`."""
        if self.name is NULL or self.name_size != frame.name_size or memcmp(self.name, frame.name, self.name_size):
            name = get_text(<const char*>frame.name, frame.name_size)
            self.function = self.python.find(name)
            self.limit = self.python.limit(name)
            self.name = frame.name
            self.name_size = frame.name_size
        return self.function is not None

    cdef bint get_arguments(self, const u8* at, const u8* end) except -1:
        """Return whether the arguments from `at` on, behind their bracket, are plain; if so, put them into the turn."""
        cdef _Turn turn = self.turn
        cdef const u8* stop
        cdef bint has_escapes = False
        turn.make_room(1)
        if at is NULL:
            return True
        at = scan_space(at, end)
        while at[0] != c"]":
            if at[0] == c'"':
                stop = scan_text(at + 1, end, &has_escapes)
                value = None if has_escapes else get_text(<const char*>at + 1, stop - at - 1)
                at = stop + 1
            elif at[0] == c"-" or c"0" <= at[0] <= c"9":
                value = get_number(&at)
            else:
                value = True if at[0] == c"t" else False if at[0] == c"f" else None
                has_escapes = at[0] == c"[" or at[0] == c"{"
                at += 4 + (at[0] == c"f")
            if has_escapes:
                turn.release()
                return False
            turn.make_room(turn.live + 1)
            Py_INCREF(value)
            turn.args[1 + turn.live] = <PyObject*>value
            turn.live += 1
            at = scan_space(at, end)
            if at[0] == c",":
                at = scan_space(at + 1, end)
        return True

    cdef bint put_plain(self, const Frame* frame, object result, int64_t room) except -1:
        """Write the entry of a result if that is plain and there is room; return whether it was written."""
        cdef _Out out = self.turn.out
        cdef const char* text = NULL
        cdef Py_ssize_t size = NUMBER_ROOM
        cdef bint is_number = PyFloat_CheckExact(result) or (PyLong_CheckExact(result) and is_compact(result))
        cdef u8* at
        if result is None or result is True or result is False:
            text = "None" if result is None else "True" if result is True else "False"
            size = 5 if result is False else 4
        elif PyUnicode_CheckExact(result):
            text = PyUnicode_AsUTF8AndSize(result, &size)
            if text is NULL:
                PyErr_Clear()
                return False
            if not is_verbatim(<const u8*>text, size):
                return False
        elif not is_number:
            return False
        # "job-label: text"
        if 8 + frame.label_size + size > room:
            return False
        at = put_raw(out, self.turn.at, b'"job-', 5)
        at = put_raw(out, at, frame.label, frame.label_size)
        at = put_raw(out, at, b": ", 2)
        if text is not NULL:
            at = put_raw(out, at, text, size)
        elif PyFloat_CheckExact(result):
            at = write_float(reserve(out, at, NUMBER_ROOM), PyFloat_AS_DOUBLE(result))
        else:
            at = write_int(reserve(out, at, NUMBER_ROOM), compact_value(result))
        self.turn.at = put_byte(out, at, c'"')
        return True


cdef bint is_verbatim(const u8* text, Py_ssize_t size) noexcept:
    """Return whether a text in UTF-8 is the same in JSON, without escapes."""
    cdef Py_ssize_t j
    for j in range(size):
        if text[j] < 0x20 or text[j] == c'"' or text[j] == c"\\":
            return False
    return True
