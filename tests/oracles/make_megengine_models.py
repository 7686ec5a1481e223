"""Record the logits of MegEngine/Models' ResNets as tests/oracles/fixtures/megengine_*.

    pip install -r requirements.txt
    git clone https://github.com/MegEngine/Models && git -C Models checkout 78882f9
    python tests/oracles/make_megengine_models.py \\
        Models/official/vision/classification/resnet/model.py

(Python 3.10, CPU.) Their network ends in a 7x7 pooling, so the images have sizes whose last map is
7x7.
"""

import importlib.util
import sys
from types import ModuleType

import fixtures
import megengine as mge
import seeded
from megengine.core._imperative_rt.common import CompNode

NETWORKS = ("resnet18", "resnext50_32x4d")
SIZES = ((224, 224, 1), (193, 209, 2))  # height, width, number of images


def load_model_py(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("megengine_models_resnet", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    CompNode._set_default_device("cpu:default")  # the queued CPU devices may return garbage
    theirs = load_model_py(sys.argv[1])
    for name in NETWORKS:
        model = getattr(theirs, name)(num_classes=20)
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        model.load_state_dict(seeded.tensors(shapes))
        model.eval()
        logits = {
            f"{height}x{width}": model(mge.Tensor(seeded.images(height, width, count))).numpy()
            for height, width, count in SIZES
        }
        source = f"{name}, MegEngine/Models 78882f9, megengine {mge.__version__}"
        fixtures.save(f"megengine_{name}", name, source, shapes, logits)


if __name__ == "__main__":
    main()
