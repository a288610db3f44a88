"""Adapters of one model (LoRA): which there are, and how every worker comes to know them.

The workers of a version share a file of changes, one JSON line each.  Whoever
is asked to change something does it in its own process first, and writes it
down when the handler has agreed; the others read on before their next batch,
and a new worker before its first.  A lock on the file keeps changes apart.

Source: contracts/djl-serving.md 5.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from stoker.worker.djl.inputs import Input
from stoker.worker.djl.outputs import Output, to_bytes

REGISTER: Final = "register"
UPDATE: Final = "update"
UNREGISTER: Final = "unregister"
#: What a model.py calls the functions that do it.
FUNCTIONS: Final = {verb: f"{verb}_adapter" for verb in (REGISTER, UPDATE, UNREGISTER)}
#: Beside serving.properties: adapters that are there from the start.
FOLDER: Final = "adapters"
MAX_ADAPTERS: Final = 10_000
_PAGE: Final = 100
_ALIAS: Final = "X-Amzn-SageMaker-Adapter-Alias"
_FIELDS: Final = ("name", "src", "preload", "pin", "limit", "next_page_token")
_CLASSES: Final = {
    400: "BadRequestException",
    404: "ResourceNotFoundException",
    409: "IllegalArgumentException",
}
Function = Callable[[Input], Any]


class Adapter(NamedTuple):
    name: str
    src: str
    preload: bool = True
    pin: bool = False
    alias: str = ""
    options: Mapping[str, str] = {}

    def shown(self) -> dict[str, Any]:
        return {"name": self.name, "src": self.src, "preload": self.preload, "pin": self.pin}


class Adapters:
    """What one worker knows.

    Args:
        functions: Those of `FUNCTIONS` that the handler has, by verb.
        standing: Properties of every call.
        path: The file of changes, in a folder that others cannot enter.
    """

    def __init__(
        self, functions: Mapping[str, Function], standing: Mapping[str, str], path: Path
    ) -> None:
        self._functions = functions
        self._standing = standing
        self._path = path
        self._read_bytes = 0
        self._known: dict[str, Adapter] = {}
        #: What the handler had to say of the last change, if anything.
        self._said = ""

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def load(self, model_dir: str) -> None:
        """Register what lies beside the model, and what was registered since."""
        folder = Path(model_dir, FOLDER)
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if entry.is_dir():
                self._apply(REGISTER, Adapter(entry.name, str(entry)))
        self.catch_up()

    def catch_up(self) -> None:
        """Do what other workers have done; one look at a file when there is nothing new."""
        try:
            if self._path.stat().st_size == self._read_bytes:
                return
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                content = file.read()
        except FileNotFoundError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.splitlines():
            verb, fields = json.loads(line)
            output = self._apply(verb, Adapter(**fields))
            if output is not None:
                sys.stderr.write(f"stoker: adapter {fields['name']} is not here: {output}\n")

    # -- what clients ask -------------------------------------------------------

    def answer(self, verb: str, asked: Mapping[str, str], headers: Mapping[str, Any]) -> Output:
        """Carry out one call of the adapters API."""
        self.catch_up()
        name, alias = asked.get("name", ""), str(headers.get(_ALIAS) or "")
        if verb == "list":
            return self._page(asked)
        if not name:
            return refusal(400, "The parameter name is required")
        known = self._known.get(name)
        if verb != REGISTER and known is None:
            return refusal(404, f"The adapter {alias or name} was not found")
        if verb == "describe":
            assert known is not None
            return Output().add_as_json(known.shown())
        with self._locked() as file:
            self.catch_up()
            return self._change(verb, name, alias, asked, file)

    def _change(
        self, verb: str, name: str, alias: str, asked: Mapping[str, str], file: int
    ) -> Output:
        known = self._known.get(name)
        options = {key: value for key, value in asked.items() if key not in _FIELDS}
        if verb == REGISTER:
            src = asked.get("src", "")
            if known is not None:
                return refusal(409, f"The adapter {alias or name} already exists")
            if not src:
                return refusal(400, "The parameter src is required")
            if "://" in src:
                return refusal(409, "URL adapters are not currently supported")
            if len(self._known) >= MAX_ADAPTERS:
                return refusal(409, f"There are {MAX_ADAPTERS} adapters already")
            preload, pin = (asked.get(key, "") for key in ("preload", "pin"))
            adapter = Adapter(
                name, src, preload.lower() != "false", pin.lower() == "true", alias, options
            )
        else:
            assert known is not None
            adapter = known._replace(options={**known.options, **options})
        failed = self._apply(verb, adapter)
        if failed is not None:
            return failed
        line = json.dumps([verb, adapter._asdict()]).encode() + b"\n"
        os.write(file, line)
        self._read_bytes += len(line)
        said = self._said or f"Adapter {name} {verb}{'d' if verb.endswith('e') else 'ed'}"
        return Output().add_as_json({"status": said})

    def _apply(self, verb: str, adapter: Adapter) -> Output | None:
        """Have the handler do it; None if it has, else what it says."""
        self._said = ""
        function = self._functions.get(verb)
        if function is not None:
            asked = Input()
            asked.function_name = FUNCTIONS[verb]
            for key, value in self._standing.items():
                asked.properties[key] = value
            for key, value in adapter._asdict().items():
                if key != "options":
                    asked.properties[key] = str(value)
            for key, value in adapter.options.items():
                asked.content.add(key, value.encode())
            try:
                output = function(asked)
            except MemoryError as error:
                return Output().error(str(error), 507)
            except Exception as error:
                return Output().error(str(error) or type(error).__name__)
            if isinstance(output, Output):
                if output.code >= 300:
                    return output
                said = b"".join(map(to_bytes, output.content.get_values()))
                self._said = said.decode("utf-8", "replace") or (
                    output.message if output.message != "OK" else ""
                )
        if verb == UNREGISTER:
            self._known.pop(adapter.name, None)
        else:
            self._known[adapter.name] = adapter
        return None

    def _page(self, asked: Mapping[str, str]) -> Output:
        limit, begin = (
            int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
            for text, default in (
                (asked.get("limit", ""), _PAGE),
                (asked.get("next_page_token", ""), 0),
            )
        )
        limit = limit if limit <= _PAGE else _PAGE
        names = sorted(self._known)
        document: dict[str, Any] = {}
        if begin + limit < len(names):
            document["nextPageToken"] = str(begin + limit)
        document["adapters"] = [self._known[name].shown() for name in names[begin : begin + limit]]
        return Output().add_as_json(document)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Raises PermissionError: Somebody else made the folder, to read or write along."""
        folder = self._path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.lstat().st_uid != os.geteuid() or folder.is_symlink():
            raise PermissionError(f"{folder} is not a folder of ours")
        fd = os.open(
            self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)


def refusal(code: int, message: str) -> Output:
    """As the server itself tells an error."""
    output = Output(code, "")
    output.add_property("content-type", "application/json")
    return output.add_as_json({"code": code, "type": _CLASSES[code], "message": message})
