"""A file from a web server, in pieces, of which none takes for ever.

requests bounds the time between two bytes and not that of an answer, so a server that sends a byte
now and then, in its header or after it, could keep us for years. Here a thread reads, and whoever
wants the pieces waits for the next one only so long.
"""

import queue
import re
import threading
from typing import Iterator, Optional, Union

import requests

PATIENCE = 60.0  # seconds for the header, and for each piece
PIECE = 1 << 16  # so that at least 1.1 kB/s are needed
_CONNECT = 10.0  # seconds
_AS_IS = {"Accept-Encoding": "identity"}  # so that Content-Length is the file's


class TransferError(OSError):
    """Why a file could not be had, for a message."""


class _Session(requests.Session):
    def get_redirect_target(self, response: requests.Response) -> Optional[str]:
        """Where the server sends us on to; what was asked for in private must stay so."""
        target = super().get_redirect_target(response)
        if target and response.url.startswith("https:") and target.lower().startswith("http:"):
            raise TransferError("leads from https to http, where anybody could change the file")
        return target


class Transfer:
    """What a GET request gives.

    Args:
        url: http or https.
        start: how many bytes are at hand already. The answer goes on after them, with the status
            206, if the server still has the same file.
        validator: what the server said of the file then, an ETag or a date.

    Raises:
        TransferError: when no header comes in time, or nothing can be had.
    """

    def __init__(self, url: str, start: int = 0, validator: str = ""):
        self.status = 0
        self.length: Optional[int] = None  # of what comes, where the server says so
        self.validator = ""  # an ETag or a date by which the file is known again
        self._headers = {**_AS_IS}
        if start and validator:
            self._headers.update({"Range": f"bytes={start}-", "If-Range": validator})
        self._start = start
        self._url = url
        self._given_up = threading.Event()
        self._pieces: queue.Queue[Union[bytes, BaseException, None]] = queue.Queue(16)
        # Nothing ends a thread that waits for a socket: it must not keep the program from ending.
        threading.Thread(target=self._read, name="download", daemon=True).start()
        self._next()  # the header's place

    def __iter__(self) -> Iterator[bytes]:
        """The content's pieces.

        Raises:
            TransferError: when it breaks off, or is too slow.
        """
        while True:
            piece = self._next()
            if piece is None:
                return
            yield piece

    def close(self) -> None:
        """Want no more of it."""
        self._given_up.set()

    def _next(self) -> Optional[bytes]:
        try:
            piece = self._pieces.get(timeout=PATIENCE)
        except queue.Empty:
            self.close()
            raise TransferError(f"less than {PIECE} bytes in {PATIENCE:g} seconds") from None
        if isinstance(piece, BaseException):
            raise piece if isinstance(piece, TransferError) else TransferError(reason(piece))
        return piece

    def _read(self) -> None:
        try:
            timeout = (_CONNECT, PATIENCE)
            with _Session() as session, session.get(
                self._url, stream=True, timeout=timeout, headers=self._headers
            ) as response:
                length = response.headers.get("Content-Length", "")
                self.length = int(length) if length.isdecimal() else None
                self.status = response.status_code
                self.validator = _validator(response)
                begins = response.headers.get("Content-Range", "").startswith
                if self.status == 206 and not begins(f"bytes {self._start}-"):
                    raise TransferError("goes on at another place than was asked for")
                wanted = self._put(b"")
                pieces = response.iter_content(PIECE)
                while wanted:
                    piece = next(pieces, None)
                    wanted = self._put(piece) and piece is not None
        except Exception as error:  # of any kind: it is raised where somebody waits for it
            self._put(error)

    def _put(self, item: Union[bytes, BaseException, None]) -> bool:
        """Whether anybody wants it."""
        while not self._given_up.is_set():
            try:
                self._pieces.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False


def _validator(response: requests.Response) -> str:
    """An ETag that is of every byte, or else the date of the last change."""
    tag = response.headers.get("ETag", "")
    strong = tag.startswith('"') and len(tag) < 200 and tag.isprintable()
    return tag if strong else response.headers.get("Last-Modified", "")[:64]


def reason(error: BaseException) -> str:
    """A few words about an error of requests or of the operating system."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection, such as for a certificate that is not trusted"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return without_password(" ".join(str(error).split())) or type(error).__name__


def without_password(text: str) -> str:
    """``text`` in which the names and passwords of addresses are hidden."""
    return re.sub(r"(?<=://)[^/\s]*@", "***@", text)
