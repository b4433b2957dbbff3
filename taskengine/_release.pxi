# The release that setup.py compiles for; "" in builds that do not say it.
cdef extern from *:
    """
    #ifndef TASKENGINE_RELEASE
    #define TASKENGINE_RELEASE ""
    #endif
    """
    const char* TASKENGINE_RELEASE
