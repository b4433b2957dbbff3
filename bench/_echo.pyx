# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""Measures raw libzmq on this machine: messages there and back over four hops, looped in C without the GIL.

client DEALER -> ROUTER, router, DEALER -> worker DEALER, and back. libzmq is pyzmq's own, looked up at import as in
taskengine/_socket.pyx. The sockets are pyzmq's; a function gets the handle of one, `Socket.underlying`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

import zmq

cdef extern from "dlfcn.h" nogil:
    void* dlopen(const char* path, int flags)
    void* dlsym(void* library, const char* name)
    int RTLD_NOW

cdef extern from "time.h" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* now)
    int CLOCK_MONOTONIC

cdef extern from "poll.h" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int ppoll(pollfd* fds, unsigned long count, const timespec* timeout, const void* mask)

cdef struct Message:
    unsigned char opaque[64]

cdef struct Item:
    void* socket
    int fd
    short events
    short revents

cdef enum:
    DONTWAIT = 1
    SNDMORE = 2
    READABLE = 1
    NUMBER_BYTES = 8

cdef int (*msg_init)(Message*) noexcept nogil
cdef int (*msg_init_size)(Message*, size_t) noexcept nogil
cdef void* (*msg_data)(Message*) noexcept nogil
cdef size_t (*msg_size)(const Message*) noexcept nogil
cdef int (*msg_more)(const Message*) noexcept nogil
cdef int (*msg_close)(Message*) noexcept nogil
cdef int (*msg_recv)(Message*, void*, int) noexcept nogil
cdef int (*msg_send)(Message*, void*, int) noexcept nogil
cdef int (*poll)(Item*, int, long) noexcept nogil
cdef int (*last_errno)() noexcept nogil


cdef void* look_up(void* library, const char* name) except NULL:
    cdef void* found = dlsym(library, name)
    if found is NULL:
        raise ImportError(f"pyzmq's libzmq has no {name.decode()}")
    return found


cdef int look_up_all() except -1:
    global msg_init, msg_init_size, msg_data, msg_size, msg_more, msg_close, msg_recv, msg_send, poll, last_errno
    cdef bytes path
    cdef void* library
    try:
        from zmq.backend.cython import _zmq as extension
    except ImportError:  # before pyzmq 26 there was an extension for each part
        from zmq.backend.cython import message as extension
    path = extension.__file__.encode()
    library = dlopen(path, RTLD_NOW)
    if library is NULL:
        raise ImportError(f"pyzmq's extension {path.decode()!r} cannot be opened")
    msg_init = <int (*)(Message*) noexcept nogil>look_up(library, "zmq_msg_init")
    msg_init_size = <int (*)(Message*, size_t) noexcept nogil>look_up(library, "zmq_msg_init_size")
    msg_data = <void* (*)(Message*) noexcept nogil>look_up(library, "zmq_msg_data")
    msg_size = <size_t (*)(const Message*) noexcept nogil>look_up(library, "zmq_msg_size")
    msg_more = <int (*)(const Message*) noexcept nogil>look_up(library, "zmq_msg_more")
    msg_close = <int (*)(Message*) noexcept nogil>look_up(library, "zmq_msg_close")
    msg_recv = <int (*)(Message*, void*, int) noexcept nogil>look_up(library, "zmq_msg_recv")
    msg_send = <int (*)(Message*, void*, int) noexcept nogil>look_up(library, "zmq_msg_send")
    poll = <int (*)(Item*, int, long) noexcept nogil>look_up(library, "zmq_poll")
    last_errno = <int (*)() noexcept nogil>look_up(library, "zmq_errno")
    return 0


look_up_all()


cdef inline int64_t clock() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef int pass_on(void* source, void* target, int flags) noexcept nogil:
    """Pass on the next message, frame by frame, as it is: 1, or 0 where none is there, or -1 for an error."""
    cdef Message frame
    cdef int more = 1, passed = 0
    msg_init(&frame)
    while more:
        if msg_recv(&frame, source, flags) < 0:
            msg_close(&frame)
            return 0 if not passed and last_errno() == EAGAIN else -1
        more = msg_more(&frame)
        if msg_send(&frame, target, SNDMORE if more else 0) < 0:
            msg_close(&frame)
            return -1
        passed = 1
    return passed


cdef int send(void* socket, const char* data, size_t size, int64_t number) noexcept nogil:
    """Send a message of `size` bytes, of which the first are `number` where that is not negative."""
    cdef Message frame
    if msg_init_size(&frame, size) < 0:
        return -1
    memcpy(msg_data(&frame), data, size)
    if number >= 0:
        memcpy(msg_data(&frame), &number, NUMBER_BYTES)
    if msg_send(&frame, socket, 0) < 0:
        msg_close(&frame)
        return -1
    return 0


def route(uintptr_t frontend, uintptr_t backend):
    """The router: pass on what comes, both ways, until the process ends. Raises ZMQError."""
    cdef Item items[2]
    cdef int passed = 0
    items[0].socket, items[1].socket = <void*>frontend, <void*>backend
    items[0].events = items[1].events = READABLE
    with nogil:
        while passed >= 0:
            if poll(items, 2, -1) < 0:
                if last_errno() == EINTR:
                    continue
                break
            passed = 1
            while passed > 0:
                passed = pass_on(items[1].socket, items[0].socket, DONTWAIT)
            if passed < 0:
                break
            passed = 1
            while passed > 0:
                passed = pass_on(items[0].socket, items[1].socket, DONTWAIT)
    raise zmq.ZMQError(last_errno())


def work(uintptr_t socket):
    """A worker: send back what comes until the process ends. Raises ZMQError."""
    cdef int passed = 1
    with nogil:
        while passed > 0:
            passed = pass_on(<void*>socket, <void*>socket, 0)
    raise zmq.ZMQError(last_errno())


def exchange(uintptr_t socket, bytes payload, int messages):
    """Send so many messages one after the other, receive as many, and give the bytes received. Raises ZMQError."""
    cdef const char* data = PyBytes_AS_STRING(payload)
    cdef size_t size = PyBytes_GET_SIZE(payload), received = 0
    cdef Message frame
    cdef int left = messages, failed = 0
    with nogil:
        while left and not failed:
            failed = send(<void*>socket, data, size, -1)
            left -= 1
        left = messages
        msg_init(&frame)
        while left and not failed:
            failed = msg_recv(&frame, <void*>socket, 0) < 0
            received += msg_size(&frame)
            left -= 1
        msg_close(&frame)
    if failed:
        raise zmq.ZMQError(last_errno())
    return received


def offer(uintptr_t socket, int fd, bytes payload, double rate, int count, double patience):
    """Send `count` messages at an even rate a second; the latencies in s, each from the instant it was due.

    `payload` has at least 8 bytes, `fd` is the socket's ZMQ_FD. An answer that has not come `patience` s after the
    last was sent has a negative latency. Raises ZMQError.
    """
    cdef const char* data = PyBytes_AS_STRING(payload)
    cdef size_t size = PyBytes_GET_SIZE(payload)
    cdef double* latencies
    cdef int failed, number
    if size < NUMBER_BYTES:
        raise ValueError(f"a payload of {size} bytes has no room for its number")
    latencies = <double*>calloc(count, sizeof(double))
    if latencies is NULL:
        raise MemoryError
    for number in range(count):
        latencies[number] = -1.0
    try:
        with nogil:
            failed = offer_all(<void*>socket, fd, data, size, rate, count, patience, latencies)
        if failed:
            raise zmq.ZMQError(last_errno())
        return [latencies[number] for number in range(count)]
    finally:
        free(latencies)


cdef int offer_all(
    void* socket, int fd, const char* data, size_t size, double rate, int count, double patience, double* latencies
) noexcept nogil:
    cdef Message frame
    cdef pollfd ready
    cdef timespec wait
    cdef int sent = 0, answered = 0
    cdef int64_t start = clock(), now, due, number, apart = <int64_t>(1e9 / rate)
    cdef int64_t end = start + <int64_t>(1e9 * (count / rate + patience))
    ready.fd, ready.events = fd, READABLE
    msg_init(&frame)
    while True:
        now = clock()
        while sent < count and start + sent * apart <= now:
            if send(socket, data, size, sent) < 0:
                return -1
            sent += 1
        # until it says that there is no more: ZMQ_FD tells of a change once, and sending takes its news too
        while msg_recv(&frame, socket, DONTWAIT) >= 0:
            memcpy(&number, msg_data(&frame), NUMBER_BYTES)
            if 0 <= number < count:
                latencies[number] = (clock() - start - number * apart) / 1e9
                answered += 1
        if last_errno() != EAGAIN:
            return -1
        now = clock()
        due = start + sent * apart if sent < count else end
        if answered == count or now >= end:
            break
        if due > now:
            wait.tv_sec, wait.tv_nsec = (due - now) // 1000000000, (due - now) % 1000000000
            ppoll(&ready, 1, &wait, NULL)
    msg_close(&frame)
    return 0
