"""Sends what stops the machine by every route at once, also where a client's user calls it as any other task."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec

from taskengine.client.calls import Call, Order, identified, order_of, stops_machine
from taskengine.client.connection import local_time
from taskengine.client.requests import Options, OutgoingRequest
from taskengine.client.session import STOPPABLE, Session
from taskengine.client.stopping import STOP_S, Stopping, Target, first_of, new_id, new_order
from taskengine.client.task_future import TaskFuture
from taskengine.client.transport import Transport
from taskengine.errors import TaskEngineError
from taskengine.protocol.layouts import COUNT
from taskengine.protocol.messages import RequestKind

Posted = tuple[OutgoingRequest, Future[Any]]


class StopRequests:
    """The stops of one client: by its own connection, which is `link`, and by the routes that only stops take.

    `target` returns the engine to stop, by what is known of it now.
    """

    def __init__(self, session: Session, link: Transport, target: Callable[[], Target]) -> None:
        self._session = session
        self._link = link
        self._target = target

    def call(self, call: Call, options: Options, future: Future[Any]) -> TaskFuture:
        """Stop the machine, as a call of a task asks; return the outcome. `future` is for the request to the router.

        There is such a request only if the engine is known: the other routes find out what it understands.
        """
        made, order, info = local_time(), order_of(call, new_id()), self._session.info
        options = msgspec.structs.replace(options, priority="urgent")

        def outgoing() -> OutgoingRequest:
            if info is not None and STOPPABLE in info.capabilities:
                return self._session.request(RequestKind.STOP, future, options, list(order))
            return self._session.package([call], [future], options, each=True, made=made)

        return self._send(order, options.timeout, None if info is None else future, outgoing, None)

    def urged(self, posted: Posted, timeout: float | None) -> Posted | Future[Any]:
        """Return a package as it is to be sent: urgent if its tasks only stop something.

        A package that stops the machine goes by every route as well. If it does nothing else, return the outcome of all
        routes, which give up after `timeout` s.
        """
        outgoing, future = posted
        request, known = outgoing.request, self._session.stop_tasks
        if known.isdisjoint(request.names) and not any(map(stops_machine, request.names)):
            return posted
        stops = [name for name in request.names if stops_machine(name)]
        if all(name in known or name in stops for name in request.names):
            outgoing = self._session.urge(outgoing)
        if not stops:
            return outgoing, future
        order = new_order()
        if not request.columns:
            try:
                index, body = outgoing.body
                frames, order = identified(request.names, index, body, order.id)
            except BaseException:  # the machine stops also where its calls cannot be read
                Stopping(self._target(), order).begin()
                self._session.forget(outgoing.serial)
                raise
            outgoing = self._session.replace(outgoing._replace(body=frames))
            if len(stops) == len(request.names):
                return self._send(order, timeout, future, lambda: outgoing, [None] * (len(frames[0]) // COUNT.size))
        Stopping(self._target(), order).begin()
        return outgoing, future

    def _send(
        self,
        order: Order,
        timeout: float | None,
        future: Future[Any] | None,
        outgoing: Callable[[], OutgoingRequest],
        value: Any,
    ) -> TaskFuture:
        """Stop the machine by every route, and by a request if it has a future; the first success gives `value`."""
        stopping = Stopping(self._target(), order, min(STOP_S, timeout or STOP_S))
        outcome = TaskFuture(self._link.retract)
        outcome.is_sent = True
        stopping.begin()
        if future is not None:
            try:
                self._link.post(outgoing())
            except TaskEngineError as error:
                future.set_exception(error)
        first_of(outcome, value, [stopping.future] if future is None else [stopping.future, future], stopping.cease)
        return outcome
