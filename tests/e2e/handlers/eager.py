"""An asynchronous handler, as they are written for TorchServe.

The body is `meet count`: answered when so many requests are in progress;
`stream count`: so many pieces and a last one; `nap seconds`; `wait`: for ever; `block`: and
let nobody else on.
"""

import asyncio
import sys
import time

from ts.handler_utils.utils import send_intermediate_predict_response


class Eager:
    async def initialize(self, context):
        self.here = 0
        self.changed = asyncio.Condition()

    async def handle(self, data, context):
        what, *rest = bytes(data[0]["body"]).decode().split()
        if what == "meet":
            return [await self.meet(int(rest[0]))]
        if what == "stream":
            for number in range(int(rest[0])):
                send_intermediate_predict_response(
                    [f"{number} "], context.request_ids, "Result", 200, context
                )
                await asyncio.sleep(0)
            return ["end"]
        if what == "nap":
            await asyncio.sleep(float(rest[0]))
            return ["slept"]
        if what == "block":
            time.sleep(3600)
        try:
            print("waits", file=sys.stderr, flush=True)
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            print("cancelled", context.cancelled, file=sys.stderr, flush=True)
            raise

    async def meet(self, count):
        async with self.changed:
            self.here += 1
            self.changed.notify_all()
            await self.changed.wait_for(lambda: self.here >= count)
            return str(self.here)
