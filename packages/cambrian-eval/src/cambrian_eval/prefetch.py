"""Work on the CPU done ahead, in a thread, while the model answers what is ready."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from concurrent.futures import Future

    from cambrian_eval.types import Prompt


def prepared_ahead(
    prepare: Callable[[Sequence[Prompt]], Any], batches: Iterable[tuple[int, Sequence[Prompt]]], ahead: int
) -> Generator[tuple[int, Sequence[Prompt], Any], None, None]:
    """Numbered batches in their order, each prepared; meanwhile up to `ahead` further ones are.

    What goes wrong in the thread is raised here, at the batch that it belongs to. Leaving early drops what was not
    begun and waits for the batch in work, so that no thread outlives the run.
    """
    waiting: deque[tuple[int, Sequence[Prompt], Future[Any]]] = deque()
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")
    try:
        for number, prompts in batches:
            waiting.append((number, prompts, thread.submit(prepare, prompts)))
            if len(waiting) > ahead:
                yield _result(waiting)
        while waiting:
            yield _result(waiting)
    finally:
        thread.shutdown(wait=True, cancel_futures=True)


def _result(
    waiting: deque[tuple[int, Sequence[Prompt], Future[Any]]],
) -> tuple[int, Sequence[Prompt], Any]:
    number, prompts, future = waiting.popleft()
    return number, prompts, future.result()
