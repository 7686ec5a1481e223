"""tools/serve.py through HTTP, and once in Chromium."""

import base64
import html
import http.client
import json
import re
import shutil
import socket
import subprocess
import threading

import cv2
import numpy as np
import pytest

from official.vision.classification import inference_model
from official.vision.classification.commands import serve
from official.vision.classification.data.image import read_image
from official.vision.classification.engine import flags
from official.vision.classification.engine.device import prepare
from official.vision.classification.inference import EXAMPLE
from official.vision.classification.zoo.trained import NetworkConfig, open_network

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
HOST = serve.HOST


@pytest.fixture(scope="module")
def network():
    network = open_network(NetworkConfig("resnet20_cifar"))
    prepare(network.model, "cpu", "fp32")
    return network


@pytest.fixture()
def server(network):
    """A server whose requests are taken; pictures are answered by ``ask``, in this thread."""
    args = flags.parse(serve.parser(), ["--port", "0", "--top-k", "3", "--lang", "en"])
    with serve.open_server(args, network) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def request(server, method, path="/", body=None, **headers):
    """Status and body; the connection is open until the answer is read."""
    port = server.server_address[1]
    connection = http.client.HTTPConnection(HOST, port, timeout=20)
    connection.request(
        method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
    )
    response = connection.getresponse()
    return response.status, response.read(), response.headers


def answered(server, body, **headers):
    """POST a picture, and do the server's work for it."""
    found = []
    headers = {"X_Token": server.token, **headers}
    asking = threading.Thread(
        target=lambda: found.append(request(server, "POST", "/answer", body, **headers))
    )
    asking.start()
    while asking.is_alive():
        worked(server)
        asking.join(0.02)
    status, body, _ = found[0]
    return status, json.loads(body)


def worked(server):
    """What ``Server.work`` does, until there is nothing to do."""

    class Done(Exception):
        pass

    class Jobs:
        def get(self):
            if server.jobs.empty():
                raise Done
            return server.jobs.get()

    class Now:
        jobs, answerer = Jobs(), server.answerer

    with pytest.raises(Done):
        serve.Server.work(Now())


def decoded(uri):
    data = base64.b64decode(uri.split(",")[1])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_the_answer_is_that_of_inference_model(server):
    status, told = answered(server, EXAMPLE.read_bytes())
    expected = inference_model("resnet20_cifar", str(EXAMPLE), top_k=3)["top_k"]
    assert status == 200
    assert [score["name"] for score in told["top"]] == [one["pred_class"] for one in expected]
    assert [score["probability"] for score in told["top"]] == pytest.approx(
        [one["pred_score"] for one in expected], abs=1e-6
    )
    height, width = read_image(str(EXAMPLE)).shape[:2]
    picture = decoded(told["picture"])
    assert picture.shape[0] / picture.shape[1] == pytest.approx(height / width, rel=0.01)
    assert len(told["heat"]) == 2
    for uri in told["heat"]:
        assert decoded(uri).shape == picture.shape
        assert np.abs(decoded(uri).astype(int) - picture).mean() > 3
    assert decoded(told["seen"]).shape == (32, 32, 3)


def test_colours_of_what_the_network_sees(server):
    """Red stays red, whatever the network's order of channels."""
    red = np.zeros((40, 40, 3), np.uint8)
    red[..., 2] = 255
    _, told = answered(server, cv2.imencode(".png", red)[1].tobytes())
    blue, _, seen = decoded(told["seen"]).reshape(-1, 3).mean(0)
    assert seen > 240 > 20 > blue


@pytest.mark.parametrize("body", [b"", b"no picture", b"\xff\xd8\xff cut short"])
def test_what_is_no_picture(server, body):
    status, told = answered(server, body)
    assert status == 200 and set(told) == {"error"}
    assert told["error"].startswith("the file") and "\n" not in told["error"]


def test_the_page(server):
    status, body, headers = request(server, "GET")
    text = body.decode()
    assert status == 200 and server.token in text
    assert "resnet20_cifar, 10 classes" in text and "interpolation" in text
    assert "connect-src 'self'" in html.unescape(text)
    assert headers["Cache-Control"] == "no-store" and headers["X-Frame-Options"] == "DENY"
    assert "Access-Control-Allow-Origin" not in headers
    assert request(server, "GET", "/etc/passwd")[0] == 404
    assert request(server, "GET", "/../README.md")[0] == 404


@pytest.mark.parametrize("host", ["evil.example:{}", "evil.example", "127.0.0.1", "localhost:1"])
def test_another_name_of_this_machine_is_refused(server, host):
    """DNS rebinding: a page of another host whose name has come to mean this machine."""
    host = host.format(server.server_address[1])
    for method, path in (("GET", "/"), ("POST", "/answer")):
        status, body, _ = request(server, method, path, X_Token=server.token, Host=host)
        assert status == 403 and server.token not in body.decode()
    assert server.jobs.empty()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X_Token": "x"},
        {"X_Token": "é"},
        {"X_Token": "{token}", "Origin": "https://evil.example"},
        {"X_Token": "{token}", "Origin": "null"},
    ],
)
def test_pages_of_others_cannot_ask(server, headers):
    headers = {name: value.format(token=server.token) for name, value in headers.items()}
    status, body, _ = request(server, "POST", "/answer", b"x", **headers)
    assert status == 403 and json.loads(body) == {"error": "only the page of this server may ask"}
    assert server.jobs.empty()


@pytest.mark.parametrize(
    ("length", "status"),
    [(str(51_000_000), 413), ("9" * 30, 411), ("-1", 411), ("x", 411), ("", 411)],
)
def test_what_is_too_large_is_not_read(server, length, status):
    with socket.create_connection((HOST, server.server_address[1]), timeout=20) as connection:
        lines = [
            *("POST /answer HTTP/1.1", f"Host: {HOST}:{server.server_address[1]}"),
            *(f"X-Token: {server.token}", f"Content-Length: {length}", "", ""),
        ]
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(100).split()[1] == str(status).encode()


def test_too_many_at_a_time(server):
    """Nobody works: so many wait, and the next is told so at once."""
    threads = []
    for _ in range(serve._WAITING):
        asking = (server, "POST", "/answer", b"x")
        threads.append(
            threading.Thread(target=request, args=asking, kwargs={"X_Token": server.token})
        )
        threads[-1].start()
    while not server.jobs.full():
        threads[0].join(0.01)
    assert request(server, "POST", "/answer", b"x", X_Token=server.token)[0] == 503
    for thread in threads:
        while thread.is_alive():
            worked(server)
            thread.join(0.02)


def test_it_listens_on_this_machine_only(server):
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken(server, network):
    port = str(server.server_address[1])
    for words, message in (([port], "in use"), (["99999"], "not a port")):
        args = flags.parse(serve.parser(), ["--port", *words])
        with pytest.raises(serve.UsageError, match=f"--port {words[0]}: .*{message}"):
            serve.open_server(args, network)


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium or Chrome to look with")
def test_in_a_browser(server, tmp_path):
    """A picture is dropped on the page, whose answer then stands there."""
    picture = base64.b64encode(EXAMPLE.read_bytes()).decode()
    drop = f"""<script>
    setTimeout(function () {{
      var bytes = Uint8Array.from(atob("{picture}"), function (c) {{ return c.charCodeAt(0); }});
      var data = new DataTransfer();
      data.items.add(new File([bytes], "a <b>cat</b>.jpg"));
      data.items.add(new File(["x"], "none.jpg"));
      document.querySelector(".drop").dispatchEvent(
        new DragEvent("drop", {{ dataTransfer: data, bubbles: true, cancelable: true }}));
    }}, 50);
    </script></body>"""
    own = server.page
    server.page = re.sub(rb"<meta http-equiv[^>]*>", b"", own)
    server.page = server.page.replace(b"</body>", drop.encode())
    common = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
    ]
    common += [f"--user-data-dir={tmp_path / 'profile'}", "--v=0", "--dump-dom"]

    def look(*more):
        done = []
        command = [*common, *more, server.address]
        options = {"capture_output": True, "text": True, "timeout": 120}
        browser = threading.Thread(target=lambda: done.append(subprocess.run(command, **options)))
        browser.start()
        while browser.is_alive():
            worked(server)
            browser.join(0.02)
        said = done[0].stderr.splitlines()
        return done[0].stdout, [line for line in said if "CONSOLE" in line]

    page, complaints = look("--virtual-time-budget=4000")
    assert complaints == []
    assert 'data-done="2"' in page
    assert "a &lt;b&gt;cat&lt;/b&gt;.jpg" in page
    assert re.search(r'<th scope="row">cat</th><td>71.\d %</td>', page)
    assert page.count("data:image/jpeg") == 4  # the picture, two heat maps, what is seen
    assert "the file: " in page
    server.page = own
    page, complaints = look("--virtual-time-budget=1000")
    assert complaints == [] and "Drop photographs here" in page
