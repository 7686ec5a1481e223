"""Record the logits of MindCV's ResNet v2 as tests/oracles/fixtures/mindcv_*.

    pip install mindspore==2.10.0 numpy==1.26.4 tqdm pyyaml requests
    pip install --no-deps mindcv==0.3.0
    python tests/oracles/make_mindcv.py

(Python 3.11, CPU; MindSpore computes in float32.)
"""

import fixtures
import mindcv
import mindspore as ms
import seeded

# Height, width and number of images.
NETWORKS = {
    "resnetv2_50": ((224, 224, 1), (161, 193, 2)),
    "resnetv2_101": ((224, 224, 1), (161, 193, 1)),
}


def main() -> None:
    ms.set_context(mode=ms.PYNATIVE_MODE)
    for name, sizes in NETWORKS.items():
        net = mindcv.create_model(name, num_classes=20).set_train(False)
        shapes = {key: tuple(value.shape) for key, value in net.parameters_and_names()}
        for key, value in net.parameters_and_names():
            value.set_data(ms.Tensor(seeded.tensor(key, shapes[key])))
        logits = {
            f"{height}x{width}": net(ms.Tensor(seeded.images(height, width, count))).asnumpy()
            for height, width, count in sizes
        }
        source = f"{name}, mindcv {mindcv.__version__}, mindspore {ms.__version__}"
        fixtures.save(f"mindcv_{name}", name, source, shapes, logits)


if __name__ == "__main__":
    main()
