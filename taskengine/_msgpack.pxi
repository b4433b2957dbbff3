# MessagePack of plain values (None, bool, int, float, str, bytes, list, tuple, dict; exact types), written into a
# growing buffer and read from any bytes; _values.pxi and msgspec do the rest. The text is part of _fastpath.pyx.
#
# _Out never takes more than its limit. _Reader never reads past `end`, and never makes room for more elements than
# there are bytes: `owed` counts the elements that open lists and maps still wait for, each at least one byte.

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
#
# Every put_* is given the place to write at and returns the place behind; neither is kept in memory on the way.

@cython.final
cdef class _Out:
    """A growing buffer of at most `limit` bytes, or one that is lent."""

    cdef u8* data
    cdef u8* end
    cdef size_t limit
    cdef bint is_lent
    cdef bint values  # who reads it takes the extensions of layouts.ValueExt

    def __cinit__(self, size_t limit, bint values=False):
        self.values = values
        self.data = <u8*>malloc(FIRST_ROOM)
        if self.data is NULL:
            raise MemoryError
        self.end = self.data + FIRST_ROOM
        self.limit = limit

    def __dealloc__(self):
        if not self.is_lent:
            free(self.data)

    cdef int lend(self, u8* data, size_t size) noexcept:
        """Have it write at `data` instead, at most `size` bytes."""
        free(self.data)
        self.data = data
        self.end = data + size
        self.limit = size
        self.is_lent = True

    cdef bytes taken(self, u8* at):
        return some(self.data, at - self.data)


cdef u8* refuse(str why) except NULL:
    # apart, for what raises makes the code around it slow
    raise BadArguments(why)


cdef u8* grow(_Out out, u8* at, size_t size) except NULL:
    cdef size_t used = at - out.data, room = out.end - out.data
    cdef u8* data
    if size > out.limit - used:
        return refuse(f"more than {out.limit} bytes do not fit into one message")
    room = min(max(2 * room, used + size), out.limit)
    data = <u8*>realloc(out.data, room)
    if data is NULL:
        raise MemoryError
    out.data = data
    out.end = data + room
    return data + used


cdef inline u8* reserve(_Out out, u8* at, size_t size) except NULL:
    return at if size <= <size_t>(out.end - at) else grow(out, at, size)


cdef inline u8* put_raw(_Out out, u8* at, const void* data, size_t size) except NULL:
    at = reserve(out, at, size)
    memcpy(at, data, size)
    return at + size


cdef inline u8* put_byte(_Out out, u8* at, u8 tag) except NULL:
    at = reserve(out, at, 1)
    at[0] = tag
    return at + 1


cdef inline u8* put_big(_Out out, u8* at, u8 tag, uint64_t value, int width) except NULL:
    """Write a tag and `width` bytes of the value, the highest first."""
    at = reserve(out, at, 9)
    at[0] = tag
    value = htobe64(value << (64 - 8 * width))
    memcpy(at + 1, &value, 8)
    return at + 1 + width


cdef inline u8* put_uint(_Out out, u8* at, uint64_t value) except NULL:
    if value < 0x80:
        return put_byte(out, at, <u8>value)
    if value <= 0xff:
        return put_big(out, at, 0xcc, value, 1)
    if value <= 0xffff:
        return put_big(out, at, 0xcd, value, 2)
    return put_big(out, at, 0xce, value, 4) if value <= 0xffffffffu else put_big(out, at, 0xcf, value, 8)


cdef u8* put_negative(_Out out, u8* at, int64_t value) except NULL:
    if value >= -32:
        return put_byte(out, at, <u8>value)
    if value >= -0x80:
        return put_big(out, at, 0xd0, <uint64_t>value, 1)
    if value >= -0x8000:
        return put_big(out, at, 0xd1, <uint64_t>value, 2)
    if value >= -0x80000000LL:
        return put_big(out, at, 0xd2, <uint64_t>value, 4)
    return put_big(out, at, 0xd3, <uint64_t>value, 8)


cdef u8* put_int(_Out out, u8* at, object value, int depth) except NULL:
    cdef int overflow = 0
    cdef int64_t number
    if is_compact(value):
        number = compact_value(value)
    else:
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow:
            return put_other(out, at, value, depth)
    return put_uint(out, at, <uint64_t>number) if number >= 0 else put_negative(out, at, number)


cdef inline u8* put_size(_Out out, u8* at, size_t size, u8 small, size_t smalls, u8 tag, int narrowest) except NULL:
    """Write a length: in the tag `small` if it is below `smalls`, else behind a tag.

    `tag` is for the `narrowest` length, of 1 or 2 bytes; its successors are for the wider ones.
    """
    if size < smalls:
        return put_byte(out, at, small | <u8>size)
    if narrowest == 1 and size <= 0xff:
        return put_big(out, at, tag, size, 1)
    if size <= 0xffff:
        return put_big(out, at, tag + 2 - narrowest, size, 2)
    if size <= 0xffffffffu:
        return put_big(out, at, tag + 3 - narrowest, size, 4)
    return refuse("more than 2**32 - 1 elements do not fit into one message")


cdef u8* put_wide(_Out out, u8* at, object value) except NULL:
    """Do as put_value, but write an int in 64 bits if they hold it, so that many of them can be read as an array."""
    cdef int overflow = 0
    cdef int64_t number
    if PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if not overflow:
            return put_big(out, at, 0xd3, <uint64_t>number, 8)
    return put_value(out, at, value, 0)


cdef u8* put_str(_Out out, u8* at, object text, int depth) except NULL:
    cdef Py_ssize_t size
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    if data is NULL:
        PyErr_Clear()
        return put_other(out, at, text, depth)  # which says what is wrong with it
    at = put_size(out, at, size, 0xa0, 32, 0xd9, 1)
    return put_raw(out, at, data, size)


cdef u8* put_array(_Out out, u8* at, object values, int depth) except NULL:
    """Write a list or tuple; its elements are at `depth`."""
    cdef Py_ssize_t j, size
    if PyTuple_CheckExact(values):
        size = PyTuple_GET_SIZE(values)
        at = put_size(out, at, size, 0x90, 16, 0xdc, 2)
        for j in range(size):
            at = put_value(out, at, <object>PyTuple_GET_ITEM(values, j), depth)
        return at
    size = PyList_GET_SIZE(values)
    at = put_size(out, at, size, 0x90, 16, 0xdc, 2)
    for j in range(size):
        if j >= PyList_GET_SIZE(values):  # see put_held
            break
        at = put_value(out, at, <object>PyList_GET_ITEM(values, j), depth)
    if PyList_GET_SIZE(values) != size:
        return refuse("a list changed its size while it was being sent")
    return at


cdef u8* put_map(_Out out, u8* at, object values, int depth, bint is_keywords) except NULL:
    """Write a dict; its keys and values are at `depth`."""
    cdef Py_ssize_t position = 0, size = PyDict_GET_SIZE(values), left = size
    cdef PyObject* key
    cdef PyObject* value
    if out.values and <size_t>size > MAX_EQUAL_HASHES and not is_keywords:
        check_spread(values)
    at = put_size(out, at, left, 0x80, 16, 0xde, 2)
    while PyDict_Next(values, &position, &key, &value):
        left -= 1
        if is_keywords and not PyUnicode_CheckExact(<object>key):
            return refuse(f"a keyword is text, not {<object>key!r}")
        at = put_pair(out, at, <object>key, <object>value, depth, size)
    if left:
        return refuse("a dict changed its size while it was being sent")
    return at


cdef u8* put_pair(_Out out, u8* at, object key, object value, int depth, size_t size) except NULL:
    """Write a key and its value, of a map of this size."""
    cdef size_t start = at - out.data
    name, held = key, value  # while the key is written; see put_held
    at = put_value(out, at, name, depth)
    at = check_written(out, at, start, name, size)
    return put_value(out, at, held, depth)


cdef inline u8* put_value(_Out out, u8* at, object value, int depth) except NULL:
    cdef uint64_t bits
    cdef double real
    if PyFloat_CheckExact(value):
        real = PyFloat_AS_DOUBLE(value)
        memcpy(&bits, &real, 8)
        return put_big(out, at, 0xcb, bits, 8)
    if PyLong_CheckExact(value) and is_small(value):
        return put_byte(out, at, <u8>compact_value(value))
    return put_more(out, at, value, depth)


cdef u8* put_more(_Out out, u8* at, object value, int depth) except NULL:
    if PyLong_CheckExact(value):
        return put_int(out, at, value, depth)
    if PyUnicode_CheckExact(value):
        return put_str(out, at, value, depth)
    if value is None:
        return put_byte(out, at, 0xc0)
    if value is True or value is False:
        return put_byte(out, at, 0xc3 if value is True else 0xc2)
    if PyBytes_CheckExact(value):
        at = put_size(out, at, PyBytes_GET_SIZE(value), 0, 0, 0xc4, 1)
        return put_raw(out, at, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    return put_held(out, at, value, depth)


cdef u8* put_held(_Out out, u8* at, object value, int depth) except NULL:
    # msgspec may call the program's own code on a value, and that code may throw away the list or dict we are in.
    # So whatever may lead to msgspec is held; a parameter of a cdef function is only borrowed.
    held = value
    if not (PyList_CheckExact(value) or PyDict_CheckExact(value) or (PyTuple_CheckExact(value) and not out.values)):
        return put_other(out, at, held, depth)
    if depth >= MAX_DEPTH:
        return refuse(f"values may nest {MAX_DEPTH} deep")
    if PyDict_CheckExact(value):
        return put_map(out, at, held, depth + 1, False)
    return put_array(out, at, held, depth + 1)


cdef u8* put_other(_Out out, u8* at, object value, int depth) except NULL:
    if out.values:
        return put_lowered(out, at, value, depth)
    try:
        data = msgspec_encode(value)
    except Exception as error:
        raise unsendable(value, error) from error
    return put_packed(out, at, value, data, depth)


cdef object unsendable(object value, object error):
    return BadArguments(f"a value of type {type(value).__name__} cannot be sent: {error}")


cdef u8* put_packed(_Out out, u8* at, object value, bytes data, int depth) except NULL:
    """The MessagePack that another encoder made of a value, once it has been looked at."""
    cdef _Reader src = _Reader(data, out.values)
    try:
        skip(src, depth)
        finish(src)
    except Exception as error:
        raise unsendable(value, error) from error
    return put_raw(out, at, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


# ---- reading

@cython.final
cdef class _Reader:
    """A position in bytes that belong to another object, which it keeps alive."""

    cdef Py_buffer view
    cdef const u8* at
    cdef const u8* end
    cdef Py_ssize_t owed
    cdef bint values  # it may hold the extensions of layouts.ValueExt

    def __cinit__(self, data, bint values=False):
        PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)
        self.values = values
        self.at = <const u8*>self.view.buf
        self.end = self.at + self.view.len

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef int finish(_Reader src) except -1:
    return malformed(f"{src.end - src.at} bytes are left over") if src.at != src.end else 0


cdef int malformed(str why) except -1:
    raise ProtocolError(why)


cdef inline int need(_Reader src, uint64_t size) except -1:
    return malformed("the bytes end too early") if size > <uint64_t>(src.end - src.at) else 0


cdef inline const u8* take(_Reader src, uint64_t size) except? NULL:
    cdef const u8* at = src.at
    need(src, size)
    src.at += size
    return at


cdef inline int claim(_Reader src, uint64_t elements) except -1:
    """Open a list or map, and check that its elements, fewer than 2**33, can follow."""
    if <int64_t>elements > (src.end - src.at) - src.owed:
        return malformed("the bytes end too early")
    src.owed += elements
    return 0


cdef int get_head(_Reader src, uint64_t* n) except -1:
    """Return the kind of the value that begins here, and move on; `n` has its number, its bits or its length."""
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
        return malformed("0xc1 begins no value")
    at = take(src, width)
    if width and src.end - at >= 8:
        memcpy(&number, at, 8)
        number = be64toh(number) >> (64 - 8 * width)
    else:
        for j in range(width):
            number = number << 8 | at[j]
    if kind == INT:
        number = <uint64_t>(<int64_t>(number << (64 - 8 * width)) >> (64 - 8 * width))
    elif kind == EXT and width == 0:
        number = 1u << (tag - 0xd4)
    n[0] = number
    return kind


cdef inline object get_value(_Reader src, int depth):
    """Return the value that begins here."""
    cdef const u8* start = src.at
    if start < src.end and start[0] < 0x80:
        src.at += 1
        return PyLong_FromLong(start[0])
    if src.end - start >= 9 and start[0] == 0xcb:
        src.at += 9
        return get_double(start + 1)
    return get_more(src, depth)


cdef object get_double(const u8* at):
    cdef uint64_t bits
    cdef double real
    memcpy(&bits, at, 8)
    bits = be64toh(bits)
    memcpy(&real, &bits, 8)
    return PyFloat_FromDouble(real)


cdef object get_more(_Reader src, int depth):
    cdef const u8* start = src.at
    cdef uint64_t n
    cdef uint32_t bits
    cdef float small
    cdef int kind = get_head(src, &n)
    if kind == FLOAT64:
        return get_double(src.at - 8)
    if kind == UINT:
        return n
    if kind == INT:
        return <int64_t>n
    if kind == STR:
        return get_text(<const char*>take(src, n), n)
    if kind == ARRAY:
        return get_array(src, n, depth)
    if kind == MAP:
        return get_map(src, n, depth)
    if kind == BIN:
        return PyBytes_FromStringAndSize(<const char*>take(src, n), n)
    if kind == FLOAT32:
        bits = <uint32_t>n
        memcpy(&small, &bits, 4)
        return PyFloat_FromDouble(small)
    if kind == EXT:
        return get_ext(src, start, n, depth)
    return None if kind == NIL else kind == TRUE


cdef object get_text(const char* data, Py_ssize_t size):
    try:
        return PyUnicode_DecodeUTF8(data, size, NULL)
    except UnicodeDecodeError as error:
        raise ProtocolError(f"text that is no UTF-8: {error}") from None


cdef int enter(int depth) except -1:
    return malformed(f"values nest more than {MAX_DEPTH} deep") if depth >= MAX_DEPTH else 0


cdef object get_array(_Reader src, uint64_t size, int depth):
    cdef Py_ssize_t j
    cdef list values
    enter(depth)
    claim(src, size)
    values = PyList_New(size)
    for j in range(<Py_ssize_t>size):
        src.owed -= 1
        value = get_value(src, depth + 1)
        Py_INCREF(value)
        PyList_SET_ITEM(values, j, value)
    return values


cdef object get_map(_Reader src, uint64_t size, int depth):
    cdef dict values = {}, seen = None
    enter(depth)
    claim(src, 2 * size)
    if src.values and size > MAX_EQUAL_HASHES:
        seen = {}
    for _ in range(size):
        src.owed -= 1
        check_key(src, size)
        key = get_value(src, depth + 1)
        if src.values and not PyUnicode_CheckExact(key):
            check_hash(seen, key)
        src.owed -= 1
        value = get_value(src, depth + 1)
        values[key] = value
    return values


cdef int ext_code(_Reader src, uint64_t size) except? -1:
    """Return the code of an extension, and check that its `size` bytes of data are there; stay before the data."""
    need(src, size + 1)
    return <signed char>take(src, 1)[0]


cdef int no_error(int code) except? -1:
    return malformed(f"an error entry (extension {ERROR_EXT}) inside a value") if code == ERROR_EXT else code


cdef object get_ext(_Reader src, const u8* start, uint64_t size, int depth):
    cdef int code = no_error(ext_code(src, size))
    if src.values and FIRST_VALUE <= code <= LAST_VALUE:
        return get_extended(src, code, size, depth)
    src.at += size
    if code == ARRAY_EXT:
        return arrays.decoded(some(src.at - size, size))
    try:
        return msgspec_decode(PyBytes_FromStringAndSize(<const char*>start, src.at - start))
    except Exception as error:
        raise ProtocolError(f"an extension that cannot be read: {error}") from None


cdef int skip(_Reader src, int depth) except -1:
    """Skip one value."""
    cdef uint64_t n
    cdef int kind = get_head(src, &n)
    cdef uint64_t size = n if kind == MAP else 0
    if kind == EXT:
        no_error(ext_code(src, n))
    if kind == EXT or kind == STR or kind == BIN:
        take(src, n)
    elif kind == ARRAY or kind == MAP:
        enter(depth)
        n = n if kind == ARRAY else 2 * n
        claim(src, n)
        while n:
            if kind == MAP and n % 2 == 0:
                check_key(src, size)
            n -= 1
            src.owed -= 1
            skip(src, depth + 1)
    return 0
