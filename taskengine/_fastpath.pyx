# cython: boundscheck=False, wraparound=False, initializedcheck=False, auto_pickle=False
"""The compiled part: reads and writes whole messages, in the layouts of taskengine.protocol.layouts.

| process | calls |
|---|---|
| client | pack_calls, pack_map, unpack |
| router | check_index, check_tasks, check_columns, task_names, used_names, find_tasks, frame_names, read_topic, pack_batch, read_answer, Assembly, Tally |
| worker | run_batch, read_batch |
| all | encode |

Bytes that are no message raise ProtocolError, and values that cannot be sent raise BadArguments; they raise nothing
else. An exception of a callback or an iterator passes through. The functions may be called from any thread.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact, PyDict_Next
from cpython.exc cimport PyErr_Clear
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact, PyFloat_FromDouble
from cpython.list cimport PyList_CheckExact, PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact, PyLong_FromLong
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset, strlen
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

import mmap
from bisect import bisect_right

import msgspec

from taskengine.protocol import arrays
from taskengine.protocol import layouts
from taskengine.protocol import limits
from taskengine.protocol import values
from taskengine.protocol.release import check_build
from taskengine.errors import BadArguments, ProtocolError, TaskFailed, TaskTimeout

include "_release.pxi"
check_build(__name__, TASKENGINE_RELEASE.decode())

cdef extern from "endian.h" nogil:
    uint64_t htobe64(uint64_t)
    uint64_t be64toh(uint64_t)
    uint64_t htole64(uint64_t)
    uint64_t le64toh(uint64_t)
    uint32_t htole32(uint32_t)
    uint32_t le32toh(uint32_t)

cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030C0000
    #define is_compact(x) PyUnstable_Long_IsCompact((PyLongObject *)(x))
    #define compact_value(x) PyUnstable_Long_CompactValue((PyLongObject *)(x))
    #else
    #define is_compact(x) (Py_SIZE(x) >= -1 && Py_SIZE(x) <= 1)
    #define compact_value(x) (Py_SIZE(x) * (Py_ssize_t)((PyLongObject *)(x))->ob_digit[0])
    #endif
    #define is_small(x) (is_compact(x) && (size_t)compact_value(x) < 0x80)
    """
    # an int of one digit, its value, and whether that is below 128
    bint is_compact(object)
    bint is_small(object)
    Py_ssize_t compact_value(object)

cdef extern from "Python.h":
    Py_ssize_t PyDict_GET_SIZE(object)
    # as object, a NULL raises; with PyObject* that would have to be asked for by `except NULL`
    object PyObject_Vectorcall(object function, PyObject* const* args, size_t nargsf, PyObject* kwnames)
    const size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    # NULL without an exception at the end; what it gives is the caller's
    PyObject* PyIter_Next(object iterator) except? NULL
    # these two hand out what they do not own, and AsUTF8AndSize says NULL where the text has no UTF-8
    PyObject* PyList_GET_ITEM(object values, Py_ssize_t j)
    PyObject* PyTuple_GET_ITEM(object values, Py_ssize_t j)
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size)

ctypedef unsigned char u8

cdef int MAX_DEPTH = limits.MAX_DEPTH


def limit_depth(int most):
    """Limit how deep lists and maps may nest, in this process. Raises ValueError beyond limits.MAX_DEPTH."""
    global MAX_DEPTH
    if not 1 <= most <= limits.MAX_DEPTH:
        raise ValueError(f"values nest 1 to {limits.MAX_DEPTH} deep, not {most}")
    MAX_DEPTH = most

cdef int ERROR_EXT = layouts.ERROR_EXT
cdef size_t MAX_TASKS = limits.MAX_TASKS
cdef size_t MAX_BODY = limits.MAX_BODY
cdef size_t MAX_MESSAGE = limits.MAX_MESSAGE
cdef uint64_t STRIDE_NS = layouts.STRIDE_NS
cdef size_t PROGRESS_HEAD = layouts.PROGRESS_HEAD
cdef uint64_t IN_FLIGHT = layouts.IN_FLIGHT
cdef size_t PROGRESS_BYTES = layouts.PROGRESS_BYTES
cdef int MADV_REMOVE = mmap.MADV_REMOVE
cdef int64_t NO_NAME = layouts.NO_NAME
cdef u8 VALUES_FLAG = layouts.VALUES_FLAG
cdef int ARRAY_EXT = layouts.ARRAY_EXT
cdef object msgspec_encode = msgspec.msgpack.Encoder(enc_hook=arrays.encoded).encode
cdef object msgspec_decode = msgspec.msgpack.Decoder().decode

cdef uint32_t MAY_RETRY = layouts.MAY_RETRY
cdef enum:
    FIRST_ROOM = 1024  # bytes; no limit is below
    CALL_DEPTH = 2  # of a task around its arguments
    MOST_NAMES = 65536  # in a head of limits.MAX_HEAD bytes there are fewer
    BATCH_SIZE = 20
    COUNT_SIZE = 4
    SECTION_SIZE = 54
    ENTRY_SIZE = 32
    PACKED = 0
    LEGACY_JSON = 1
    DATA = 2
    COLUMNS = 3
    ALL = 0
    ERRORS = 1
    NONE = 2

if (layouts.COUNT.size, layouts.BATCH.size, layouts.SECTION.size, layouts.ENTRY.size, *sorted(layouts.Format)) != (
    COUNT_SIZE, BATCH_SIZE, SECTION_SIZE, ENTRY_SIZE, PACKED, LEGACY_JSON, DATA, COLUMNS
):
    raise ImportError("taskengine.protocol.layouts and its compiled twin have drifted apart: compile it again")


cdef inline bytes some(const u8* data, Py_ssize_t size):
    return PyBytes_FromStringAndSize(<const char*>data, size)


include "_msgpack.pxi"
include "_keys.pxi"
include "_values.pxi"
include "_json.pxi"


cdef inline uint32_t get_u32(const u8* at) noexcept:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return le32toh(value)


cdef inline uint64_t get_u64(const u8* at) noexcept:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return le64toh(value)


cdef inline u8* put_u32(_Out out, u8* at, uint32_t value) except NULL:
    value = htole32(value)
    return put_raw(out, at, &value, 4)


cdef inline u8* put_u64(_Out out, u8* at, uint64_t value) except NULL:
    value = htole64(value)
    return put_raw(out, at, &value, 8)


include "_pack.pxi"


# ---- the router's side

cdef size_t check_ends(const u8* ends, size_t count, uint32_t base, uint64_t size) except? 0:
    """Check that the tasks follow each other from `base` on and fill `size` bytes; return how many there are."""
    cdef uint32_t previous = base, end
    cdef size_t k
    for k in range(count):
        end = get_u32(ends + 4 * k)
        if end <= previous:
            raise ProtocolError(f"the index ends task {k} before it begins")
        previous = end
    if previous - base != size:
        raise ProtocolError(f"the index tells of {previous - base} bytes of tasks, and {size} came")
    return count


cdef size_t index_count(_Reader index, uint64_t size) except? 0:
    cdef size_t length = index.end - index.at
    if length % 4 or length // 4 > MAX_TASKS:
        raise ProtocolError(f"an index has 4 bytes for each of at most {MAX_TASKS} tasks, not {length} bytes")
    return check_ends(index.at, length // 4, 0, size)


def check_index(index, body_len):
    """Return the number of tasks in a package with this index and `body_len` bytes of body. Raises ProtocolError."""
    return index_count(_Reader(index), body_len)


def check_columns(codes, body_len):
    """Return the number of tasks in columns of these codes, which take `body_len` bytes. Raises ProtocolError."""
    cdef _Reader src = _Reader(codes)
    cdef uint64_t columns = src.end - src.at, tasks
    if not 1 <= columns <= 0xff or not are_codes(src.at, columns):
        raise ProtocolError("columns have a code each, f or i, and there are 1 to 255 of them")
    tasks = <uint64_t>body_len // (8 * columns)
    if tasks * 8 * columns != <uint64_t>body_len or tasks > MAX_TASKS:
        raise ProtocolError(f"{body_len} bytes are no {columns} columns of at most {MAX_TASKS} numbers")
    return tasks


cdef bint are_codes(const u8* codes, size_t count) noexcept:
    cdef size_t j
    for j in range(count):
        if codes[j] != c"f" and codes[j] != c"i":
            return False
    return True


cdef int64_t get_name(_Reader src) noexcept:
    """Return the name index of the task that begins here, and move behind it; -1 where there is none below 2**63."""
    cdef Py_ssize_t size = src.end - src.at
    cdef uint64_t n = 0
    cdef int width, j
    cdef u8 tag
    if size < 2 or (src.at[0] != 0x92 and src.at[0] != 0x93):
        return -1
    tag = src.at[1]
    if tag < 0x80:
        src.at += 2
        return tag
    if tag < 0xcc or tag > 0xd3 or size < 2 + WIDTHS[tag - 0xc0]:
        return -1
    width = WIDTHS[tag - 0xc0]
    for j in range(width):
        n = n << 8 | src.at[2 + j]
    if n >> (63 if tag <= 0xcf else 8 * width - 1):
        return -1
    src.at += 2 + width
    return <int64_t>n


def task_names(index, body, bytes marks=None, Py_ssize_t most=MAX_TASKS):
    """Return the name indexes of all tasks, as runs of equal ones: (first position, stop position, name index).

    Only the head of each task is read. For a task without a name index, or with one from layouts.NO_NAME on, the run
    has layouts.NO_NAME: such a task fails by itself, at the worker. With `marks`, u32 each, runs have the i-th mark in
    place of name index i, and the last mark for a larger index. Runs beyond the first `most` are left out. Raises
    ProtocolError for an index that does not fit.
    """
    cdef _Reader places = _Reader(index), src = _Reader(body)
    cdef const u8* start = src.at
    cdef size_t k, first = 0, count = index_count(places, src.end - src.at)
    cdef int64_t i, current = -1, last = len(marks) // 4 - 1 if marks is not None else -1
    cdef list runs = []
    for k in range(count):
        src.end = start + get_u32(places.at + 4 * k)
        i = get_name(src)
        src.at = src.end
        if i < 0 or i > NO_NAME:
            i = NO_NAME
        if last >= 0:
            i = get_u32(<const u8*>PyBytes_AS_STRING(marks) + 4 * min(i, last))
        if i != current:
            if k:
                runs.append((first, k, current))
                if len(runs) == most:
                    return runs
            first, current = k, i
    if count:
        runs.append((first, count, current))
    return runs


def used_names(index, body):
    """Return the name indexes that tasks have, as `task_names` returns them: each once, in order.

    Raises ProtocolError for an index that does not fit.
    """
    cdef _Reader places = _Reader(index), src = _Reader(body)
    cdef const u8* start = src.at
    cdef size_t k, top = 0, count = index_count(places, src.end - src.at)
    cdef bytes seen = bytes(MOST_NAMES)
    cdef u8* marks = <u8*>PyBytes_AS_STRING(seen)
    cdef bint is_strange = False
    cdef int64_t i
    for k in range(count):
        src.end = start + get_u32(places.at + 4 * k)
        i = get_name(src)
        src.at = src.end
        if 0 <= i < MOST_NAMES:
            marks[i] = 1
            top = max(top, <size_t>i + 1)
        else:
            is_strange = True
    cdef list used = [k for k in range(top) if marks[k]]
    return [*used, NO_NAME] if is_strange else used


def find_tasks(index, body, bytes wanted not None, size_t most):
    """Return the first `most` tasks whose name index i has a `wanted[i]` that is not 0: (position, begin, end).

    Raises ProtocolError for an index that does not fit.
    """
    cdef _Reader places = _Reader(index), src = _Reader(body)
    cdef const u8* start = src.at
    cdef const u8* marks = <const u8*>PyBytes_AS_STRING(wanted)
    cdef size_t k, at, count = index_count(places, src.end - src.at)
    cdef int64_t i, names = len(wanted)
    cdef list found = []
    for k in range(count):
        at = src.at - start
        src.end = start + get_u32(places.at + 4 * k)
        i = get_name(src)
        src.at = src.end
        if 0 <= i < names and marks[i]:
            if <size_t>len(found) == most:
                break
            found.append((k, at, <size_t>(src.end - start)))
    return found


def read_topic(body):
    """Return the topic with which a data request, an array, begins, and the array's length. The rest is not decoded.

    Raises ProtocolError.
    """
    cdef _Reader src = _Reader(body)
    cdef uint64_t n, size, j
    if get_head(src, &n) != ARRAY or n == 0:
        raise ProtocolError("the body of a data request is an array that begins with a topic")
    claim(src, n)
    src.owed -= 1
    if get_head(src, &size) != STR:
        raise ProtocolError("the body of a data request is an array that begins with a topic")
    topic = get_text(<const char*>take(src, size), size)
    for j in range(1, n):
        src.owed -= 1
        skip(src, 1)
    finish(src)
    return topic, n


def pack_batch(number, slice_ns, sections):
    """Return a batch of that number from sections, tuples as `broker.package.Section` names them.

    Raises ProtocolError for a slice that the package does not have.
    """
    cdef _Out out = _Out(0xffffffffu)
    cdef u8* at = put_u64(out, out.data, number)
    at = put_u32(out, at, <uint32_t>len(sections))
    at = put_u64(out, at, slice_ns)
    for section in sections:
        if not isinstance(section, tuple):
            raise TypeError("a section is a tuple")
        at = put_section(out, at, <tuple>section)  # or of a subclass, which has names
    return out.taken(at)


cdef u8* put_section(_Out out, u8* at, tuple section) except NULL:
    cdef bytes head, index, body
    cdef uint64_t job, deadline
    cdef uint32_t part, lead, larger, size
    cdef size_t first, stop, tasks, base = 0, end
    cdef u8 format, reply
    job, format, reply, deadline, head, index, body, part, first, stop, lead, larger, size = section
    cdef const u8* ends = <const u8*>PyBytes_AS_STRING(index)
    cdef size_t columns = len(index), j
    tasks = len(body) // (8 * max(columns, 1)) if format == COLUMNS else columns // 4
    if not first < stop <= tasks:
        raise ProtocolError(f"a package of {tasks} tasks has none from {first} to {stop}")
    if format == COLUMNS:
        base = columns
        end = base + 8 * columns * (stop - first)
    else:
        if first:
            base = get_u32(ends + 4 * (first - 1))
        end = get_u32(ends + 4 * (stop - 1))
        if not base < end <= <size_t>len(body):
            raise ProtocolError(f"a body of {len(body)} bytes has no tasks from {base} to {end}")
    at = put_u64(out, at, job)
    at = put_u64(out, at, deadline)
    at = put_u32(out, at, part)
    at = put_u32(out, at, <uint32_t>first)
    at = put_u32(out, at, <uint32_t>(stop - first))
    at = put_u32(out, at, lead)
    at = put_u32(out, at, larger)
    at = put_u32(out, at, size)
    at = put_u32(out, at, <uint32_t>base)
    at = put_u32(out, at, <uint32_t>(end - base))
    at = put_u32(out, at, <uint32_t>len(head))
    at = put_byte(out, at, format)
    at = put_byte(out, at, reply)
    at = put_raw(out, at, PyBytes_AS_STRING(head), len(head))
    if format == COLUMNS:
        at = put_raw(out, at, ends, columns)
        for j in range(columns):
            at = put_raw(out, at, PyBytes_AS_STRING(body) + 8 * (j * tasks + first), 8 * (stop - first))
        return at
    at = put_raw(out, at, ends + 4 * first, 4 * (stop - first))
    return put_raw(out, at, PyBytes_AS_STRING(body) + base, end - base)


def read_answer(answer):
    """Return a worker's entries: (job, first, stop, failed tasks, elapsed ns, body). Raises ProtocolError."""
    cdef _Reader src = _Reader(answer)
    return read_entries(src, get_u32(take(src, COUNT_SIZE)))


cdef list read_entries(_Reader src, uint32_t count):
    """Return `count` entries; nothing may follow them."""
    cdef const u8* at
    cdef uint32_t size
    cdef uint64_t first
    cdef list entries = []
    for _ in range(count):
        at = take(src, ENTRY_SIZE)
        first = get_u32(at + 8)
        size = get_u32(at + 28)
        body = some(take(src, size), size)
        entries.append((get_u64(at), first, first + get_u32(at + 12), get_u32(at + 16), get_u64(at + 20), body))
    finish(src)
    return entries


include "_assembly.pxi"
include "_progress.pxi"
include "_calls.pxi"
include "_batch.pxi"
include "_turn.pxi"
include "_running.pxi"
include "_seed.pxi"
include "_tally.pxi"
