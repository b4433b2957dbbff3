# Values that may be keys of a map, or elements of a set, in MessagePack. The text is part of _fastpath.pyx.

cdef size_t MAX_NUMBER_KEYS = limits.MAX_NUMBER_KEYS
cdef size_t MAX_EQUAL_HASHES = limits.MAX_EQUAL_HASHES
cdef str ALIKE = f"more than {MAX_EQUAL_HASHES} keys of a map, or elements of a set, have one hash: a list has no hashes"


cdef inline bint is_key(u8 tag, size_t size) noexcept:
    """Return whether a value with this tag may be a key of a map of this size.

    Python hashes numbers, and tuples of them, by a public formula: a map takes seconds to make if its keys were chosen
    for equal hashes. Text and bytes are hashed with a secret.
    """
    if 0xa0 <= tag < 0xc0:
        return True
    if 0xc0 <= tag < 0xe0:
        return KINDS[tag - 0xc0] in (STR, BIN) or (size <= MAX_NUMBER_KEYS and KINDS[tag - 0xc0] < STR)
    return size <= MAX_NUMBER_KEYS and not 0x80 <= tag < 0xa0


cdef inline bint is_extended(u8 tag, size_t size) noexcept:
    """The value with this tag is an extension, and a map or set of this size may have such, if they can be hashed."""
    return size <= MAX_NUMBER_KEYS and 0xc7 <= tag < 0xe0 and KINDS[tag - 0xc0] == EXT


cdef str told_key(size_t size):
    if size > MAX_NUMBER_KEYS:
        return f"the key of a map is text or bytes where it has more than {MAX_NUMBER_KEYS}"
    return "the key of a map is text, bytes, a number, a bool or nothing"


cdef inline int check_key(_Reader src, uint64_t size) except -1:
    """The key of a map of this size begins here, or the bytes end."""
    if src.at == src.end or is_key(src.at[0], size) or (src.values and is_extended(src.at[0], size)):
        return 0
    return malformed(told_key(size))


cdef u8* check_written(_Out out, u8* at, size_t start, object key, size_t size) except NULL:
    """That what was written from `start` on for a key is one."""
    if is_key(out.data[start], size) or (out.values and is_extended(out.data[start], size) and is_hashable(key)):
        return at
    return refuse(f"{told_key(size)}, not {type(key).__name__}")


cdef bint is_alike(dict seen, object key) except -1:
    """Count a key's hash among those that were seen; whether it was seen too often. Text and bytes are not counted."""
    if isinstance(key, (str, bytes)):
        return False
    number = hash(key)
    count = seen.get(number, 0) + 1
    seen[number] = count
    return <size_t>count > MAX_EQUAL_HASHES


cdef int check_spread(object keys) except -1:
    """That keys, or elements of a set, do not collide: extensions can be chosen for that without end."""
    cdef dict seen = {}
    for key in keys:
        if is_alike(seen, key):
            raise BadArguments(ALIKE)
    return 0


cdef int check_hash(dict seen, object key) except -1:
    """That a value can be the key of a map, or in a set; of a large one, those before it are in `seen`."""
    try:
        if seen is None:
            hash(key)
        elif is_alike(seen, key):
            return malformed(ALIKE)
    except TypeError as error:
        raise ProtocolError(f"the key of a map, or an element of a set, cannot be hashed: {error}") from None
    return 0
