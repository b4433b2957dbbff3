# cython: boundscheck=False, wraparound=False, auto_pickle=False
"""Finds the descendants of a process in /proc (proc(5)) and kills them, without the interpreter.

When its process has to end, a task may hold the interpreter, or may have closed descriptors. So this code makes system
calls only: it allocates no memory and takes no lock, so that a signal handler can run it too.
"""

from cpython.exc cimport PyErr_SetFromErrno

from taskengine.protocol.release import check_build

include "_release.pxi"
check_build(__name__, TASKENGINE_RELEASE.decode())

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <poll.h>
    #include <pthread.h>
    #include <signal.h>
    #include <string.h>
    #include <sys/prctl.h>
    #include <sys/syscall.h>
    #include <sys/time.h>
    #include <time.h>
    #include <unistd.h>

    #define MOST 32768        /* processes that are looked at, which is the kernel's default for pid_max */
    #define PASSES 150
    #define PAUSE_NS 1000000
    #define STACK (256 * 1024)
    #define TOLD (SIGRTMAX - 3)  /* that the parent has ended */

    struct relation { pid_t pid, parent; char state; };

    struct view {
        struct relation table[MOST];
        pid_t family[MOST];
        char names[32768];
    };

    static struct view called;   /* for the thread that has the interpreter, */
    static struct view ending;   /* and for the thread or handler that ends the process, also in the middle of a call */
    static pid_t supervisor;

    static void nap(long ns) {
        struct timespec pause = {0, ns};
        nanosleep(&pause, NULL);
    }

    static pid_t number(const char* text, const char* end) {
        pid_t value = 0;
        for (; text < end && *text >= '0' && *text <= '9'; text++) value = 10 * value + (*text - '0');
        return value;
    }

    /* Read the state and the parent of a process; return 0 if it is gone. */
    static int relate(const char* name, struct relation* one) {
        char path[32] = "/proc/", text[512], *last;
        size_t length = strlen(name);
        ssize_t size;
        int fd;
        if (length > 12) return 0;
        memcpy(path + 6, name, length);
        memcpy(path + 6 + length, "/stat", 6);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) return 0;
        size = read(fd, text, sizeof text);
        close(fd);
        if (size <= 0) return 0;
        last = (char*) memrchr(text, ')', size);  /* its name, in brackets, may hold anything */
        if (last == NULL || text + size - last < 6) return 0;
        one->pid = number(name, name + length);
        one->state = last[2];
        one->parent = number(last + 4, text + size);
        return 1;
    }

    /* Fill the table; return how many processes there are, -1 without a /proc. */
    static int look_around(struct view* view) {
        int count = 0, proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        long size, at;
        if (proc < 0) return -1;
        while ((size = syscall(SYS_getdents64, proc, view->names, sizeof view->names)) > 0) {
            for (at = 0; at < size;) {
                char* name = view->names + at + 19;  /* linux_dirent64: inode, offset, length, type, name */
                unsigned short length;
                memcpy(&length, view->names + at + 16, 2);
                at += length;
                if (*name >= '1' && *name <= '9' && count < MOST) count += relate(name, &view->table[count]);
            }
        }
        close(proc);
        return count;
    }

    /* Kill the descendants of a process; return how many had not ended. */
    static int kill_below(struct view* view, pid_t root) {
        int count = look_around(view), known = 1, living = 0, at, i;
        view->family[0] = root;
        for (at = 0; at < known; at++) {
            for (i = 0; i < count && known < MOST; i++) {
                struct relation* one = &view->table[i];
                if (one->parent != view->family[at]) continue;
                view->family[known++] = one->pid;
                kill(one->pid, SIGKILL);
                living += one->state != 'Z' && one->state != 'X';
            }
        }
        return living;
    }

    /* Kill again and again, since killed processes leave children that were being forked; return 0 if none is left. */
    static int kill_all_below(struct view* view, pid_t root) {
        int pass, quiet = 0;
        for (pass = 0; pass < PASSES && quiet < 2; pass++) {
            if (kill_below(view, root)) {
                quiet = 0;
                nap(PAUSE_NS);
            } else quiet++;
        }
        return quiet < 2;
    }

    static void end_with_descendants(int signal) {
        static int has_begun;
        if (__atomic_exchange_n(&has_begun, 1, __ATOMIC_ACQ_REL)) {
            for (;;) pause();  /* another thread does it already */
        }
        kill_all_below(&ending, getpid());
        kill(getpid(), SIGKILL);
    }

    static void handle(int number, void (*handler)(int)) {
        struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
        sigfillset(&action.sa_mask);
        sigaction(number, &action, NULL);
    }

    static void end_if_orphan(int signal) {
        if (getppid() != supervisor) end_with_descendants(signal);
    }

    /* The kernel tells this thread by a signal; a descriptor could be closed by a task, or used. */
    static void* tend(void* unused) {
        sigset_t signals;
        sigfillset(&signals);  /* the others are for the other threads */
        pthread_sigmask(SIG_BLOCK, &signals, NULL);
        sigdelset(&signals, TOLD);
        prctl(PR_SET_PDEATHSIG, TOLD);
        while (getppid() == supervisor) sigsuspend(&signals);
        end_with_descendants(0);
        return NULL;
    }

    static int start_tending(pid_t parent) {
        pthread_attr_t attributes;
        pthread_t thread;
        sigset_t told;
        int error;
        supervisor = parent;
        handle(TOLD, end_if_orphan);
        sigemptyset(&told);
        sigaddset(&told, TOLD);
        pthread_sigmask(SIG_BLOCK, &told, NULL);  /* this thread may be held up */
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, STACK);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        error = pthread_create(&thread, &attributes, tend, NULL);
        pthread_attr_destroy(&attributes);
        errno = error;
        return error;
    }

    static void end_after(int pidfd, long last_ms) {
        struct pollfd process = {.fd = pidfd, .events = POLLIN};
        struct itimerval timer = {.it_value = {last_ms / 1000, 1000 * (last_ms % 1000)}};
        sigset_t signals;
        sigfillset(&signals);  /* they are for the other threads */
        pthread_sigmask(SIG_BLOCK, &signals, NULL);
        while (poll(&process, 1, -1) < 0 && errno == EINTR) {}
        handle(SIGALRM, end_with_descendants);
        sigemptyset(&signals);
        sigaddset(&signals, SIGALRM);
        pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
        setitimer(ITIMER_REAL, &timer, NULL);
    }
    """
    struct relation:
        int pid
        int parent
        char state
    struct view:
        relation* table
    view called
    int look_around(view* view) noexcept nogil
    int kill_all_below(view* view, int root) noexcept nogil
    int start_tending(int parent) noexcept nogil
    void end_after(int pidfd, long last_ms) noexcept nogil


def children_of(int parent):
    """Return the children of a process: their pids, and whether each has ended and waits to be reaped."""
    cdef int i, count = look_around(&called)
    return [
        (called.table[i].pid, called.table[i].state == b"Z") for i in range(count) if called.table[i].parent == parent
    ]


def end_descendants(int root):
    """Kill all descendants of a process; return whether none was left within about 0.2 s."""
    return kill_all_below(&called, root) == 0


def end_with_parent(int parent):
    """Start a thread that ends this process, after its descendants, when `parent` is not its parent any more.

    Raises OSError where no thread can be started.
    """
    if start_tending(parent):
        PyErr_SetFromErrno(OSError)


def await_end(int pidfd, long last_ms):
    """Wait for the end of a process, by its pidfd. Within `last_ms` ms after that, this process and its descendants end.

    None of this waits for the interpreter: a task may hold it for any time.
    """
    with nogil:
        end_after(pidfd, last_ms)
