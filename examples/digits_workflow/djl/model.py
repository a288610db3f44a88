"""One version of the network, as DJL Serving's Python engine loads it."""

from pathlib import Path

import torch
from djl_python import Output
from network import DigitsNet

# So small a network is slower, not faster, when threads share it.
torch.set_num_threads(1)

_network = None


def handle(inputs):
    global _network
    if _network is None:
        folder = Path(inputs.get_property("model_dir"))
        _network = DigitsNet()
        _network.load_state_dict(torch.load(folder / "digits.pt", weights_only=True))
        _network.eval()
    if inputs.is_empty():
        return None
    batches = inputs.get_batches()
    rows = [item.get_as_json() for item in batches]
    with torch.inference_mode():
        pictures = torch.tensor(rows, dtype=torch.float32).reshape(-1, 1, 8, 8)
        opinions = _network(pictures).softmax(dim=1).tolist()
    output = Output()
    for index, opinion in enumerate(opinions):
        output.add(opinion, key="data", batch_index=index if len(batches) > 1 else None)
    return output.add_property("Content-Type", "application/json")
