# TASK frames of wire 0.1: what the router looks up in them, and how a worker runs them. The text is part of
# _fastpath.pyx.
#
# Most frames are plain: surely JSON, each key once, no escapes in what is looked up. All others go to Python, which
# reads them with msgspec, so that what is taken and what errors say does not depend on this file.

cdef struct Frame:
    const u8* name
    Py_ssize_t name_size
    const u8* args  # behind the bracket that opens them, or NULL
    const u8* label  # the task's pack, without quotes
    Py_ssize_t label_size
    bint is_simple  # no keywords, and no escapes in the label: a worker calls it without Python


cdef bint scan_frame(const u8* at, const u8* end, Frame* frame) noexcept:
    """Whether the bytes are surely a TASK frame; what is in it."""
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
    """A member of a TASK frame; its key as a bit of its own, 0 for one that means nothing."""
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

def frame_names(index, body, decode):
    """The names of the tasks in TASK frames laid end to end, as runs of equal ones: (first position, stop, name).

    decode(frame, position) gives the name in a frame that is not surely plain.

    Raises ProtocolError for frames that are no package.
    """
    cdef _Reader places = _Reader(index), src = _Reader(body)
    cdef Py_ssize_t k, first = 0, count = frame_count(places, src.end - src.at)
    cdef const u8* start = src.at
    cdef const u8* at = start
    cdef const u8* end
    cdef Frame frame, known
    cdef list runs = []
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
        if k and name != current:
            runs.append((first, k, current))
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
