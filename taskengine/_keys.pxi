# Values that may be keys of a map in MessagePack. The text is part of _fastpath.pyx.

cdef size_t MAX_NUMBER_KEYS = limits.MAX_NUMBER_KEYS


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


cdef str told_key(size_t size):
    if size > MAX_NUMBER_KEYS:
        return f"the key of a map is text or bytes where it has more than {MAX_NUMBER_KEYS}"
    return "the key of a map is text, bytes, a number, a bool or nothing"


cdef inline int check_key(_Reader src, uint64_t size) except -1:
    """Check that a key for a map of this size begins here, unless the bytes end."""
    return malformed(told_key(size)) if src.at < src.end and not is_key(src.at[0], size) else 0
