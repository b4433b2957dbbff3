# JSON: finds out whether bytes are surely JSON, and reads and writes plain values. The text is part of _fastpath.pyx.
#
# A scan_* function gets the begin of a value and the end of the bytes. It returns the place behind the value, or NULL
# if it is not sure that msgspec would accept the value: then msgspec is asked. It never reads at `end`, and raises
# nothing. Values are scanned before they are read.

cdef enum:
    MAX_NEST = 32  # of lists and objects in a frame that is scanned
    MAX_WHOLE = 18  # digits of a number before its point: they fit into 64 bits
    MAX_FRACTION = 40  # behind it
    MAX_EXPONENT = 2  # in its exponent
    EXACT_DIGITS = 15  # any number of so many digits is told from all others by a double
    SHORT_FRACTION = 3  # digits behind the point of a double that is written here
    NUMBER_ROOM = 32  # no number that is written is longer

cdef double[EXACT_DIGITS + 1] POWERS = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
]

cdef extern from *:
    """
    #define ALL_BYTES(byte) (0x0101010101010101ull * (byte))
    /* the lowest byte of a little-endian word that is ", \\, below 0x20 or above 0x7f; 8 where none is */
    static inline int find_special(uint64_t word) {
        uint64_t found = ((word ^ ALL_BYTES('"')) - ALL_BYTES(1)) | ((word ^ ALL_BYTES('\\\\')) - ALL_BYTES(1))
            | (word - ALL_BYTES(0x20)) | word;
        found &= ALL_BYTES(0x80);
        return found ? __builtin_ctzll(found) >> 3 : 8;
    }
    """
    int find_special(uint64_t word) noexcept

cdef extern from "Python.h":
    double PyOS_string_to_double(const char* text, char** end, PyObject* overflow) except? -1.0
    char* PyOS_double_to_string(double value, char format, int precision, int flags, int* kind) except NULL
    void PyMem_Free(void* data)
    const int Py_DTSF_ADD_DOT_0


# ---- scanning

cdef inline const u8* scan_space(const u8* at, const u8* end) noexcept:
    while at < end and at[0] <= 0x20 and (at[0] == c" " or at[0] == c"\n" or at[0] == c"\r" or at[0] == c"\t"):
        at += 1
    return at


cdef int utf8_size(const u8* at, Py_ssize_t left) noexcept:
    """Return the size of the character that begins here, with a byte above 0x7f; 0 if it is no UTF-8."""
    cdef int size = 2 if at[0] < 0xe0 else 3 if at[0] < 0xf0 else 4
    cdef int j
    if at[0] < 0xc2 or at[0] > 0xf4 or left < size:
        return 0
    for j in range(1, size):
        if at[j] & 0xc0 != 0x80:
            return 0
    # too long for its character, a surrogate, or above the last
    if (at[0] == 0xe0 and at[1] < 0xa0) or (at[0] == 0xed and at[1] > 0x9f):
        return 0
    if (at[0] == 0xf0 and at[1] < 0x90) or (at[0] == 0xf4 and at[1] > 0x8f):
        return 0
    return size


cdef int escape_size(const u8* at, Py_ssize_t left) noexcept:
    """Return the size of the escape that begins here, with a backslash; 0 if it is none, or may be half a character."""
    cdef int j
    cdef u8 digit
    if left < 2:
        return 0
    if at[1] != c"u":
        return 2 if at[1] in b'"\\/bfnrt' else 0
    if left < 6 or (at[2] | 0x20) == c"d":
        return 0
    for j in range(2, 6):
        digit = at[j] | 0x20
        if not (c"0" <= at[j] <= c"9" or c"a" <= digit <= c"f"):
            return 0
    return 6


cdef inline const u8* scan_text(const u8* at, const u8* end, bint* has_escapes) noexcept:
    """Scan a text whose first character is at `at`; return its closing quote."""
    cdef uint64_t word
    cdef int size
    while at < end:
        if end - at >= 8:
            memcpy(&word, at, 8)
            size = find_special(le64toh(word))
            at += size
            if size == 8:
                continue
        if at[0] == c'"':
            return at
        if at[0] < 0x20:
            return NULL
        size = 1
        if at[0] == c"\\":
            has_escapes[0] = True
            size = escape_size(at, end - at)
        elif at[0] > 0x7f:
            size = utf8_size(at, end - at)
        if size == 0:
            return NULL
        at += size
    return NULL


cdef inline const u8* scan_digits(const u8* at, const u8* end, Py_ssize_t most) noexcept:
    cdef const u8* start = at
    while at < end and c"0" <= at[0] <= c"9":
        at += 1
    return at if 0 < at - start <= most else NULL


cdef const u8* scan_number(const u8* at, const u8* end) noexcept:
    cdef const u8* start = at + (at[0] == c"-")
    at = scan_digits(start, end, MAX_WHOLE)
    if at is NULL or (start[0] == c"0" and at - start > 1):
        return NULL
    if at < end and at[0] == c".":
        at = scan_digits(at + 1, end, MAX_FRACTION)
    if at is not NULL and at < end and (at[0] == c"e" or at[0] == c"E"):
        at += 1
        if at < end and (at[0] == c"+" or at[0] == c"-"):
            at += 1
        at = scan_digits(at, end, MAX_EXPONENT)
    return at


cdef const u8* scan_word(const u8* at, const u8* end, const char* word, Py_ssize_t size) noexcept:
    return at + size if end - at >= size and memcmp(at, word, size) == 0 else NULL


cdef const u8* scan_value(const u8* at, const u8* end, int depth) noexcept:
    """Scan a value at `depth` in lists and objects."""
    cdef bint has_escapes
    if at >= end:
        return NULL
    if at[0] == c'"':
        at = scan_text(at + 1, end, &has_escapes)
        if at is not NULL:
            at += 1
        return at
    if at[0] == c"[" or at[0] == c"{":
        return scan_nest(at, end, depth)
    if at[0] == c"t":
        return scan_word(at, end, "true", 4)
    if at[0] == c"f":
        return scan_word(at, end, "false", 5)
    if at[0] == c"n":
        return scan_word(at, end, "null", 4)
    return scan_number(at, end)


cdef const u8* scan_nest(const u8* at, const u8* end, int depth) noexcept:
    """Scan a list or an object."""
    cdef bint is_object = at[0] == c"{", has_escapes
    cdef u8 last = c"}" if is_object else c"]"
    if depth >= MAX_NEST:
        return NULL
    at = scan_space(at + 1, end)
    if at < end and at[0] == last:
        return at + 1
    while True:
        if is_object:
            at = scan_key(at, end, &has_escapes)
            if at is NULL:
                return NULL
        at = scan_value(at, end, depth + 1)
        if at is NULL:
            return NULL
        at = scan_space(at, end)
        if at >= end:
            return NULL
        if at[0] == last:
            return at + 1
        if at[0] != c",":
            return NULL
        at = scan_space(at + 1, end)


cdef const u8* scan_key(const u8* at, const u8* end, bint* has_escapes) noexcept:
    """Scan a key, its colon and the space around them; return where the value begins."""
    if at >= end or at[0] != c'"':
        return NULL
    at = scan_text(at + 1, end, has_escapes)
    if at is NULL:
        return NULL
    at = scan_space(at + 1, end)
    return scan_space(at + 1, end) if at < end and at[0] == c":" else NULL


# ---- reading

cdef object get_number(const u8** place):
    """Return the number that begins at `place`, and move `place` behind it."""
    cdef const u8* at = place[0]
    cdef bint negative = at[0] == c"-"
    cdef uint64_t number = 0
    cdef Py_ssize_t digits, fraction = 0
    cdef const u8* start = at + negative
    cdef char* behind
    cdef double real
    at = start
    while c"0" <= at[0] <= c"9":
        number = 10 * number + (at[0] - c"0")
        at += 1
    if at[0] != c"." and at[0] != c"e" and at[0] != c"E":
        place[0] = at
        return -<int64_t>number if negative else <int64_t>number
    digits = at - start
    if at[0] == c".":
        at += 1
        while c"0" <= at[0] <= c"9":
            number = 10 * number + (at[0] - c"0")
            at += 1
            fraction += 1
    if digits + fraction <= EXACT_DIGITS and at[0] != c"e" and at[0] != c"E":
        # a double divided by a double, which is rounded but once
        real = number / POWERS[fraction]
        place[0] = at
        return PyFloat_FromDouble(-real if negative else real)
    real = PyOS_string_to_double(<const char*>place[0], &behind, NULL)
    place[0] = <const u8*>behind
    return PyFloat_FromDouble(real)


# ---- writing, where there is NUMBER_ROOM

cdef u8* write_digits(u8* at, uint64_t number, int least) noexcept:
    """Write a number in at least `least` digits."""
    cdef u8[20] digits
    cdef int size = 0
    while number or size < least:
        size += 1
        digits[20 - size] = <u8>(c"0" + number % 10)
        number //= 10
    memcpy(at, &digits[20 - size], size)
    return at + size


cdef u8* write_int(u8* at, int64_t number) noexcept:
    if number < 0:
        at[0] = c"-"
        at += 1
    return write_digits(at, <uint64_t>number if number >= 0 else -<uint64_t>number, 1)


cdef u8* write_float(u8* at, double real) except NULL:
    """Write a double as repr() does."""
    cdef double scaled
    cdef uint64_t digits, power = 1
    cdef int fraction
    cdef char* text
    cdef size_t size
    cdef double magnitude = -real if real < 0 else real
    for fraction in range(SHORT_FRACTION + 1):
        scaled = magnitude * POWERS[fraction]
        if not scaled < POWERS[EXACT_DIGITS]:  # which nan is not either
            break
        digits = <uint64_t>(scaled + 0.5)
        # of all numbers of so few digits it is the only one that this double is nearest to; 0 may be -0
        if digits and digits / POWERS[fraction] == magnitude:
            power = <uint64_t>POWERS[fraction]
            if real < 0:
                at[0] = c"-"
                at += 1
            at = write_digits(at, digits // power, 1)
            at[0] = c"."
            return write_digits(at + 1, digits % power, max(fraction, 1))
    text = PyOS_double_to_string(real, c"r", 0, Py_DTSF_ADD_DOT_0, NULL)
    size = strlen(text)
    memcpy(at, text, size)
    PyMem_Free(text)
    return at + size
