# cython: boundscheck=False, wraparound=False, auto_pickle=False
"""Sends and receives whole messages by pyzmq's own libzmq: one call for a message of any number of frames, one to wait.

libzmq is the one that pyzmq has loaded: its functions are looked up in pyzmq's extension at import, so that nothing is
linked, no header is needed, and one process has one libzmq. The types are those of zmq.h (API 4): a message is 64
opaque bytes. Where pyzmq does not show these functions, `taskengine._plain_socket` replaces the classes here.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport atoi, calloc, free, malloc, realloc, srand
from libc.string cimport memcpy

import os
import warnings

import zmq

from taskengine.protocol import limits
from taskengine.protocol.release import check_build

include "_release.pxi"
check_build(__name__, TASKENGINE_RELEASE.decode())

cdef extern from "endian.h" nogil:
    uint32_t htole32(uint32_t)

cdef extern from "dlfcn.h" nogil:
    void* dlopen(const char* path, int flags)
    void* dlsym(void* library, const char* name)
    int RTLD_NOW

cdef extern from *:
    """
    #define add_atomic(place, number) __atomic_add_fetch(place, number, __ATOMIC_ACQ_REL)
    #define get_atomic(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
    """
    long add_atomic(long* place, long number) noexcept nogil
    long get_atomic(long* place) noexcept nogil

cdef struct Account:
    long holders
    long unsent
    Account* whole  # what it is a part of

cdef struct Parcel:
    # the bytes of the message lie behind it
    Account* account
    long size

cdef struct Message:
    # 64 bytes, laid out like a pointer; zmq_msg_t has the same
    uint64_t opaque[8]

cdef struct Item:
    void* socket
    int fd
    short events
    short revents

cdef enum:
    DONTWAIT = 1
    SNDMORE = 2
    POLLIN = 1
    COUNTED = 34  # what is smaller lies in the message itself, of which the high-water mark has no more
    FRAME_BYTES = 128  # what a frame takes beside its bytes, about
    FIRST_PLACES = 64
    FIRST_KEPT = 1024  # bytes of a first frame from which on it is not kept, and nobody asks where it came from
    UNJOINED = 16  # frames of a message that has 5 at most, with its route

cdef uint64_t MAX_MESSAGE = limits.MAX_MESSAGE
cdef int (*msg_init)(Message*) noexcept nogil
cdef int (*msg_init_size)(Message*, size_t) noexcept nogil
cdef int (*msg_init_data)(Message*, void*, size_t, void (*)(void*, void*) noexcept nogil, void*) noexcept nogil
cdef void* (*msg_data)(Message*) noexcept nogil
cdef size_t (*msg_size)(const Message*) noexcept nogil
cdef int (*msg_more)(const Message*) noexcept nogil
cdef const char* (*msg_gets)(const Message*, const char*) noexcept nogil
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
    global msg_init, msg_init_size, msg_init_data, msg_data, msg_size, msg_more, msg_gets, msg_close, msg_recv, msg_send, poll, last_errno
    cdef bytes path
    cdef void* library
    if zmq.zmq_version_info()[0] != 4:
        raise ImportError(f"pyzmq has libzmq {zmq.zmq_version()}, not 4")
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
    msg_init_data = <int (*)(
        Message*, void*, size_t, void (*)(void*, void*) noexcept nogil, void*
    ) noexcept nogil>look_up(library, "zmq_msg_init_data")
    msg_data = <void* (*)(Message*) noexcept nogil>look_up(library, "zmq_msg_data")
    msg_size = <size_t (*)(const Message*) noexcept nogil>look_up(library, "zmq_msg_size")
    msg_gets = <const char* (*)(const Message*, const char*) noexcept nogil>look_up(library, "zmq_msg_gets")
    msg_more = <int (*)(const Message*) noexcept nogil>look_up(library, "zmq_msg_more")
    msg_close = <int (*)(Message*) noexcept nogil>look_up(library, "zmq_msg_close")
    msg_recv = <int (*)(Message*, void*, int) noexcept nogil>look_up(library, "zmq_msg_recv")
    msg_send = <int (*)(Message*, void*, int) noexcept nogil>look_up(library, "zmq_msg_send")
    poll = <int (*)(Item*, int, long) noexcept nogil>look_up(library, "zmq_poll")
    last_errno = <int (*)() noexcept nogil>look_up(library, "zmq_errno")
    return 0


cdef int fail() except -1:
    cdef int error = last_errno()
    raise zmq.Again() if error == EAGAIN else zmq.ZMQError(error)


cdef int let_go(Account* account) noexcept nogil:
    cdef Account* whole
    while account is not NULL and add_atomic(&account.holders, -1) == 0:
        whole = account.whole
        free(account)
        account = whole
    return 0


cdef int owe(Account* account, long size) noexcept nogil:
    while account is not NULL:
        add_atomic(&account.unsent, size)
        account = account.whole
    return 0


cdef void is_sent(void* data, void* hint) noexcept nogil:
    # called by ZeroMQ's own thread, without the GIL
    cdef Parcel* parcel = <Parcel*>hint
    owe(parcel.account, -parcel.size)
    let_go(parcel.account)
    free(parcel)


cdef Py_ssize_t size_of(object frame) except -1:
    """Return the size of a frame, which may be a list of pieces."""
    cdef Py_ssize_t size = 0
    if PyBytes_CheckExact(frame):
        return PyBytes_GET_SIZE(frame)
    if type(frame) is not list:
        raise TypeError(f"a frame is bytes or a list of bytes, not {type(frame).__name__}")
    for piece in <list>frame:
        if not PyBytes_CheckExact(piece):
            raise TypeError(f"a piece of a frame is bytes, not {type(piece).__name__}")
        size += PyBytes_GET_SIZE(piece)
    return size


cdef int copy(void* data, object frame) except -1:
    """Copy a frame, or its pieces end to end, to `data`."""
    cdef char* at = <char*>data
    if PyBytes_CheckExact(frame):
        memcpy(at, PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
        return 0
    for piece in <list>frame:
        memcpy(at, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
        at += PyBytes_GET_SIZE(piece)
    return 0


cdef str user_of(const Message* message):
    cdef const char* user = msg_gets(message, b"User-Id")
    return "" if user is NULL else user.decode("ascii", "replace")


@cython.final
cdef class Debt:
    """Counts the bytes of messages that ZeroMQ still holds because their receiver does not read.

    They count for the `whole`, too.
    """

    cdef Account* _account

    def __cinit__(self, Debt whole=None):
        self._account = <Account*>calloc(1, sizeof(Account))
        if self._account is NULL:
            raise MemoryError
        self._account.holders = 1
        if whole is not None:
            add_atomic(&whole._account.holders, 1)
            self._account.whole = whole._account

    def __dealloc__(self):
        if self._account is not NULL:
            let_go(self._account)

    @property
    def unsent(self):
        """The bytes that ZeroMQ holds, of frames from COUNTED bytes on, with FRAME_BYTES more for each."""
        return get_atomic(&self._account.unsent)

    cdef int fill(self, Message* message, object frame, Py_ssize_t size) except -1:
        """Make a message of a frame; its bytes count until ZeroMQ has sent it."""
        cdef Parcel* parcel = <Parcel*>malloc(sizeof(Parcel) + size)
        if parcel is NULL:
            raise MemoryError
        parcel.account = self._account
        parcel.size = size + FRAME_BYTES
        copy(parcel + 1, frame)
        if msg_init_data(message, parcel + 1, size, is_sent, parcel) < 0:
            free(parcel)
            raise MemoryError
        add_atomic(&self._account.holders, 1)
        owe(self._account, parcel.size)
        return 0


@cython.final
cdef class _Pile:
    """Frames laid end to end, and the end of each. If they have more than MAX_MESSAGE bytes, they are left out."""

    cdef char* data
    cdef size_t room
    cdef uint32_t* ends
    cdef size_t places
    cdef size_t count
    cdef uint64_t size

    def __dealloc__(self):
        free(self.data)
        free(self.ends)

    cdef int add(self, const void* frame, size_t size) except -1:
        cdef void* larger
        if self.count == self.places:
            larger = realloc(self.ends, 2 * (self.places + FIRST_PLACES) * sizeof(uint32_t))
            if larger is NULL:
                raise MemoryError
            self.ends = <uint32_t*>larger
            self.places = 2 * (self.places + FIRST_PLACES)
        if self.size + size <= MAX_MESSAGE:
            if self.size + size > self.room:
                larger = realloc(self.data, 2 * (self.room + size))
                if larger is NULL:
                    raise MemoryError
                self.data = <char*>larger
                self.room = 2 * (self.room + size)
            if size:  # where there is nothing yet, there is nowhere to copy to
                memcpy(self.data + self.size, frame, size)
        self.size += size
        self.ends[self.count] = htole32(<uint32_t>min(self.size, <uint64_t>0xffffffffu))
        self.count += 1
        return 0

    cdef tuple taken(self):
        index = PyBytes_FromStringAndSize(<char*>self.ends, self.count * sizeof(uint32_t))
        return index, PyBytes_FromStringAndSize(self.data, self.size if self.size <= MAX_MESSAGE else 0)


@cython.final
cdef class Port:
    """Sends and receives messages by a socket of pyzmq, which it keeps open. Only for the thread that has the socket.

    `user` is the user id that the authenticator gave to the sender of the last message, "" for none.
    """

    cdef Message _first  # the first frame of the last message, which says by which connection it came
    cdef object _socket
    cdef void* _handle
    cdef bint _is_gated
    cdef readonly str user

    def __cinit__(self, *args, **kwargs):
        msg_init(&self._first)

    def __dealloc__(self):
        msg_close(&self._first)

    def __init__(self, socket, *, bint is_gated=False):
        self._socket = socket
        self._is_gated = is_gated
        self.user = ""
        self._handle = <void*><uintptr_t>socket.underlying

    @property
    def peer(self):
        """The IP address that the last message came from; no IP address for a Unix socket; "" where it is not known."""
        cdef const char* peer = msg_gets(&self._first, b"Peer-Address")
        return "" if peer is NULL else peer.decode("ascii", "replace")

    @property
    def descriptor(self):
        """The file descriptor by which the last message came; -1 where it is not known."""
        cdef const char* number = msg_gets(&self._first, b"__fd")
        return -1 if number is NULL else atoi(number)

    def receive(self):
        """Return the frames of the next message, None where there is none. Raises ZMQError."""
        cdef Message message
        cdef Message* at = &self._first
        cdef list frames = []
        cdef bint more = True
        msg_init(&message)
        try:
            while more:
                # behind the first, frames are there: ZeroMQ delivers all of a message or nothing
                if msg_recv(at, self._handle, DONTWAIT) < 0:
                    if last_errno() == EINTR:
                        continue
                    if not frames and last_errno() == EAGAIN:
                        return None
                    fail()
                frames.append(PyBytes_FromStringAndSize(<char*>msg_data(at), msg_size(at)))
                more = msg_more(at)
                at = &message
            if self._is_gated:
                self.user = user_of(&message if len(frames) > 1 else &self._first)
        finally:
            msg_close(&message)
            if msg_size(&self._first) > FIRST_KEPT:
                msg_close(&self._first)
                msg_init(&self._first)
        return frames

    def receive_request(self, bytes unjoined not None, size_t most):
        """Return the next message of a client at a ROUTER as (frames, index, body), None where there is none.

        `frames` are the route, which ends with an empty delimiter if there is one, and the frame behind it. If that
        frame begins with `unjoined`, the other frames follow it. Else they lie end to end in `body`, and `index` has
        the end of each as a u32; the body is empty if they have more than limits.MAX_MESSAGE bytes. Frames beyond
        `most` are left out; where they are not joined, those beyond UNJOINED are too. Raises ZMQError.
        """
        cdef Message message
        cdef Message* first = &self._first
        cdef list frames = []
        cdef _Pile pile = None
        cdef bint more = True
        cdef size_t count = 0
        while msg_recv(first, self._handle, DONTWAIT) < 0:
            if last_errno() == EAGAIN:
                return None
            if last_errno() != EINTR:
                fail()
        frames.append(PyBytes_FromStringAndSize(<char*>msg_data(first), msg_size(first)))
        more = msg_more(first)
        count = 1
        msg_init(&message)
        try:
            while more:
                if msg_recv(&message, self._handle, DONTWAIT) < 0:
                    if last_errno() == EINTR:
                        continue
                    fail()
                more = msg_more(&message)
                count += 1
                if count > most or (pile is None and count > UNJOINED):
                    continue
                if pile is not None:
                    pile.add(msg_data(&message), msg_size(&message))
                    continue
                frame = PyBytes_FromStringAndSize(<char*>msg_data(&message), msg_size(&message))
                frames.append(frame)
                is_head = len(frames) == 2 and frame or len(frames) == 3 and not frames[1]
                if is_head and not frame.startswith(unjoined):
                    pile = _Pile()
            if self._is_gated:
                self.user = user_of(&message)
        finally:
            msg_close(&message)
        return (frames, *pile.taken()) if pile is not None else (frames, b"", b"")

    def send(self, frames, Debt debt=None):
        """Send a message, counted by `debt` if given; a frame is bytes, or a list of bytes that are joined.

        Raises ZMQError, and Again where nobody takes the message.
        """
        cdef Message message
        cdef Py_ssize_t left = len(frames), size
        for frame in frames:
            size_of(frame)  # raises before anything is sent, for half a message would join the next
        for frame in frames:
            left -= 1
            size = size_of(frame)
            if debt is not None and size >= COUNTED:
                debt.fill(&message, frame, size)
            elif msg_init_size(&message, size) < 0:
                raise MemoryError
            else:
                copy(msg_data(&message), frame)
            while msg_send(&message, self._handle, DONTWAIT | (SNDMORE if left else 0)) < 0:
                if last_errno() != EINTR:
                    msg_close(&message)
                    fail()


@cython.final
cdef class Waiter:
    """Waits until any of its sources can be read. Sources are ports and file descriptors, at most 30."""

    cdef tuple _sources
    cdef Item* _items
    cdef int _size

    def __init__(self, *sources):
        if len(sources) > 30:
            raise ValueError(f"a waiter has at most 30 sources, not {len(sources)}")
        free(self._items)
        self._items = <Item*>calloc(len(sources) + 1, sizeof(Item))
        if self._items is NULL:
            raise MemoryError
        self._sources = sources
        self._size = <int>len(sources)
        for number, source in enumerate(sources):
            self._items[number].events = POLLIN
            if isinstance(source, Port):
                self._items[number].socket = (<Port>source)._handle
            else:
                self._items[number].fd = source

    def __dealloc__(self):
        free(self._items)

    def wait(self, long timeout_ms):
        """Wait; return a number with bit i set if source i is ready, 0 after `timeout_ms` (-1 for never) or a signal.

        Raises ZMQError.
        """
        cdef int count, number, ready = 0
        with nogil:
            count = poll(self._items, self._size, timeout_ms)
        if count < 0:
            if last_errno() != EINTR:
                fail()
            PyErr_CheckSignals()
            return 0
        if count:
            for number in range(self._size):
                if self._items[number].revents:
                    ready |= 1 << number
        return ready


def seed_ids(unsigned int seed):
    """Have the routing ids of this process's ROUTERs begin at `seed`. Call this before the first one is made."""
    srand(seed)


def _give_way():
    """Replace the classes of this module by those that use only pyzmq's own methods."""
    from taskengine import _plain_socket as plain
    globals().update(Debt=plain.PlainDebt, Port=plain.PlainPort, Waiter=plain.PlainWaiter, seed_ids=plain.seed_ids)


if os.environ.get("TASKENGINE_PLAIN_PYZMQ"):
    _give_way()
else:
    try:
        look_up_all()
    except ImportError as error:
        warnings.warn(
            f"taskengine is slower than it could be, since it does not know this pyzmq ({zmq.__version__}): {error}; "
            "pip install 'pyzmq>=25,<28'", RuntimeWarning, stacklevel=1
        )
        _give_way()
