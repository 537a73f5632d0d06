"""Batch concurrent requests into one predict call; a lone request never waits.

A pipeline takes nearly as long for one row as for hundreds, so requests that arrive during a call are gathered for the
next one.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from bentos.endpoint.batch import Batch
from bentos.endpoint.problems import Problem
from pipeline.predict import Answers

Predicted = Answers | Problem | Exception
MAX_ROWS = 1024
"""The maximum number of rows in one call; further rows wait for the next."""


class MicroBatcher:
    """Gathers batches and predicts them together.

    `predict_all` predicts several batches in one call, in a thread of `threads`; `count_rows` is called with the number
    of rows of every call.
    """

    def __init__(
        self,
        predict_all: Callable[[Sequence[Batch]], list[Predicted]],
        threads: Executor,
        count_rows: Callable[[int], None],
    ) -> None:
        self.predict_all, self.threads, self.count_rows = predict_all, threads, count_rows
        self.waiting: list[tuple[Batch, asyncio.Future[Predicted]]] = []
        self.busy = False

    def predict(self, batch: Batch) -> "asyncio.Future[Predicted]":
        """Return a future of the answers to a batch; one of MAX_ROWS or more does not wait for others."""
        future: asyncio.Future[Predicted] = asyncio.get_running_loop().create_future()
        if batch.size >= MAX_ROWS:
            self._start([(batch, future)], self._resolve)
        else:
            self.waiting.append((batch, future))
            if not self.busy:
                self._next()
        return future

    def _next(self) -> None:
        rows, count = 0, 0
        for batch, _ in self.waiting:
            if count and rows + batch.size > MAX_ROWS:
                break
            rows, count = rows + batch.size, count + 1
        now, self.waiting = self.waiting[:count], self.waiting[count:]
        self.busy = bool(now)
        if now:
            self._start(now, self._ended)

    def _start(self, now: list[tuple[Batch, "asyncio.Future[Predicted]"]], ended: Callable[..., None]) -> None:
        self.count_rows(sum(batch.size for batch, _ in now))
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self.threads, self.predict_all, [batch for batch, _ in now])
        work.add_done_callback(lambda done: ended([future for _, future in now], done))

    def _resolve(self, futures: "list[asyncio.Future[Predicted]]", done: "asyncio.Future[list[Predicted]]") -> None:
        error = done.exception()
        answers: list[Predicted] = done.result() if error is None else [error] * len(futures)  # type: ignore[list-item]
        for future, answer in zip(futures, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    def _ended(self, futures: "list[asyncio.Future[Predicted]]", done: "asyncio.Future[list[Predicted]]") -> None:
        self._resolve(futures, done)
        self._next()
