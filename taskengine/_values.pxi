# The extensions for Python's other values (layouts.ValueExt), written and read for a side that takes them. The text is
# part of _fastpath.pyx.

cdef enum:
    WIDEST_HEAD = 6  # tag, four bytes of length, code

cdef int TUPLE = layouts.ValueExt.TUPLE
cdef int SET = layouts.ValueExt.SET
cdef int FROZENSET = layouts.ValueExt.FROZENSET
cdef int FIRST_VALUE = layouts.RESERVED_EXTS[0]
cdef int LAST_VALUE = layouts.RESERVED_EXTS[-1]
cdef int PLAIN = values.PLAIN
cdef int PACKED_VALUE = values.PACKED
cdef object lowered = values.lowered
cdef object read_extended = values.decoded
cdef object is_hashable = values.is_hashable


# ---- writing

cdef u8* put_lowered(_Out out, u8* at, object value, int depth) except NULL:
    """A value of any type but those that MessagePack has."""
    cdef int code
    if PyTuple_CheckExact(value):
        return put_elements(out, at, TUPLE, value, depth)
    try:
        code, held = lowered(value)
    except Exception as error:
        raise unsendable(value, error) from error
    if code == PLAIN:
        return put_value(out, at, held, depth)
    if code == PACKED_VALUE:
        return put_packed(out, at, value, held, depth)
    if PyBytes_CheckExact(held):
        return put_extension(out, at, code, held)
    return put_elements(out, at, code, held, depth)


cdef int write_head(u8* head, int code, size_t size) noexcept:
    """The head of an extension, the shortest there is; how many bytes it has."""
    cdef int width = 1 if size <= 0xff else 2 if size <= 0xffff else 4
    cdef int j
    if 0 < size <= 16 and size & (size - 1) == 0:
        head[0] = 0xd4 if size == 1 else 0xd5 if size == 2 else 0xd6 if size == 4 else 0xd7 if size == 8 else 0xd8
        width = 0
    else:
        head[0] = 0xc7 if width == 1 else 0xc8 if width == 2 else 0xc9
    for j in range(width):
        head[1 + j] = <u8>(size >> (8 * (width - 1 - j)))
    head[1 + width] = <u8>code
    return 2 + width


cdef u8* put_extension(_Out out, u8* at, int code, bytes data) except NULL:
    cdef u8[WIDEST_HEAD] head
    at = put_raw(out, at, head, write_head(head, code, PyBytes_GET_SIZE(data)))
    return put_raw(out, at, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef u8* put_elements(_Out out, u8* at, int code, object elements, int depth) except NULL:
    """An extension whose data is an array, of the elements of a tuple, or of a set that are in a list."""
    cdef u8[WIDEST_HEAD] head
    cdef size_t start = at - out.data, size, end
    cdef int width
    if depth >= MAX_DEPTH:
        return refuse(f"values may nest {MAX_DEPTH} deep")
    # the head's width is known behind the data, which most often move down a few bytes then
    at = reserve(out, at, WIDEST_HEAD) + WIDEST_HEAD
    if code == TUPLE:
        at = put_array(out, at, elements, depth + 1)
    else:
        at = put_set(out, at, elements, depth + 1)
    end = at - out.data
    size = end - start - WIDEST_HEAD
    if size > 0xffffffffu:
        return refuse("more than 2**32 - 1 bytes do not fit into one extension")
    width = write_head(head, code, size)
    at = out.data + start
    memcpy(at, head, width)
    if width < WIDEST_HEAD:
        memmove(at + width, at + WIDEST_HEAD, size)
    return at + width + size


cdef u8* put_set(_Out out, u8* at, list elements, int depth) except NULL:
    cdef size_t start, count = PyList_GET_SIZE(elements)
    if count > MAX_EQUAL_HASHES:
        check_spread(elements)
    at = put_size(out, at, count, 0x90, 16, 0xdc, 2)
    for element in elements:
        start = at - out.data
        at = put_value(out, at, element, depth)
        at = check_written(out, at, start, element, count)
    return at


# ---- reading

cdef object get_extended(_Reader src, int code, uint64_t size, int depth):
    """The value in an extension of `size` bytes, which begin here and are all there."""
    cdef const u8* end = src.end
    cdef Py_ssize_t owed = src.owed
    if code != TUPLE and code != SET and code != FROZENSET:
        src.at += size
        return read_extended(code, some(src.at - size, size))
    src.end = src.at + size
    src.owed = 0
    elements = get_elements(src, code != TUPLE, depth)
    finish(src)
    src.end = end
    src.owed = owed
    if code == TUPLE:
        return tuple(elements)
    return set(elements) if code == SET else frozenset(elements)


cdef list get_elements(_Reader src, bint is_set, int depth):
    cdef uint64_t count
    cdef list elements = []
    cdef dict seen = None
    enter(depth)
    if get_head(src, &count) != ARRAY:
        malformed("the data of a tuple or a set is an array")
    claim(src, count)
    if count > MAX_EQUAL_HASHES:
        seen = {}
    for _ in range(count):
        src.owed -= 1
        if is_set:
            check_key(src, count)
        element = get_value(src, depth + 1)
        if is_set:
            check_hash(seen, element)
        elements.append(element)
    return elements
