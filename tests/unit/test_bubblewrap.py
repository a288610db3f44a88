"""What a sandbox shows, as bwrap is told it; `promises/` shows it to a real worker."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from stoker.settings import Settings
from stoker.supervisor.bubblewrap import Bubblewrap

#: Passes for bwrap as far as being asked goes: it runs what comes behind `--`.
RUNS = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


class Shown:
    """The arguments of bwrap as what they do, the last word on each path."""

    def __init__(self, wrapper: tuple[str, ...]) -> None:
        self.wrapper = wrapper
        self.read_only: list[str] = []
        self.hidden: list[str] = []
        for at, word in enumerate(wrapper):
            if word == "--ro-bind":
                assert wrapper[at + 1] == wrapper[at + 2]
                self.read_only.append(wrapper[at + 1])
            elif word == "--tmpfs":
                self.hidden.append(wrapper[at + 1])

    def sees(self, path: Path | str) -> bool:
        shown = [p for p in self.read_only if _is_in(str(path), p)]
        masks = [p for p in self.hidden if _is_in(str(path), p)]
        return max(map(len, shown), default=-1) > max(map(len, masks), default=-1)


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A host with a bwrap, and a server's folders."""
    program = tmp_path / "bin" / "bwrap"
    program.parent.mkdir()
    program.write_text(RUNS)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for name in ("run", "state", "cache/archives/a/model", "cache/archives/b/model", "log", "more"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(place: Path, **more: object) -> Settings:
    folders = {f"{name}_dir": place / short for name, short in FOLDERS.items()}
    return Settings(**(folders | {"key_file": Path("/not/there/key_file.json")} | more))


FOLDERS = {"runtime": "run", "state": "state", "cache": "cache", "log": "log"}


def ready(place: Path, **more: object) -> Bubblewrap:
    found = Bubblewrap(settings(place, **more))
    assert [found.why_not(has_network=each) for each in (True, False)] == ["", ""]
    return found


def test_a_model_is_shown_and_no_other(place):
    """
    And the folder of the workers' socket, not what lies beside it.
    """
    own, other = (place / "cache" / "archives" / name / "model" for name in "ab")

    shown = Shown(ready(place).wrapper({}, str(own)))

    assert shown.sees(own / "handler.py")
    assert shown.sees(place / "run" / "workers" / "worker.sock")
    for path in (other, place / "run", place / "run" / "frontend.sock", place / "state", place):
        assert not shown.sees(path)
    assert shown.wrapper[-2:] == ("--chdir", str(own))
    assert shown.wrapper[-4:-2] == ("--remount-ro", "/")


def test_what_the_interpreter_needs_is_shown(place):
    """
    Itself, the standard library, and ours wherever it is installed.
    """
    import stoker.worker.serve

    shown = Shown(ready(place).wrapper({}, None))

    assert shown.sees(os.path.realpath(sys.executable))
    assert shown.sees(os.__file__)
    assert shown.sees(stoker.worker.serve.__file__)
    assert shown.wrapper[-1] == "/tmp"


def test_pythonpath_and_sandbox_paths_are_shown_but_for_the_servers_own_folders(place):
    """
    A path that has them in it shows everything else.
    """
    (place / "weights").mkdir()
    env = {"PYTHONPATH": os.pathsep.join([str(place), str(place / "not there")])}

    shown = Shown(ready(place, sandbox_paths=(str(place / "weights"),)).wrapper(env, None))

    assert shown.sees(place / "more")
    assert shown.sees(place / "weights")
    for name in ("state", "cache", "log"):
        assert not shown.sees(place / name / "anything")
    assert not shown.sees(place / "run" / "frontend.sock")
    assert shown.sees(place / "run" / "workers")


def test_a_folder_with_a_key_in_it_is_not_shown(place):
    """
    A file can be covered, but who replaces it uncovers it.
    """
    key_file = place / "secrets" / "key_file.json"
    key_file.parent.mkdir()
    env = {"PYTHONPATH": os.pathsep.join([str(key_file.parent), str(place / "more")])}

    shown = Shown(ready(place, key_file=key_file).wrapper(env, None))

    assert not shown.sees(place / "secrets" / "key_file.json")
    assert shown.sees(place / "more")


def test_a_folder_of_ours_that_is_still_to_come_keeps_its_parent_hidden(place):
    """
    Nothing can cover what is not there.
    """
    env = {"PYTHONPATH": str(place / "more")}

    shown = Shown(ready(place, log_dir=place / "more" / "log").wrapper(env, None))

    assert not shown.sees(place / "more" / "log")
    assert not shown.sees(place / "more")


def test_a_key_where_workers_must_look_leaves_no_sandbox(place):
    """
    Said once, when the server starts, with what to change.
    """
    key_file = Path(sys.prefix) / "key_file.json"

    why = Bubblewrap(settings(place, key_file=key_file)).why_not(has_network=True)

    assert str(key_file) in why
    assert "which workers must see" in why


@pytest.mark.parametrize(
    ("key", "is_hidden"),
    [("/etc/ssl/private/server.key", True), ("/etc/ssl/server.key", False), ("/usr/k", False)],
)
def test_a_private_key_lies_where_keys_are_hidden_or_leaves_no_sandbox(place, key, is_hidden):
    """
    Certificates are shown, and their keys often lie beside them.
    """
    why = Bubblewrap(settings(place, private_key_file=Path(key))).why_not(has_network=True)

    assert (why == "") == is_hidden
    assert key in why or is_hidden


def test_networks_and_users_are_asked_for_only_where_they_are_wanted(place):
    """
    Without a user to become there is no right to become one.
    """
    plain = ready(place).wrapper({}, None)
    alone = ready(place).wrapper({}, None, has_network=False)
    other = Bubblewrap(settings(place), becomes_user=True)
    assert other.why_not(has_network=True) == ""

    assert "--unshare-net" not in plain
    assert "--unshare-net" in alone
    assert "--cap-add" not in plain
    assert "CAP_SETUID" in other.wrapper({}, None)
    for wrapper in (plain, alone, other.wrapper({}, None)):
        assert {"--unshare-pid", "--as-pid-1", "--new-session"} < set(wrapper)
        assert wrapper[wrapper.index("--cap-drop") + 1] == "ALL"


def test_a_bwrap_that_cannot_is_one_that_is_not_there(place):
    """
    Its last words are the reason.
    """
    (place / "bin" / "bwrap").write_text("#!/bin/sh\necho bwrap: no luck >&2\nexit 1\n")

    assert Bubblewrap(settings(place)).why_not(has_network=True) == "bwrap: no luck"
