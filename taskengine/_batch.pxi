# A batch as a worker reads it: its sections, each a slice of a package. The text is part of _fastpath.pyx.

cdef struct Section:
    uint64_t job
    uint64_t deadline
    uint32_t part
    uint32_t first
    uint32_t count
    uint32_t lead
    uint32_t larger
    uint32_t size
    uint32_t base
    uint32_t body_size
    uint32_t head_size
    u8 format
    u8 reply
    bint values
    const u8* head
    const u8* ends
    const u8* body


cdef int get_section(_Reader src, Section* section) except -1:
    cdef const u8* at = take(src, SECTION_SIZE)
    section.job = get_u64(at)
    section.deadline = get_u64(at + 8)
    section.part = get_u32(at + 16)
    section.first = get_u32(at + 20)
    section.count = get_u32(at + 24)
    section.lead = get_u32(at + 28)
    section.larger = get_u32(at + 32)
    section.size = get_u32(at + 36)
    section.base = get_u32(at + 40)
    section.body_size = get_u32(at + 44)
    section.head_size = get_u32(at + 48)
    section.format = at[52]
    section.reply = at[53] & ~VALUES_FLAG
    section.values = at[53] & VALUES_FLAG != 0
    if section.format > COLUMNS or section.reply > NONE:
        return malformed(f"a section of format {section.format} and reply mode {section.reply}")
    if not 1 <= section.lead <= section.count or (
        section.size == 0 and section.count - section.lead > section.larger
    ):
        return malformed(f"a slice of {section.count} tasks that begins with {section.lead} of them")
    section.head = take(src, section.head_size)
    section.ends = take(src, section.base if section.format == COLUMNS else 4 * <uint64_t>section.count)
    section.body = take(src, section.body_size)
    if section.format != COLUMNS:
        check_ends(section.ends, section.count, section.base, section.body_size)
    elif section.base == 0 or not are_codes(section.ends, section.base) or (
        section.body_size != 8 * <uint64_t>section.base * section.count
    ):
        return malformed(f"{section.body_size} bytes are no {section.base} columns of {section.count} numbers")
    return 0


cdef inline uint32_t next_chunk(const Section* section, uint32_t number, uint32_t left) noexcept:
    """The tasks in the chunk with this number, from 0 in its slice, which has so many tasks left."""
    cdef uint64_t size = section.lead
    if number:
        size = <uint64_t>section.size + (number <= section.larger)
    return left if size > left else <uint32_t>size


def read_batch(batch):
    """The sections of a batch: (job, format, head, parts), the parts as (number, tasks). Raises ProtocolError."""
    cdef _Reader src = _Reader(batch)
    cdef Section section
    cdef uint32_t number, left, size
    cdef list sections = [], parts
    for _ in range(get_u32(take(src, BATCH_SIZE) + 8)):
        get_section(src, &section)
        parts = []
        number = 0
        left = section.count
        while left:
            size = next_chunk(&section, number, left)
            parts.append((<uint64_t>section.part + number, size))
            number += 1
            left -= size
        sections.append((section.job, section.format, some(section.head, section.head_size), parts))
    finish(src)
    return sections


cdef int check_batch(_Reader src) except -1:
    """That the bytes are a batch."""
    cdef Section section
    for _ in range(get_u32(take(src, BATCH_SIZE) + 8)):
        get_section(src, &section)
    return finish(src)
