# MessagePack of plain values (None, bool, int, float, str, bytes, list, tuple, dict; exact types), written into a growing
# buffer and read from any bytes; msgspec does the rest. The text is part of _fastpath.pyx.
#
# _Out never holds more than its limit. _Reader never reads past `end`, and never makes room for more elements than there
# are bytes: `owed` counts the elements that open lists and maps still wait for, each at least one byte.

cdef enum:
    NIL, FALSE, TRUE, UINT, INT, FLOAT32, FLOAT64, STR, BIN, ARRAY, MAP, EXT, INVALID

# For tags 0xc0 to 0xdf: the kind, and how many bytes of number or length follow.
cdef int[32] KINDS = [
    NIL, INVALID, FALSE, TRUE, BIN, BIN, BIN, EXT, EXT, EXT, FLOAT32, FLOAT64, UINT, UINT, UINT, UINT,
    INT, INT, INT, INT, EXT, EXT, EXT, EXT, EXT, STR, STR, STR, ARRAY, ARRAY, MAP, MAP,
]
cdef int[32] WIDTHS = [
    0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 4, 8, 1, 2, 4, 8,
    1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4,
]


# ---- writing

@cython.final
cdef class _Out:
    """A growing buffer of at most `limit` bytes."""

    cdef u8* data
    cdef size_t used
    cdef size_t room
    cdef size_t limit

    def __cinit__(self, size_t limit):
        self.limit = limit

    def __dealloc__(self):
        free(self.data)

    cdef bytes taken(self):
        return PyBytes_FromStringAndSize(<char*>self.data, self.used)


cdef int grow(_Out out, size_t size) except -1:
    cdef size_t room
    cdef u8* data
    if size > out.limit - out.used:
        raise BadArguments(f"more than {out.limit} bytes do not fit into one message")
    room = min(max(2 * out.room, out.used + size, <size_t>1024), out.limit)
    data = <u8*>realloc(out.data, room)
    if data is NULL:
        raise MemoryError
    out.data = data
    out.room = room
    return 0


cdef inline int reserve(_Out out, size_t size) except -1:
    if size > out.room - out.used:
        grow(out, size)
    return 0


cdef inline int put_raw(_Out out, const void* data, size_t size) except -1:
    reserve(out, size)
    memcpy(out.data + out.used, data, size)
    out.used += size
    return 0


cdef inline int put_big(_Out out, u8 tag, uint64_t value, int width) except -1:
    """A tag and `width` bytes of the value, the highest first."""
    cdef u8* at
    reserve(out, 9)
    at = out.data + out.used
    at[0] = tag
    if width == 8:
        value = htobe64(value)
    else:
        value = htobe64(value << (64 - 8 * width))
    memcpy(at + 1, &value, width)
    out.used += 1 + width
    return 0


cdef inline int put_byte(_Out out, u8 tag) except -1:
    reserve(out, 1)
    out.data[out.used] = tag
    out.used += 1
    return 0


cdef int put_uint(_Out out, uint64_t value) except -1:
    if value < 0x80:
        return put_byte(out, <u8>value)
    if value <= 0xff:
        return put_big(out, 0xcc, value, 1)
    if value <= 0xffff:
        return put_big(out, 0xcd, value, 2)
    if value <= 0xffffffffu:
        return put_big(out, 0xce, value, 4)
    return put_big(out, 0xcf, value, 8)


cdef int put_int(_Out out, int64_t value) except -1:
    if value >= 0:
        return put_uint(out, <uint64_t>value)
    if value >= -32:
        return put_byte(out, <u8>value)
    if value >= -0x80:
        return put_big(out, 0xd0, <uint64_t>value, 1)
    if value >= -0x8000:
        return put_big(out, 0xd1, <uint64_t>value, 2)
    if value >= -0x80000000LL:
        return put_big(out, 0xd2, <uint64_t>value, 4)
    return put_big(out, 0xd3, <uint64_t>value, 8)


cdef int put_size(_Out out, size_t size, u8 small, size_t smalls, u8 tag, int widths) except -1:
    """A length: in the tag `small` where it is below `smalls`, else after `tag` and its successors, 1, 2 or 4 wide.

    `widths` is 1 where a one-byte length exists, else 2.
    """
    if size < smalls:
        return put_byte(out, small | <u8>size)
    if widths == 1 and size <= 0xff:
        return put_big(out, tag, size, 1)
    if size <= 0xffff:
        return put_big(out, tag + 2 - widths, size, 2)
    if size <= 0xffffffffu:
        return put_big(out, tag + 3 - widths, size, 4)
    raise BadArguments("more than 2**32 - 1 elements do not fit into one message")


cdef int put_str(_Out out, object text, int depth) except -1:
    cdef Py_ssize_t size
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    if data is NULL:
        PyErr_Clear()
        return put_other(out, text, depth)  # which says what is wrong with it
    put_size(out, size, 0xa0, 32, 0xd9, 1)
    return put_raw(out, data, size)


cdef int put_array(_Out out, object values, int depth) except -1:
    """A list or tuple whose elements lie at `depth`."""
    cdef Py_ssize_t j, size = len(values)
    put_size(out, size, 0x90, 16, 0xdc, 2)
    if type(values) is tuple:
        for j in range(size):
            put_value(out, <object>PyTuple_GET_ITEM(values, j), depth)
        return 0
    for j in range(size):
        # what msgspec asks of an element may be the program's own code, and that may change the list
        if j >= len(<list>values):
            break
        put_value(out, <object>PyList_GET_ITEM(values, j), depth)
    if len(<list>values) != size:
        raise BadArguments("a list changed its size while it was being sent")
    return 0


cdef int put_map(_Out out, dict values, int depth) except -1:
    """A dict whose keys and values lie at `depth`."""
    cdef Py_ssize_t position = 0, left = len(values)
    cdef PyObject* key
    cdef PyObject* value
    put_size(out, left, 0x80, 16, 0xde, 2)
    while PyDict_Next(values, &position, &key, &value):
        left -= 1
        put_pair(out, <object>key, <object>value, depth)
    if left:
        raise BadArguments("a dict changed its size while it was being sent")
    return 0


cdef int put_pair(_Out out, object key, object value, int depth) except -1:
    # the parameters hold both while msgspec may run code that takes them out of the dict
    put_value(out, key, depth)
    return put_value(out, value, depth)


cdef int put_value(_Out out, object value, int depth) except -1:
    cdef int overflow = 0
    cdef int64_t number
    cdef uint64_t bits
    cdef double real
    if PyFloat_CheckExact(value):
        real = PyFloat_AS_DOUBLE(value)
        memcpy(&bits, &real, 8)
        return put_big(out, 0xcb, bits, 8)
    if PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        return put_other(out, value, depth) if overflow else put_int(out, number)
    if PyUnicode_CheckExact(value):
        return put_str(out, value, depth)
    if value is None:
        return put_byte(out, 0xc0)
    if value is True or value is False:
        return put_byte(out, 0xc3 if value is True else 0xc2)
    if PyBytes_CheckExact(value):
        put_size(out, PyBytes_GET_SIZE(value), 0, 0, 0xc4, 1)
        return put_raw(out, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if PyList_CheckExact(value) or PyTuple_CheckExact(value) or PyDict_CheckExact(value):
        if depth >= MAX_DEPTH:
            raise BadArguments(f"values may nest {MAX_DEPTH} deep")
        return put_map(out, value, depth + 1) if PyDict_CheckExact(value) else put_array(out, value, depth + 1)
    return put_other(out, value, depth)


cdef int put_other(_Out out, object value, int depth) except -1:
    cdef bytes data
    cdef _Reader src
    try:
        data = msgspec_encode(value)
        src = _Reader(data)
        skip(src, depth)
        finish(src)
    except Exception as error:
        raise BadArguments(f"a value of type {type(value).__name__} cannot be sent: {error}") from error
    return put_raw(out, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


# ---- reading

@cython.final
cdef class _Reader:
    """A place in somebody's bytes, which it holds."""

    cdef Py_buffer view
    cdef const u8* at
    cdef const u8* end
    cdef Py_ssize_t owed

    def __cinit__(self, data):
        PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)
        self.at = <const u8*>self.view.buf
        self.end = self.at + self.view.len

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef int finish(_Reader src) except -1:
    if src.at != src.end:
        raise ProtocolError(f"{src.end - src.at} bytes are left over")
    return 0


cdef inline int need(_Reader src, uint64_t size) except -1:
    if size > <uint64_t>(src.end - src.at):
        raise ProtocolError("the bytes end too early")
    return 0


cdef inline const u8* take(_Reader src, uint64_t size) except? NULL:
    cdef const u8* at = src.at
    need(src, size)
    src.at += size
    return at


cdef inline int claim(_Reader src, uint64_t elements) except -1:
    """Open a list or map: its elements, below 2**33, must be able to follow."""
    if <int64_t>elements > (src.end - src.at) - src.owed:
        raise ProtocolError("the bytes end too early")
    src.owed += elements
    return 0


cdef int get_head(_Reader src, uint64_t* n) except -1:
    """The kind of the value that begins here; in `n` its number, its bits or its length. The reader stands behind that."""
    cdef u8 tag
    cdef int kind, width, j
    cdef uint64_t number = 0
    cdef const u8* at
    tag = take(src, 1)[0]
    if tag < 0x80:
        n[0] = tag
        return UINT
    if tag < 0xc0:
        n[0] = tag & (0x1f if tag >= 0xa0 else 0x0f)
        return STR if tag >= 0xa0 else ARRAY if tag >= 0x90 else MAP
    if tag >= 0xe0:
        n[0] = <uint64_t><int64_t><signed char>tag
        return INT
    kind = KINDS[tag - 0xc0]
    width = WIDTHS[tag - 0xc0]
    if kind == INVALID:
        raise ProtocolError("0xc1 begins no value")
    at = take(src, width)
    for j in range(width):
        number = number << 8 | at[j]
    if kind == INT:
        number = <uint64_t>(<int64_t>(number << (64 - 8 * width)) >> (64 - 8 * width))
    elif kind == EXT and width == 0:
        number = 1u << (tag - 0xd4)
    n[0] = number
    return kind


cdef object get_value(_Reader src, int depth, bint is_key):
    """The value that begins here; of a map's key, arrays become tuples."""
    cdef const u8* start = src.at
    cdef uint64_t n
    cdef uint32_t bits
    cdef double real
    cdef float small
    cdef int kind
    if start < src.end and start[0] < 0x80:
        src.at += 1
        return <long>start[0]
    kind = get_head(src, &n)
    if kind == FLOAT64:
        memcpy(&real, &n, 8)
        return PyFloat_FromDouble(real)
    if kind == UINT:
        return n
    if kind == INT:
        return <int64_t>n
    if kind == STR:
        return get_text(<const char*>take(src, n), n)
    if kind == ARRAY:
        return get_array(src, n, depth, is_key)
    if kind == MAP:
        return get_map(src, n, depth)
    if kind == BIN:
        return PyBytes_FromStringAndSize(<const char*>take(src, n), n)
    if kind == FLOAT32:
        bits = <uint32_t>n
        memcpy(&small, &bits, 4)
        return PyFloat_FromDouble(small)
    if kind == EXT:
        return get_ext(src, start, n)
    return None if kind == NIL else kind == TRUE


cdef object get_text(const char* data, Py_ssize_t size):
    try:
        return PyUnicode_DecodeUTF8(data, size, NULL)
    except UnicodeDecodeError as error:
        raise ProtocolError(f"text that is no UTF-8: {error}") from None


cdef int enter(int depth) except -1:
    if depth >= MAX_DEPTH:
        raise ProtocolError(f"values nest more than {MAX_DEPTH} deep")
    return 0


cdef object get_array(_Reader src, uint64_t size, int depth, bint is_key):
    cdef Py_ssize_t j
    cdef list values
    enter(depth)
    claim(src, size)
    values = PyList_New(size)
    for j in range(<Py_ssize_t>size):
        src.owed -= 1
        value = get_value(src, depth + 1, is_key)
        Py_INCREF(value)
        PyList_SET_ITEM(values, j, value)
    return tuple(values) if is_key else values


cdef object get_map(_Reader src, uint64_t size, int depth):
    cdef dict values = {}
    enter(depth)
    claim(src, 2 * size)
    try:
        for _ in range(size):
            src.owed -= 1
            key = get_value(src, depth + 1, True)
            src.owed -= 1
            value = get_value(src, depth + 1, False)
            values[key] = value
    except TypeError as error:
        raise ProtocolError(f"the key of a map: {error}") from None
    return values


cdef int ext_code(_Reader src, uint64_t size) except? -1:
    """The code of an extension with `size` bytes of data, which are all there; the reader stands before the data."""
    need(src, size + 1)
    return <signed char>take(src, 1)[0]


cdef int no_error(int code) except -1:
    if code == ERROR_EXT:
        raise ProtocolError(f"an error entry (extension {ERROR_EXT}) inside a value")
    return 0


cdef object get_ext(_Reader src, const u8* start, uint64_t size):
    no_error(ext_code(src, size))
    src.at += size
    try:
        return msgspec_decode(PyBytes_FromStringAndSize(<const char*>start, src.at - start))
    except Exception as error:
        raise ProtocolError(f"an extension that cannot be read: {error}") from None


cdef int skip(_Reader src, int depth) except -1:
    """Pass over one value."""
    cdef uint64_t n
    cdef int kind = get_head(src, &n)
    if kind == EXT:
        no_error(ext_code(src, n))
    if kind == EXT or kind == STR or kind == BIN:
        take(src, n)
    elif kind == ARRAY or kind == MAP:
        enter(depth)
        n = n if kind == ARRAY else 2 * n
        claim(src, n)
        while n:
            n -= 1
            src.owed -= 1
            skip(src, depth + 1)
    return 0
