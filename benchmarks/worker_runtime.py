"""The same network, from its ONNX file, in OpenVINO or ONNX Runtime; runs in .venv-runtimes.

Run by runtimes.py; see worker.py for what is said on the standard input and output. Bytes are made
by OpenVINO's own tool (nncf) and by ONNX Runtime's, calibrated on images like those measured.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Tuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import worker  # noqa: E402

CALIBRATION = 16  # images; their number does not change the speed


def main() -> int:
    """Serve one configuration; return the exit code."""
    parser = worker.network_parser(__doc__)
    parser.add_argument("--runtime", required=True, choices=["openvino", "onnxruntime"])
    parser.add_argument("--file", required=True, help="the network as ONNX")
    args = parser.parse_args()
    server = worker.Server()
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.batch, 3, args.size, args.size), np.float32)
    sample = rng.standard_normal((CALIBRATION, *images.shape[1:]), np.float32)
    threads = len(os.sched_getaffinity(0))
    make = {"openvino": openvino, "onnxruntime": onnxruntime}[args.runtime]
    compute, versions = make(args.file, args.precision, images.shape, sample, threads)
    facts = {
        "parameters": None,  # folded
        "kernels": f"{args.runtime}, {threads} thread(s)",
        "versions": versions,
    }
    return server.serve(lambda: float(compute(images)[0, 0]), args.warmup, facts, args.steps)


def openvino(
    file: str, precision: str, shape: Tuple[int, ...], sample: np.ndarray, threads: int
) -> Tuple[Any, Dict[str, str]]:
    """A function of the images, and what it is made of; as OpenVINO's guide has it for latency."""
    import openvino as ov

    model = ov.Core().read_model(file)
    model.reshape(list(shape))
    if precision == "int8":
        import nncf

        model = nncf.quantize(model, nncf.Dataset(split(sample, shape[0])))
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()
    versions = {"OpenVINO": ov.__version__.split("-")[0]}
    return lambda images: next(iter(request.infer([images]).values())), versions


def split(sample: np.ndarray, batch: int) -> np.ndarray:
    """``(k, batch, ...)`` of the sample's images, repeated as often as need be."""
    count = max(1, len(sample) // batch) * batch
    return np.resize(sample, (count, *sample.shape[1:])).reshape(-1, batch, *sample.shape[1:])


def onnxruntime(
    file: str, precision: str, shape: Tuple[int, ...], sample: np.ndarray, threads: int
) -> Tuple[Any, Dict[str, str]]:
    """A function of the images, and what it is made of."""
    import onnxruntime as ort

    if precision == "int8":
        file = quantized(file, sample)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (name,) = (each.name for each in session.get_inputs())
    return lambda images: session.run(None, {name: images})[0], {"ONNX Runtime": ort.__version__}


def quantized(file: str, sample: np.ndarray) -> str:
    """A file beside it in bytes, as ONNX Runtime's guide has it for x86 processors with VNNI."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Sample(CalibrationDataReader):
        images = iter(sample)

        def get_next(self) -> Any:
            image = next(self.images, None)
            return None if image is None else {"images": image[None]}

    target = Path(tempfile.mkdtemp()) / "int8.onnx"
    quantize_static(file, str(target), Sample(), per_channel=True)
    return str(target)


if __name__ == "__main__":
    sys.exit(main())
