"""Files of vectors as numpy, torch and pyarrow write them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch


def write(path, content):
    """Write what the suffix of a path calls for, and return the path."""
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix in (".pt", ".pth"):
        torch.save(content, path)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table(content), path)
    else:
        path.write_text(content)
    return path
