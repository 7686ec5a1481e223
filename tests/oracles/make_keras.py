"""Record the logits of Keras's ResNets as tests/oracles/fixtures/keras_*, and files it writes.

    pip install keras==3.15.1 h5py==3.16.0 torch==2.13.0 numpy==2.2.6
    KERAS_BACKEND=torch python tests/oracles/make_keras.py

(Python 3.11, CPU.)
"""

from typing import Dict, Tuple

import fixtures
import keras
import numpy as np
import seeded
from files import FOLDER, record
from keras.src.applications import resnet

SIZES = ((128, 128, 1), (97, 113, 1))
NETWORKS = {"resnetv1a50": "ResNet50", "resnetv1a101": "ResNet101", "resnetv1a152": "ResNet152"}


def give_seeded_weights(model: keras.Model) -> Dict[str, Tuple[int, ...]]:
    """Fill every variable; return their shapes by the names that they have in an .h5 file."""
    shapes = {}
    for layer in model.layers:
        for variable in layer.weights:
            name = f"{layer.name}.{layer.name}.{variable.name}"
            shapes[name] = tuple(variable.shape)
            variable.assign(seeded.tensor(name, shapes[name]).astype(variable.dtype))
    return shapes


def write_fixtures() -> None:
    keras.config.set_floatx("float64")
    for arch, name in NETWORKS.items():
        build = getattr(keras.applications, name)
        settings = {"weights": None, "classes": 20, "classifier_activation": None}
        logits: Dict[str, np.ndarray] = {}
        for height, width, count in SIZES:
            model = build(input_shape=(height, width, 3), **settings)
            shapes = give_seeded_weights(model)
            images = seeded.images(height, width, count).transpose(0, 2, 3, 1).astype(np.float64)
            answer = model(images, training=False)
            logits[f"{height}x{width}"] = keras.ops.convert_to_numpy(answer)
        source = f"keras.applications.{name}, keras {keras.__version__}"
        fixtures.save(f"keras_{arch}", arch, source, shapes, logits)


def write_files() -> None:
    """The same blocks, narrow: one in each stage, two in the second."""
    keras.config.set_floatx("float32")

    def stages(x: object) -> object:
        for stage, width in enumerate((1, 2, 1, 2)):
            blocks = 2 if stage == 1 else 1
            stride = 2 if stage else 1
            name = f"conv{stage + 2}"
            x = resnet.stack_residual_blocks_v1(x, width, blocks, stride1=stride, name=name)
        return x

    model = resnet.ResNet(stages, False, True, weights=None, classes=5, input_shape=(64, 64, 3))
    shapes = give_seeded_weights(model)
    entries = {name: ("float32", shape) for name, shape in shapes.items()}
    model.save(FOLDER / "keras_3.h5")
    model.save(FOLDER / "keras_3.keras")
    record({"keras_3.h5": entries, "keras_3.keras": entries})


if __name__ == "__main__":
    write_files()
    write_fixtures()
