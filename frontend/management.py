"""Management verbs over HTTP: read parameters, ask the supervisor, write the answer.

What the parameters are called, mean and default to, and how an outcome reads,
is the dialect's business; this is the common way between.  A call goes on
when its client leaves: a half-done registration helps nobody.
"""

from __future__ import annotations

from typing import Any, Final

from falcon.asgi import Request, Response

from stoker.errors import StokerError
from stoker.frontend.answers import answer_problem, answer_reply, exchange_of
from stoker.frontend.consultation import Consultation
from stoker.frontend.dialect import Dialect
from stoker.frontend.parameters import parse_json_object, parse_query, read_parameters
from stoker.frontend.routes import OTHERS, Operation
from stoker.frontend.startup_models import StartupModels
from stoker.logs import get_logger
from stoker.wire.link import Link

_JSON: Final = "application/json"

log = get_logger("management")


class Management:
    """Falcon's responder for one operation.

    Args:
        consultation: Where the operation may ask a handler as well.
        startup_models: Which model is meant where a path names none.
    """

    def __init__(
        self,
        link: Link,
        dialect: Dialect,
        operation: Operation,
        consultation: Consultation | None = None,
        startup_models: StartupModels | None = None,
    ) -> None:
        self._startup_models = startup_models
        self._consultation = consultation
        self._link = link
        self._dialect = dialect
        self._operation = operation
        self._is_strict = dialect.is_strict or dialect.settings.strict_parameters

    async def answer(self, request: Request, response: Response, **path: str) -> None:
        operation = self._operation
        arguments: dict[str, Any] = {
            "model": path.get("model_name"),
            "version": path.get("model_version"),
        }
        try:
            if self._startup_models is not None and "model_name" not in path:
                path["model_name"] = await self._startup_models.only() or ""
            warnings: list[str] = []
            values: dict[str, Any] = {}
            if operation.parameters:
                if operation.takes_json and request.content_type == _JSON:
                    given = parse_json_object(exchange_of(request).take_body())
                else:
                    given = parse_query(request.query_string)
                values, warnings = read_parameters(
                    operation.parameters,
                    given,
                    is_strict=self._is_strict,
                    empty_is_absent=self._dialect.empty_is_absent,
                )
            if operation.takes_others:
                known = {parameter.name for parameter in operation.parameters}
                values[OTHERS] = {k: v for k, v in given.items() if k not in known}
            arguments = operation.read(values, path)
            if warnings:
                log.warning(
                    "parameters were not understood",
                    verb=operation.verb,
                    request_id=exchange_of(request).request_id,
                    warnings=warnings,
                )
            asks_handler = arguments.pop("asks_handler", False)
            inputs: dict[str, str] = arguments.pop("inputs", {})
            check = arguments.pop("check", None)
            outcome = await self._link.call(operation.verb, arguments, operation.timeout_s)
            if asks_handler and self._consultation is not None:
                if check is not None:
                    check(outcome)
                outcome |= await self._consultation.ask(
                    exchange_of(request), inputs=inputs, **arguments
                )
            answer_reply(request, response, operation.write(outcome, arguments), warnings)
        except StokerError as error:
            answer_problem(request, response, self._dialect, error, operation.verb, arguments)
