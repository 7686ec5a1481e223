"""The entry points as users reach them: through megengine.hub, from an archive that a server of its
own hands out as GitHub does, over HTTPS. Each test is a process of its own, since the hub changes
what ``official`` means in one."""

import ast
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import megengine
import pytest

from official.vision.classification.resnet.model import resnet18, resnet50
from official.vision.classification.zoo import models
from tests.networks import FACTS
from tests.scripts import load_script
from tests.servers import Server, make_certificate, whole

ROOT = Path(__file__).resolve().parents[1]
HOST = "git.example.org"
CLASSES_AND_FUNCTIONS = """
    BasicBlock Bottleneck CifarBlock CifarResNet PreActBottleneck PreActResNet ResNet
    accelerate get_model inference_model list_models
""".split()
ENTRY_POINTS = [*CLASSES_AND_FUNCTIONS, *FACTS]

# The hub takes no port, so connections to the host's are led to the server's. Nothing else is led
# astray: the host's certificate is verified.
SETUP = """
import json, os, sys
import megengine, megengine.hub as hub, numpy as np
from megengine import tensor
from urllib3.util import connection

megengine.device.CompNode._set_default_device("cpu:default")
connect = connection.create_connection

def connect_here(address, *args, **kwargs):
    if address == ("git.example.org", 443):
        address = ("127.0.0.1", int(os.environ["TEST_PORT"]))
    return connect(address, *args, **kwargs)

connection.create_connection = connect_here
HERE = dict(git_host="git.example.org")
OURS = "owner/repo:main"

def run(model, pixels=64):
    model.eval()
    return model(tensor(np.ones((1, 3, pixels, pixels), np.float32))).numpy()

def official():
    return sorted(name for name in sys.modules if name.split(".")[0] == "official")

def tell(value):
    print("TOLD " + json.dumps(value), flush=True)
"""

# What requirements.txt has beyond MegEngine and what that brings along. MegEngine has itself
# imported some of it, and keeps it.
ONLY_MEGENGINE = """
class Blocker:
    names = ("safetensors", "google", "pydantic", "pydantic_core", "yaml", "matplotlib", "PIL")

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in list(sys.modules):
    if name.split(".")[0] in Blocker.names:
        del sys.modules[name]
sys.meta_path.insert(0, Blocker())
"""


def archive(files, top="repo-main"):
    """A zip as GitHub makes it: everything in one folder."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{top}/", b"")
        for name, content in sorted(files.items()):
            file.writestr(f"{top}/{name}", content)
    return whole(data.getvalue())


def our_files(**changes):
    """The working tree, as far as the hub needs it. ``changes`` are appended; ``__`` is ``/``."""
    paths = [ROOT / "hubconf.py", *ROOT.glob("official/**/*")]
    files = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts
    }
    for name, text in changes.items():
        files[name] += text.encode()
    return files


MODEL = "official/vision/classification/resnet/model.py"

# Another repository with a package of the same name, as MegEngine/Models has it.
THEIRS = {
    "hubconf.py": "from official.nlp.greet import greet, greet_late\n"
    "from official.vision.classification.resnet.model import resnet18\n",
    "official/__init__.py": "",
    "official/nlp/__init__.py": "",
    "official/nlp/greet.py": "def greet():\n    return 'theirs'\n\n\n"
    "def greet_late():\n    from official.nlp import late\n    return late.TEXT\n",
    "official/nlp/late.py": "TEXT = 'theirs, late'\n",
    "official/vision/__init__.py": "",
    "official/vision/classification/__init__.py": "",
    "official/vision/classification/resnet/__init__.py": "",
    "official/vision/classification/resnet/model.py": "def resnet18():\n    return 'their 18'\n",
}


class Hub(Server):
    """A Git host, and processes that use it."""

    def __init__(self, folder):
        self.folder = folder
        self.certificate = make_certificate(folder, HOST)
        super().__init__(self.certificate)
        self.offer("owner/repo", "main", our_files())

    def offer(self, repo, branch, files):
        name = repo.split("/")[1]
        self.answers[f"/{repo}/archive/{branch}.zip"] = archive(files, f"{name}-{branch}")

    def run(self, program, **environment):
        """What ``program`` tells, in order, and its standard error."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and not name.startswith("PYTHON")
        }
        done = subprocess.run(
            [sys.executable, "-c", SETUP + program],
            cwd=self.folder,
            env=dict(
                kept,
                MGE_HOME=str(self.folder / "home"),
                REQUESTS_CA_BUNDLE=str(self.certificate),
                TEST_PORT=str(self.port),
                **environment,
            ),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
        return [json.loads(line[len("TOLD ") :]) for line in lines], done.stderr


@pytest.fixture
def hub(tmp_path):
    with Hub(tmp_path) as hub:
        yield hub


def test_list_help_load_and_pretrained_with_nothing_but_megengine(hub, tmp_path):
    state = resnet18().state_dict()
    path = tmp_path / "saved.pkl"
    megengine.save(state, str(path))
    digest = hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state)))
    name = "resnet18_naiveaug_70312_78a63ca6.pkl"
    with Server() as mirror:
        mirror.answers[f"/models/weights/{name}"] = whole(path.read_bytes())
        path.unlink()
        told, errors = hub.run(
            ONLY_MEGENGINE
            + """
import hashlib
tell(hub.list(OURS, **HERE))
tell([hub.help(OURS, name, **HERE) for name in ("resnet50", "get_model", "ResNet")])
module = hub.import_module(OURS, **HERE)
tell({name: getattr(module, name).__doc__ for name in hub.list(OURS, **HERE)})
tell([run(hub.load(OURS, "resnet18", num_classes=7, **HERE)).shape,
      run(hub.load(OURS, "resnet20_cifar", **HERE), 32).shape,
      run(hub.load(OURS, "get_model", "resnet20_cifar", num_classes=3, **HERE), 32).shape])
assert not any("/hub/" in path for path in sys.path), sys.path
state = module.resnet18(pretrained=True).state_dict()
tell(hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest())
tell(hub.load(OURS, "resnet18", pretrained=True, num_classes=5, **HERE).fc.weight.shape)
with open("w.safetensors", "wb") as file:
    file.write(bytes([2, 0, 0, 0, 0, 0, 0, 0]) + b"{}")
try:
    module.resnet20_cifar(pretrained="w.safetensors")
except Exception as error:
    tell(f"{type(error).__name__}: {error}")
tell([name for name in Blocker.names if name in sys.modules] + official())
""",
            RESNET_WEIGHTS_MIRROR=mirror.url,
        )
        assert mirror.requests == [f"/models/weights/{name}"]
    assert hub.requests == ["/owner/repo/archive/main.zip"]

    names, helps, docs, shapes, loaded, head, refusal, left = told
    assert names == sorted(ENTRY_POINTS)
    assert helps == [docs["resnet50"], docs["get_model"], docs["ResNet"]]
    for entry, doc in docs.items():
        assert doc and len(doc) > 60, entry
        if entry in models.ARCHS:
            assert "pretrained: " in doc and "num_classes: " in doc, entry
            assert "parameters, " in doc.splitlines()[0], entry
    assert shapes == [[1, 7], [1, 10], [1, 3]]
    assert loaded == digest.hexdigest()
    assert head == [5, 512]
    assert refusal.startswith(
        "WeightsError: w.safetensors: is a safetensors file, and the package "
    )
    assert left == []
    assert "the origin could not be verified" in errors
    assert "has 1000 classes; the classifier starts anew with 5" in errors


def test_weights_that_come_along(hub):
    """They are in the archive that the hub has fetched, so nothing else is asked for."""
    from safetensors.numpy import load_file

    told, _ = hub.run(
        """
model = hub.load(OURS, "resnet20_cifar", pretrained=True, **HERE)
tell(float(model.state_dict()["fc.weight"].sum(dtype="f8")))
tell(list(model.pretrained_config.classes[:2]))
""",
        RESNET_WEIGHTS_MIRROR="http://127.0.0.1:9",
    )
    (file,) = (ROOT / "official" / "assets" / "weights").glob("resnet20_cifar*")
    assert told[0] == pytest.approx(float(load_file(file)["fc.weight"].sum(dtype="f8")), abs=1e-9)
    assert told[1] == ["airplane", "automobile"]
    assert hub.requests == ["/owner/repo/archive/main.zip"]


def test_the_readmes_snippet(hub, tmp_path):
    """As it is written, but for the host and for weights that are not the published ones."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    (snippet,) = [snippet for snippet in snippets if "from official" not in snippet]
    path = tmp_path / "saved.pkl"
    megengine.save(resnet50().state_dict(), str(path))
    with Server() as mirror:
        name = "resnet50_fbaug_76254_4e14b7d1.pkl"
        mirror.answers[f"/models/weights/{name}"] = whole(path.read_bytes())
        told, _ = hub.run(
            "import functools\nhub.load = functools.partial(hub.load, **HERE)\n"
            + snippet
            + "tell(list(run(model)[0].shape))",
            RESNET_WEIGHTS_MIRROR=mirror.url,
        )
    assert told == [[1000]]


def test_theirs_first_and_ours_second(hub):
    hub.offer("their/models", "master", THEIRS)
    hub.offer("owner/repo", "broken", our_files(**{MODEL: "\nimport not_there\n"}))
    told, _ = hub.run("""
def theirs():
    return [hub.load("their/models", "greet", **HERE), hub.load("their/models", "resnet18", **HERE)]

tell(theirs())
late = hub.import_module("their/models", **HERE).greet_late
before = {name: sys.modules[name] for name in official()}
build = hub.import_module(OURS, **HERE)
tell(run(hub.load(OURS, "resnet32_cifar", **HERE), 32).shape)
tell(run(build.resnet20_cifar(), 32).shape)
assert before == {name: sys.modules[name] for name in official()}
tell(late())
tell(theirs())
try:
    hub.load("owner/repo:broken", "resnet18", **HERE)
except ModuleNotFoundError as error:
    tell(str(error))
tell(theirs())
folder = os.path.dirname(sys.modules["official"].__file__)
tell([name for name in official() if not sys.modules[name].__file__.startswith(folder)])
""")
    theirs = ["theirs", "their 18"]
    assert told == [
        theirs,
        [1, 10],
        [1, 10],
        "theirs, late",
        theirs,
        "No module named 'not_there'",
        theirs,
        [],
    ]


def test_ours_first_and_theirs_second_and_two_branches(hub):
    hub.offer("their/models", "master", THEIRS)
    change = "\n\n@accepts_pretrained\ndef resnet18(**kwargs):\n    return {!r}\n"
    hub.offer("owner/repo", "other", our_files(**{MODEL: change.format("the other branch's 18")}))
    main = "/owner/repo/archive/main.zip"
    new = archive(our_files(**{MODEL: change.format("new")}))
    hub.answers[main] = _in_turn(hub.answers[main], new)
    told, _ = hub.run("""
tell(run(hub.load(OURS, "resnet20_cifar", **HERE), 32).shape)
tell([hub.load("their/models", "greet", **HERE), hub.load("their/models", "resnet18", **HERE)])
tell(hub.load("owner/repo:other", "resnet18", **HERE))
tell(hub.load("owner/repo:other", "get_model", "resnet18", **HERE))
tell(run(hub.load(OURS, "resnet20_cifar", **HERE), 32).shape)
tell(hub.load("their/models", "resnet18", **HERE))
tell(hub.load(OURS, "resnet18", use_cache=False, **HERE))
""")
    other = "the other branch's 18"
    assert told == [[1, 10], ["theirs", "their 18"], other, other, [1, 10], "their 18", "new"]


def _in_turn(*answers):
    left = list(answers)
    return lambda handler: left.pop(0)(handler)


def test_at_home_there_is_one_copy_of_the_code():
    before = {name: module for name, module in sys.modules.items() if name.startswith("official")}
    hubconf = load_script("hubconf.py")
    assert hubconf.resnet18 is resnet18
    after = {name: module for name, module in sys.modules.items() if name.startswith("official")}
    assert after == before


@pytest.mark.parametrize("folder", ["resnet", "zoo", "data", "readers", "prediction", "ops"])
def test_no_function_imports_code_of_ours(folder):
    """By the time it is called, the hub has taken the path away, and hubconf.py the modules."""
    here = ROOT / "official" / "vision" / "classification"
    late = []
    alone = [here / f"{name}.py" for name in ("errors", "preprocess", "text", "engine/scoring")]
    for path in [*alone, *(here / folder).rglob("*.py")]:
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, (ast.FunctionDef, ast.Lambda)):
                late += [
                    f"{path}:{node.lineno}"
                    for node in ast.walk(function)
                    if isinstance(node, ast.ImportFrom)
                    and (node.level or (node.module or "").startswith("official"))
                ]
    assert late == []
