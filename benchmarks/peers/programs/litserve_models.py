"""The models as LitServe serves them; runs in LitServe's own environment."""

from __future__ import annotations

import argparse
import time
from typing import Any

import litserve as ls


class Text(ls.LitAPI):
    """JSON in, JSON out; batches of one come without a list."""

    def setup(self, device: str) -> None:
        pass

    # Without a type, the server reads JSON.
    def decode_request(self, request):
        return str(request["input"])

    def one(self, text: str) -> str:
        return text

    def predict(self, texts: Any) -> Any:
        if isinstance(texts, list):
            return [self.one(text) for text in texts]
        return self.one(texts)

    def encode_response(self, output: str) -> dict[str, str]:
        return {"output": output}


class Size(Text):
    def one(self, text: str) -> str:
        return str(len(text))


class Slow(Text):
    def one(self, text: str) -> str:
        time.sleep(0.005)
        return text


class Cnn(Text):
    def setup(self, device: str) -> None:
        from cnn import Classifier

        self._classify = Classifier()

    def predict(self, texts: Any) -> Any:
        bodies = [text.encode() for text in (texts if isinstance(texts, list) else [texts])]
        answers = self._classify(bodies)
        return answers if isinstance(texts, list) else answers[0]


KINDS = {"echo": Text, "echo32": Text, "size": Size, "slow": Slow, "cnn": Cnn, "cnn8": Cnn}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("models", nargs="+")
    options = parser.parse_args()
    apis = []
    for flag in options.models:
        name, batch_size, delay_ms = flag.split(",")
        api = KINDS[name](
            max_batch_size=int(batch_size), batch_timeout=int(delay_ms) / 1000, api_path=f"/{name}"
        )
        apis.append(api)
    server = ls.LitServer(apis, accelerator="cpu", timeout=60)
    server.run(
        host="127.0.0.1",
        port=options.port,
        log_level="error",
        generate_client_file=False,
        access_log=False,
    )


if __name__ == "__main__":
    main()
