# What may be a key of a map, or an element of a set, in MessagePack. The text is part of _fastpath.pyx.

cdef size_t MAX_NUMBER_KEYS = limits.MAX_NUMBER_KEYS
cdef size_t MAX_EXTENDED_KEYS = limits.MAX_EXTENDED_KEYS


cdef inline bint is_key(u8 tag, size_t size) noexcept:
    """The value with this tag may be a key of a map of this size.

    Python hashes numbers, and tuples of them, by a formula that everybody knows, and a map whose keys were chosen for
    that takes seconds to be made. Text and bytes are hashed by a secret.
    """
    if 0xa0 <= tag < 0xc0:
        return True
    if 0xc0 <= tag < 0xe0:
        return KINDS[tag - 0xc0] in (STR, BIN) or (size <= MAX_NUMBER_KEYS and KINDS[tag - 0xc0] < STR)
    return size <= MAX_NUMBER_KEYS and not 0x80 <= tag < 0xa0


cdef inline bint is_extended(u8 tag, size_t size) noexcept:
    """The value with this tag is an extension, and a map or set of this size may have such, if they can be hashed."""
    return size <= MAX_EXTENDED_KEYS and 0xc7 <= tag < 0xe0 and KINDS[tag - 0xc0] == EXT


cdef str told_key(size_t size, bint values):
    if size > MAX_NUMBER_KEYS:
        return f"the key of a map is text or bytes where it has more than {MAX_NUMBER_KEYS}"
    if values and size > MAX_EXTENDED_KEYS:
        return f"the key of a map is text, bytes or a number where it has more than {MAX_EXTENDED_KEYS}"
    return "the key of a map is text, bytes, a number, a bool or nothing"


cdef inline int check_key(_Reader src, uint64_t size) except -1:
    """The key of a map of this size begins here, or the bytes end."""
    if src.at == src.end or is_key(src.at[0], size) or (src.values and is_extended(src.at[0], size)):
        return 0
    return malformed(told_key(size, src.values))


cdef u8* check_written(_Out out, u8* at, size_t start, object key, size_t size) except NULL:
    """That what was written from `start` on for a key is one."""
    if is_key(out.data[start], size) or (out.values and is_extended(out.data[start], size) and is_hashable(key)):
        return at
    return refuse(f"{told_key(size, out.values)}, not {type(key).__name__}")
