"""Work on what several requests ask at once, in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class Batcher(Generic[Asked, Answered]):
    """Collects what is asked while earlier batches are worked on, and a short while longer.

    Args:
        work: from what is asked to the answers, in order; runs in ``executor``. An exception is
            raised to all who asked.
        executor: with one thread, so that one batch runs at a time.
        most: largest batch.
        wait: seconds that a request waits for others at most.
        observe: called with the size of each batch.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Asked]], Sequence[Answered]],
        executor: Executor,
        most: int = 64,
        wait: float = 0.002,
        observe: Callable[[int], object] = lambda size: None,
    ) -> None:
        self.work, self.executor, self.most, self.wait = work, executor, most, wait
        self.observe = observe
        self._queue: asyncio.Queue[tuple[Asked, asyncio.Future[Answered]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, asked: Asked) -> Answered:
        """Return the answer, worked out together with what others ask."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((asked, future))
        return await future

    async def stop(self) -> None:
        """Answer what was asked, then end."""
        if self._task is not None:
            await self._queue.join()
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            taken = [await self._queue.get()]
            try:
                if self._queue.empty() and self.wait:
                    await asyncio.sleep(self.wait)
                while len(taken) < self.most and not self._queue.empty():
                    taken.append(self._queue.get_nowait())
                # Without those who asked and have gone.
                await self._answer([each for each in taken if not each[1].done()])
            finally:
                for _ in taken:
                    self._queue.task_done()

    async def _answer(self, batch: Sequence[tuple[Asked, asyncio.Future[Answered]]]) -> None:
        if not batch:
            return
        self.observe(len(batch))
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(
                self.executor, self.work, [asked for asked, _ in batch]
            )
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
