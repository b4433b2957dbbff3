"""The engine's own recorder, a process beside the others: it records all topics into the folder RECORD.

It is a client, which the engine lets in by a key that is in no file. Where it cannot write it says so once, tries again
every RETRY_S, and holds up nobody.
"""

from __future__ import annotations

import threading

from taskengine.client.blocking import Client
from taskengine.config.places import expanded
from taskengine.config.settings import Settings
from taskengine.errors import EngineUnreachable, TaskEngineError, TaskTimeout
from taskengine.recording.mending import mend_all
from taskengine.recording.recorder import Recorder, about
from taskengine.recording.writing import Bounds, RecordingFiles
from taskengine.runtime.control import Online, StopProcess
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.security.credentials import Credentials
from taskengine.security.keys import Membership

NAME = "RECORDER"
RETRY_S = 60.0
"""The pause after a recording that ended because the disk takes no more,"""
ENGINE_S = 0.2
"""and after one for which the engine gave no answer, as while it starts."""
END_S = 5.0
"""How long the recording may take to end when the engine does."""
FILES_IN_BOUND = 16
"""A file has at most this part of RECORD_BYTES, so that most of the past is kept when the oldest goes."""
_HERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  # the address to connect to, for an address to bind to


class InnerClient(Client):
    """A client of the engine that it is a part of, let in by the engine's own key, if there are keys."""

    def __init__(self, address: str, security: Credentials | None) -> None:
        known = Membership(address, security.engine.public, NAME, security.watcher) if security else None
        self._find_membership = lambda *_, **__: known
        super().__init__(address, NAME, insecure=True)


class EngineRecorder:
    """Records again and again, until it is told to stop."""

    def __init__(self, settings: Settings, security: Credentials | None, log: LogBuffer) -> None:
        self._folder = expanded("record", settings.record)
        self._bounds = Bounds(
            file_bytes=min(Bounds().file_bytes, settings.record_bytes // FILES_IN_BOUND),
            all_bytes=settings.record_bytes,
        )
        host = _HERE.get(settings.host) or (f"[{settings.host}]" if ":" in settings.host else settings.host)
        self._client = InnerClient(f"tcp://{host}:{settings.router_frontend}", security)
        self._log = log
        self._stopping = threading.Event()
        self._recorder: Recorder | None = None
        self._failure = ""

    def stop(self) -> None:
        """End the recording."""
        self._stopping.set()
        if self._recorder is not None:
            self._recorder.stop()

    def run(self) -> None:
        """Record until `stop`, in a thread."""
        while not self._stopping.is_set():
            pause = ENGINE_S  # it starts, or a router is replaced
            try:
                self._record()
            except TaskEngineError as error:
                if not isinstance(error, EngineUnreachable | TaskTimeout):
                    pause = RETRY_S
                    self._tell(str(error))
            except OSError as error:
                pause = RETRY_S
                self._tell(f"{error.filename or self._folder} cannot be written: {error.strerror or error}")
            self._recorder = None
            self._stopping.wait(pause)
        self._client.close(0.0)

    def _record(self) -> None:
        info = self._client.options(timeout=END_S).info()
        self._folder.mkdir(parents=True, exist_ok=True)
        for mended in mend_all(self._folder):
            self._log.say(f"[RECORDER] Mended {mended.path}: it has {mended.messages} messages")
        files = RecordingFiles(self._folder, self._bounds, about(info, self._client.address, "*"))
        self._recorder = Recorder(self._client, ["*"], files)
        if self._stopping.is_set():
            self._recorder.stop()
        self._recorder.run()

    def _tell(self, failure: str) -> None:
        """Log why the recording ended, once until it has another reason."""
        if failure != self._failure:
            self._failure = failure
            self._log.warn(f"[RECORDER] {failure}; trying again every {RETRY_S:g} s")
            self._log.flush()


def run(settings: Settings, security: Credentials | None, control: ControlChannel, log: LogBuffer) -> None:
    """Record until the supervisor says stop, or is gone."""
    recorder = EngineRecorder(settings, security, log)
    thread = threading.Thread(target=recorder.run, daemon=True)
    thread.start()
    log.say(f"Starting [RECORDER] into {settings.record}")
    log.flush()
    control.send(Online())
    while not isinstance(control.next_order(), StopProcess):
        pass
    recorder.stop()
    thread.join(END_S)
