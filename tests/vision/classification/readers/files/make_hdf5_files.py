"""Write the HDF5 files beside this script: what the library can do and Keras does not.

    pip install h5py==3.16.0 numpy==2.2.6
    python tests/vision/classification/readers/files/make_hdf5_files.py

(Python 3.11.)
"""

from pathlib import Path

import h5py
import numpy as np

FOLDER = Path(__file__).resolve().parent
NUMBERS = np.arange(6).reshape(2, 3)


def contents(file: h5py.File) -> None:
    for kind in ("<f4", ">f4", "<f8", "<f2", "<i8", ">i2", "|u1"):
        file.create_dataset(f"plain/{kind[1:]}{'be' * (kind[0] == '>')}", data=NUMBERS.astype(kind))
    file.create_dataset("plain/scalar", data=np.float32(2.5))
    file.create_dataset("plain/empty", shape=(0, 3), dtype="f4")
    file.create_dataset("plain/unwritten", shape=(2, 3), dtype="f4")
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((2, 3))
    compact = h5py.h5d.create(file["plain"].id, b"compact", h5py.h5t.IEEE_F32LE, space, layout)
    compact.write(h5py.h5s.ALL, h5py.h5s.ALL, NUMBERS.astype("<f4"))
    other = file.create_group("other")
    other.create_dataset("text", data="a text")
    other.create_dataset("complex", data=np.ones(2, "c8"))
    other.create_dataset("gzip", data=NUMBERS.astype("f4"), compression="gzip")
    other.create_dataset("chunked", data=NUMBERS.astype("f4"), chunks=(1, 3))
    other.create_dataset(
        "external", (2, 3), "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    )
    source = h5py.VirtualSource("/etc/other.h5", "x", shape=(2, 3))
    virtual = h5py.VirtualLayout((2, 3), "f4")
    virtual[:] = source
    other.create_virtual_dataset("virtual", virtual)
    other["soft"] = h5py.SoftLink("/plain/f4")
    for index in range(300):  # more than a leaf of the tree holds
        file.create_dataset(f"many/{index}", data=np.float32(index))


if __name__ == "__main__":
    with h5py.File(FOLDER / "everything.h5", "w") as file:
        contents(file)
    with h5py.File(FOLDER / "latest.h5", "w", libver="latest") as file:
        file.create_dataset("x", data=NUMBERS.astype("f4"))
    with h5py.File(FOLDER / "ordered.h5", "w", track_order=True) as file:
        file.create_dataset("x", data=NUMBERS.astype("f4"))
    with h5py.File(FOLDER / "cycle.h5", "w") as file:
        file.create_group("a/b")
        file["a/b/up"] = file["a"]  # a hard link to what it lies in
    with h5py.File(FOLDER / "linked.h5", "w") as file:
        file["x"] = h5py.ExternalLink("/etc/other.h5", "/x")
