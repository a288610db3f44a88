"""The models as PyTriton serves them; runs in PyTriton's own environment."""

import argparse
import time

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


@batch
def echo(x):
    return {"y": x}


@batch
def size(x):
    sizes = [[str(len(row[0])).encode()] for row in x]
    return {"y": np.array(sizes, dtype=object)}


@batch
def slow(x):
    time.sleep(0.005 * len(x))
    return {"y": x}


KINDS = {"echo": echo, "echo32": echo, "size": size, "slow": slow}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("models", nargs="+")
    options = parser.parse_args()
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=options.port,
        grpc_port=options.port + 1,
        metrics_port=options.port + 2,
        log_verbose=0,
    )
    with Triton(config=config) as triton:
        for flag in options.models:
            name, batch_size, delay_ms = flag.split(",")
            triton.bind(
                model_name=name,
                infer_func=KINDS[name],
                inputs=[Tensor(name="x", dtype=np.bytes_, shape=(1,))],
                outputs=[Tensor(name="y", dtype=np.bytes_, shape=(1,))],
                config=ModelConfig(
                    max_batch_size=max(1, int(batch_size)),
                    batcher=DynamicBatcher(max_queue_delay_microseconds=int(delay_ms) * 1000),
                ),
            )
        triton.serve()


if __name__ == "__main__":
    main()
