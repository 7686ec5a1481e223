"""Record the logits of transformers' ResNets as tests/oracles/fixtures/transformers_*.

    pip install torch==2.13.0 transformers==5.24.0 numpy==2.2.6
    python tests/oracles/make_transformers.py

(Python 3.11, CPU.)
"""

import torch
import transformers
from torch_oracle import IMAGENET_SIZES, record

# Ours -> what the model's config.json says.
NETWORKS = {
    "resnet18": {
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [64, 128, 256, 512],
        "layer_type": "basic",
    },
    "resnet50": {},
}


class Logits(transformers.ResNetForImageClassification):
    """The same with a tensor for an answer."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return super().forward(pixel_values).logits


def main() -> None:
    for arch, settings in NETWORKS.items():
        model = Logits(transformers.ResNetConfig(num_labels=20, **settings))
        source = f"ResNetForImageClassification, transformers {transformers.__version__}"
        record(f"transformers_{arch}", arch, source, model, IMAGENET_SIZES)


if __name__ == "__main__":
    main()
