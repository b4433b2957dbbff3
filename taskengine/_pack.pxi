# The client's side: calls into packages, bodies into results; and what the router lets through to owners of pins. The
# text is part of _fastpath.pyx.

@cython.final
cdef class _Package:
    """The index and the body of a package, growing task by task."""

    cdef _Out index
    cdef _Out body
    cdef u8* index_at
    cdef u8* body_at
    cdef size_t count

    def __cinit__(self, bint values):
        self.index = _Out(4 * MAX_TASKS)
        self.body = _Out(MAX_BODY, values)
        self.index_at = self.index.data
        self.body_at = self.body.data

    cdef int add(self, uint64_t i, object args, object kwargs) except -1:
        cdef u8* at
        cdef bint more
        if not PyTuple_CheckExact(args) and not PyList_CheckExact(args):
            args = plain(tuple, args)
        if kwargs is not None and not PyDict_CheckExact(kwargs):
            kwargs = plain(dict, kwargs)
        more = kwargs is not None and PyDict_GET_SIZE(kwargs) > 0
        at = put_byte(self.body, self.body_at, 0x93 if more else 0x92)
        at = put_uint(self.body, at, i)
        at = put_array(self.body, at, args, 0)
        if more:
            at = put_map(self.body, at, kwargs, 0, True)
        return self.add_end(at)

    cdef int add_end(self, u8* at) except -1:
        """Note that the task that was written ends here."""
        if self.count == MAX_TASKS:
            raise BadArguments(f"a package has at most {MAX_TASKS} tasks")
        self.count += 1
        self.body_at = at
        self.index_at = put_u32(self.index, self.index_at, <uint32_t>(at - self.body.data))
        return 0

    cdef tuple taken(self):
        return self.index.taken(self.index_at), self.body.taken(self.body_at)


cdef object plain(object kind, object values):
    if isinstance(values, (str, bytes)):
        raise BadArguments(f"arguments are a sequence and a mapping, not {values!r}")
    try:
        return kind(values)
    except (TypeError, ValueError) as error:
        raise BadArguments(f"arguments are a sequence and a mapping: {error}") from error


cdef uint64_t intern(dict names, object name) except? 0xffffffff:
    if type(name) is not str:
        raise BadArguments(f"a task's name is text, not {name!r}")
    known = names.get(name)
    if known is not None:
        return known
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise BadArguments(f"a task's name is text: {error}") from error
    names[name] = len(names)
    return len(names) - 1


def pack_calls(calls, dict names not None, bint values=False):
    """The (index, body) of a package of calls, each (name, args, kwargs).

    With `values` those that MessagePack lacks become extensions (taskengine.protocol.values). `names` goes from a task's name to its number; new names are added in order, also where the call then fails.
    Raises BadArguments for what cannot be sent; the message tells the position, from 0.
    """
    cdef _Package package = _Package(values)
    cdef uint64_t i = 0
    cdef object name = None, last = names  # which is no name
    try:
        for call in calls:
            if not isinstance(call, tuple) or len(<tuple>call) != 3:
                name = None
                raise BadArguments(f"a call is (name, args, kwargs), not {call!r}")
            name, args, kwargs = <tuple>call
            if name is not last:
                i = intern(names, name)
                last = name
            package.add(i, args, kwargs)
    except BadArguments as error:
        raise BadArguments(f"call {package.count}: {error}", name=name if type(name) is str else None) from error
    return package.taken()


@cython.final
cdef class _Columns:
    """Reads iterables row by row, as the builtin `map` does."""

    cdef list sources  # lists and tuples as they are, an iterator for anything else
    cdef PyObject** drawn  # what the iterators have given for the row at hand; NULL for lists and tuples
    cdef Py_ssize_t size
    cdef Py_ssize_t row
    cdef u8[8] start  # of a task that calls name 0 with so many arguments
    cdef Py_ssize_t start_size

    def __cinit__(self, iterables):
        cdef _Out start = _Out(FIRST_ROOM)
        cdef u8* at
        self.sources = [
            values if PyList_CheckExact(values) or PyTuple_CheckExact(values) else iter(values) for values in iterables
        ]
        self.size = len(self.sources)
        self.drawn = <PyObject**>calloc(self.size + 1, sizeof(PyObject*))
        if self.drawn is NULL:
            raise MemoryError
        at = put_byte(start, start.data, 0x92)
        at = put_byte(start, at, 0)
        at = put_size(start, at, self.size, 0x90, 16, 0xdc, 2)
        memcpy(self.start, start.data, 8)
        self.start_size = at - start.data

    def __dealloc__(self):
        cdef Py_ssize_t j
        if self.drawn is not NULL:
            for j in range(self.size):
                self.drop(j)
        free(self.drawn)

    cdef inline int drop(self, Py_ssize_t j) noexcept:
        cdef PyObject* value = self.drawn[j]
        if value is not NULL:
            self.drawn[j] = NULL
            Py_DECREF(<object>value)
        return 0

    cdef bint has_row(self) except -1:
        """Return whether there is another row, and read it."""
        cdef Py_ssize_t j
        cdef PyObject* source
        for j in range(self.size):
            source = PyList_GET_ITEM(self.sources, j)
            if PyList_CheckExact(<object>source):
                if self.row >= PyList_GET_SIZE(<object>source):
                    return False
            elif PyTuple_CheckExact(<object>source):
                if self.row >= PyTuple_GET_SIZE(<object>source):
                    return False
            else:
                self.drawn[j] = PyIter_Next(<object>source)
                if self.drawn[j] is NULL:
                    return False
        return self.size > 0

    cdef u8* put_row(self, _Out out, u8* at) except NULL:
        """Write a task that calls name 0 with the row that was read."""
        cdef Py_ssize_t j
        cdef PyObject* source
        cdef PyObject* value
        at = reserve(out, at, 8)
        memcpy(at, self.start, 8)
        at += self.start_size
        for j in range(self.size):
            source = PyList_GET_ITEM(self.sources, j)
            value = self.drawn[j]
            if value is NULL:
                if PyTuple_CheckExact(<object>source):
                    value = PyTuple_GET_ITEM(<object>source, self.row)
                elif self.row < PyList_GET_SIZE(<object>source):  # see put_held
                    value = PyList_GET_ITEM(<object>source, self.row)
                else:
                    return refuse("a list changed its size while it was being sent")
            if PyLong_CheckExact(<object>value) and is_small(<object>value):
                at = put_byte(out, at, <u8>compact_value(<object>value))
            else:
                at = put_value(out, at, <object>value, 0)
            self.drop(j)
        self.row += 1
        return at


def pack_map(iterables, bint values=False):
    """The (index, body) of a package that calls the first of its names with each row of `iterables`, as `map` would.

    `values` is as in `pack_calls`.

    Raises BadArguments for what cannot be sent; the message tells the position, from 0.
    """
    cdef _Package package = _Package(values)
    cdef _Columns columns = _Columns(iterables)
    try:
        while columns.has_row():
            package.add_end(columns.put_row(package.body, package.body_at))
    except BadArguments as error:
        raise BadArguments(f"call {package.count}: {error}") from error
    return package.taken()


def encode(value, bint values=False):
    """The value as MessagePack. Raises BadArguments for what cannot be sent.

    It is byte for byte as msgspec writes it, unless `values` are to become extensions; see `pack_calls`.
    """
    cdef _Out out = _Out(MAX_BODY, values)
    return out.taken(put_value(out, out.data, value, 0))


def unpack(body, count, error, bint values=False):
    """The `count` values of a body, none left over; `error` makes an error entry's value from its data.

    With `values` the extensions that `pack_calls` makes are read. Raises ProtocolError.
    """
    cdef _Reader src = _Reader(body, values)
    cdef Py_ssize_t j, size
    cdef list found
    if not 0 <= count <= src.end - src.at:
        raise ProtocolError(f"{src.end - src.at} bytes are no {count} values")
    size = count
    found = [None] * size
    src.owed = size
    for j in range(size):
        src.owed -= 1
        found[j] = get_entry(src, error)
    finish(src)
    return found


cdef object get_entry(_Reader src, object error):
    cdef const u8* start = src.at
    cdef uint64_t n
    cdef u8 tag = take(src, 1)[0]
    src.at = start
    if tag >= 0xc7 and KINDS[tag & 0x1f] == EXT and tag < 0xe0:
        get_head(src, &n)
        if ext_code(src, n) == ERROR_EXT:
            return error(some(take(src, n), n))
        src.at = start
    return get_value(src, 0)


def check_tasks(index, body, uint32_t first, uint32_t stop, size_t most, bint values=False):
    """That the tasks from `first` to `stop` of a package have at most so many bytes each, and hold whole values.

    `values` is as in `unpack`. The index has been checked. Raises BadArguments for what is too large, ProtocolError for what is no value.
    """
    cdef _Reader places = _Reader(index), src = _Reader(body, values)
    cdef const u8* start = src.at
    cdef uint32_t at = get_u32(places.at + 4 * (first - 1)) if first else 0, end
    cdef uint32_t k
    for k in range(first, min(stop, <uint32_t>((places.end - places.at) // 4))):
        end = get_u32(places.at + 4 * k)
        if end - at > most:
            raise BadArguments(f"task {k} has {end - at} bytes, and a lane with pins takes {most} (PIN_BYTES)")
        src.at, src.end, src.owed = start + at, start + end, 0
        skip(src, -CALL_DEPTH)
        finish(src)
        at = end
