"""Work on images in threads, a bounded amount ahead of whoever takes the results in order.

Threads suffice: OpenCV decodes and resizes without Python's lock, nothing is copied between
processes, and an error reaches the consumer.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any, Callable, Deque, Generator, Iterable, List, Sequence, Tuple, TypeVar

import cv2

Result = TypeVar("Result")


def map_groups(
    function: Callable[..., Result],
    groups: Iterable[Sequence[Tuple[Any, ...]]],
    workers: int,
    ahead: int,
) -> Generator[List[Result], None, None]:
    """Call ``function`` with each tuple of arguments of every group; yield the results by group.

    Close it, by ``contextlib.closing``, when the rest is not wanted: what waits is then dropped.

    Args:
        workers: threads; 0 computes every group when it is asked for.
        ahead: groups that may be under way at once.

    Raises:
        Exception: what ``function`` raises, at its place in the order.
    """
    cv2.setNumThreads(0)  # one thread per image; OpenCV's own would only get in their way
    if workers == 0:
        for group in groups:
            yield [function(*arguments) for arguments in group]
        return
    with ThreadPoolExecutor(workers, "images") as pool:
        pending: Deque[List[Future]] = deque()
        try:
            for group in groups:
                pending.append([pool.submit(function, *arguments) for arguments in group])
                if len(pending) >= ahead:
                    yield _first(pending)
            while pending:
                yield _first(pending)
        finally:  # an error, or a consumer that has seen enough
            for future in chain.from_iterable(pending):
                future.cancel()


def _first(pending: Deque[List[Future]]) -> List[Any]:
    results = [future.result() for future in pending[0]]
    pending.popleft()
    return results
