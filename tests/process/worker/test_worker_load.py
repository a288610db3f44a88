"""From a handler's name to a handler, and what is said when there is none (contract 7.1)."""

from __future__ import annotations

import pytest

from stoker.exit_codes import ExitCode
from stoker.wire import frames as f
from stoker.wire.loading import LoadSpec

WHO = "def {name}(data, context):\n    return None if data is None else ['{text}'] * len(data)\n"


@pytest.fixture
def fail_to_load(spawn_worker, write_handler):
    """Load `source`, which must not work; returns (LoadFailed, stderr)."""

    def load(source: str, **spec):
        folder = write_handler(source)
        peer = spawn_worker()
        spec = {"model": "m", "version": "1", "handler": "handler", "model_dir": folder, **spec}
        outcome = peer.load(LoadSpec(**spec))
        assert isinstance(outcome, f.LoadFailed)
        assert peer.wait_exit() == ExitCode.LOAD_FAILED
        return outcome, peer.output()[1]

    return load


@pytest.mark.parametrize(
    "handler", ["handler", "handler.py", "handler:handle", "handler.py:handle"]
)
def test_every_spelling_finds_the_module_of_the_archive(serve, make_request, handler):
    peer = serve(WHO.format(name="handle", text="found"), handler=handler)

    assert peer.ask(make_request()).one().body == b"found"


def test_a_named_function_is_the_entry_point(serve, make_request):
    source = WHO.format(name="handle", text="wrong") + WHO.format(name="mine", text="right")
    peer = serve(source, handler="handler:mine")

    assert peer.ask(make_request()).one().body == b"right"


def test_a_handler_may_live_in_a_folder_of_the_archive(serve, write_handler, make_request):
    write_handler(WHO.format(name="handle", text="inner"), "code/inside.py")
    peer = serve("", handler="code/inside.py:handle")

    assert peer.ask(make_request()).one().body == b"inner"


def test_a_dotted_module_on_pythonpath_needs_no_archive(spawn_worker, write_handler, make_request):
    """
    The first thing a user tries is a function of their own, without packing
    anything.
    """
    folder = write_handler(WHO.format(name="answer", text="no archive"), "pkg/deep.py")
    peer = spawn_worker(env={"PYTHONPATH": folder})

    assert isinstance(peer.load(LoadSpec("m", "1", "pkg.deep:answer")), f.Loaded)

    assert peer.ask(make_request()).one().body == b"no archive"


def test_function_handlers_are_called_once_without_data(serve, make_request):
    peer = serve(
        """
        seen = []
        def handle(data, context):
            seen.append(data is None)
            return [seen]
        """
    )

    assert b"true,\n  false" in peer.ask(make_request()).one().body


def test_a_class_handler_is_made_initialised_and_asked(serve, make_request):
    peer = serve(
        """
        from ts.context import Context      # imported classes do not count

        class Service:
            def initialize(self, context):
                properties = context.system_properties
                self.words = [context.model_name, properties["model_dir"][-1:] != "",
                              properties["gpu_id"], properties["batch_size"],
                              properties["server_name"], properties["server_version"],
                              context.manifest, context.model_yaml_config]
            def handle(self, data, context):
                return [self.words] * len(data)
        """,
        batch_size=4,
        gpu_id=1,
        manifest={"model": {"modelName": "other"}},
        config={"mine": 1},
    )

    body = peer.ask(make_request()).one().body

    assert b'"m",\n  true,\n  1,\n  4,\n  "MMS",\n  "0.12.0",\n  {' in body
    assert b'"mine": 1' in body


def test_handle_is_read_before_initialize(serve, make_request):
    """
    A MicroBatching that the constructor put there counts; what initialize
    puts there does not.
    """
    peer = serve(
        """
        class Service:
            def __init__(self):
                self.handle = lambda data, context: ["constructor"]
            def initialize(self, context):
                self.handle = lambda data, context: ["initialize"]
        """
    )

    assert peer.ask(make_request()).one().body == b"constructor"


def test_a_class_may_be_named(serve, make_request):
    peer = serve(
        """
        class One:
            def handle(self, data, context):
                return ["one"]
        class Two(One):
            pass
        """,
        handler="handler:Two",
    )

    assert peer.ask(make_request()).one().body == b"one"


def test_handlers_work_in_their_model_dir(serve, make_request, tmp_path):
    peer = serve(
        """
        import os, sys
        def handle(data, context):
            return None if data is None else [[os.getcwd(), sys.path[0]]]
        """
    )

    assert peer.ask(make_request()).one().body.count(str(tmp_path).encode()) == 2


def test_a_handler_may_have_the_name_of_a_loaded_module(serve, write_handler, make_request):
    """
    `signal.py` in an archive is the archive's, though Python has loaded its own.
    """
    write_handler(WHO.format(name="handle", text="mine"), "signal.py")
    peer = serve("", handler="signal")

    assert peer.ask(make_request()).one().body == b"mine"


def test_unknown_handlers_get_the_original_error(fail_to_load):
    """
    The peer answers "No module named 'ts.torch_handler.nope'", which sends
    people to the wrong place.
    """
    outcome, log = fail_to_load("", handler="nope")

    assert outcome.code == "load_failed"
    assert outcome.last_line == "ModuleNotFoundError: No module named 'nope'"
    assert "torch_handler" not in log


def test_a_missing_import_in_the_handler_is_what_is_reported(fail_to_load):
    outcome, log = fail_to_load("import not_installed_here")

    assert outcome.last_line == "ModuleNotFoundError: No module named 'not_installed_here'"
    assert 'handler.py", line 1' in log


@pytest.mark.parametrize(
    ("source", "last_line"),
    [
        ("def handle(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise PermissionError('no')", "PermissionError: no"),
        ("def handle(data, context):\n    raise ValueError('at init')", "ValueError: at init"),
        ("class A: pass", "ValueError: Expect handle method in class"),
        ("class A: pass\nclass B: pass", "ValueError: Expected only one class in custom service"),
        ("x = 1", "ValueError: Expected only one class in custom service code or a function"),
    ],
)
def test_whatever_user_code_does_at_load_is_reported(fail_to_load, source, last_line):
    outcome, log = fail_to_load(source)

    assert outcome.code == "load_failed"
    assert outcome.last_line.startswith(last_line)
    assert "Traceback" in log
    assert "handler" in outcome.message


@pytest.mark.parametrize("error", ["MemoryError()", "RuntimeError('CUDA out of memory')"])
def test_running_out_of_memory_at_load_has_its_own_code(fail_to_load, error):
    outcome, _ = fail_to_load(f"raise {error}")

    assert (outcome.code, outcome.message) == ("load_out_of_memory", "System out of memory")


def test_an_envelope_wraps_the_entry_point(serve, write_handler, make_request):
    """
    The seam for `service_envelope`: the first class of the module gets the
    entry point.
    """
    write_handler("", "ts/__init__.py")
    write_handler("", "ts/torch_handler/__init__.py")
    write_handler("", "ts/torch_handler/request_envelope/__init__.py")
    write_handler(
        """
        class Shout:
            def __init__(self, entry):
                self.entry = entry
            def handle(self, data, context):
                return [text.upper() for text in self.entry(data, context)]
        """,
        "ts/torch_handler/request_envelope/shout.py",
    )
    peer = serve(WHO.format(name="handle", text="quiet"), envelope="shout")

    assert peer.ask(make_request()).one().body == b"QUIET"


@pytest.mark.torch
def test_a_built_in_handler_is_found_by_its_short_name(serve, write_handler, make_request):
    write_handler(
        """
        import torch
        class Doubler(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.factor = torch.nn.Parameter(torch.tensor(2.0))
            def forward(self, x):
                return self.factor * x
        """,
        "model.py",
    )
    peer = serve("", handler="base_handler", manifest={"model": {"modelFile": "model.py"}})

    answered = peer.ask(
        make_request(b"[1, 2]", "application/json"), make_request(b"[3, 4]", "application/json")
    )

    assert answered.one(0).body == b"[\n  2.0,\n  4.0\n]"
    assert answered.one(1).body == b"[\n  6.0,\n  8.0\n]"
    assert "[METRICS]HandlerTime.Milliseconds:" in peer.output()[0]


@pytest.mark.torch
def test_tensors_travel_as_torch_saves_them(serve, make_request):
    import io

    import torch

    peer = serve(
        """
        import torch
        def handle(data, context):
            return None if data is None else [torch.arange(3)]
        """
    )

    body = peer.ask(make_request()).one().body

    assert torch.load(io.BytesIO(body), weights_only=True).tolist() == [0, 1, 2]
