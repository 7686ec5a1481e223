"""Record the logits of transformers' ResNets in flax as tests/oracles/fixtures/flax_*, and a file.

    pip install "jax[cpu]==0.10.2" flax==0.12.8 transformers==4.57.6
    python tests/oracles/make_flax.py

(Python 3.11, CPU.)
"""

import fixtures
import flax
import jax
import numpy as np
import seeded
import transformers
from files import FOLDER, record
from flax.traverse_util import flatten_dict, unflatten_dict

jax.config.update("jax_enable_x64", True)

SIZES = ((224, 224, 1), (161, 193, 2))
NETWORKS = {
    "resnet18": {
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [64, 128, 256, 512],
        "layer_type": "basic",
    },
    "resnet50": {},
}
NARROW = {"embedding_size": 4, "depths": [1, 2, 1, 1], "hidden_sizes": [4, 8, 4, 8]}


def seeded_parameters(model: transformers.FlaxResNetForImageClassification) -> dict:
    """A tree like the model's, and the shapes by the names that it has, but for the collection."""
    made, shapes = {}, {}
    for path, value in flatten_dict(dict(model.params)).items():
        name = ".".join(path[1:])
        shapes[name] = value.shape
        made[path] = seeded.tensor(name, value.shape)
    return unflatten_dict(made), shapes


def main() -> None:
    versions = f"transformers {transformers.__version__}, flax {flax.__version__}"
    for arch, settings in NETWORKS.items():
        config = transformers.ResNetConfig(num_labels=20, **settings)
        model = transformers.FlaxResNetForImageClassification(config, dtype=np.float64)
        params, shapes = seeded_parameters(model)
        params = jax.tree_util.tree_map(lambda x: x.astype(np.float64), params)
        logits = {}
        for height, width, count in SIZES:
            images = seeded.images(height, width, count).astype(np.float64)
            answer = model(images, params=params, train=False)
            logits[f"{height}x{width}"] = np.asarray(answer.logits)
        source = f"FlaxResNetForImageClassification, {versions}"
        fixtures.save(f"flax_{arch}", arch, source, shapes, logits)
    model = transformers.FlaxResNetForImageClassification(
        transformers.ResNetConfig(num_labels=5, **NARROW)
    )
    params, shapes = seeded_parameters(model)
    model.params = params
    model.save_pretrained(FOLDER / "flax")
    (FOLDER / "flax" / "flax_model.msgpack").rename(FOLDER / "flax_model.msgpack")
    (FOLDER / "flax" / "config.json").unlink()
    (FOLDER / "flax").rmdir()
    record({"flax_model.msgpack": {name: ("float32", shape) for name, shape in shapes.items()}})


if __name__ == "__main__":
    main()
