"""Requests that wait at the same time are predicted together; a lone one never waits.

A pipeline costs nearly as much for one row as for hundreds, so while it predicts, what arrives is gathered.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from bentos.endpoint.batch import Batch
from bentos.endpoint.problems import Problem
from pipeline.predict import Answers

Predicted = Answers | Problem | Exception
MAX_ROWS = 1024
"""How many rows are gathered at most; the others go next."""


class MicroBatcher:
    """Gathers batches for `ask`, which answers several at once, in a thread of `threads`."""

    def __init__(
        self,
        ask: Callable[[Sequence[Batch]], list[Predicted]],
        threads: Executor,
        told: Callable[[int], None],
    ) -> None:
        self.ask_all, self.threads, self.told = ask, threads, told
        self.waiting: list[tuple[Batch, asyncio.Future[Predicted]]] = []
        self.busy = False

    def predict(self, batch: Batch) -> "asyncio.Future[Predicted]":
        """Return the answers to a batch, to come; a batch as large as what is gathered at most goes alone, at once."""
        future: asyncio.Future[Predicted] = asyncio.get_running_loop().create_future()
        if batch.size >= MAX_ROWS:
            self._start([(batch, future)], self._note)
        else:
            self.waiting.append((batch, future))
            if not self.busy:
                self._next()
        return future

    def _next(self) -> None:
        rows, taken = 0, 0
        for batch, _ in self.waiting:
            if taken and rows + batch.size > MAX_ROWS:
                break
            rows, taken = rows + batch.size, taken + 1
        now, self.waiting = self.waiting[:taken], self.waiting[taken:]
        self.busy = bool(now)
        if now:
            self._start(now, self._ended)

    def _start(self, now: list[tuple[Batch, "asyncio.Future[Predicted]"]], ended: Callable[..., None]) -> None:
        self.told(sum(batch.size for batch, _ in now))
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self.threads, self.ask_all, [batch for batch, _ in now])
        work.add_done_callback(lambda done: ended([future for _, future in now], done))

    def _note(self, futures: "list[asyncio.Future[Predicted]]", done: "asyncio.Future[list[Predicted]]") -> None:
        error = done.exception()
        answers: list[Predicted] = done.result() if error is None else [error] * len(futures)  # type: ignore[list-item]
        for future, answer in zip(futures, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    def _ended(self, futures: "list[asyncio.Future[Predicted]]", done: "asyncio.Future[list[Predicted]]") -> None:
        self._note(futures, done)
        self._next()
