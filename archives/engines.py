"""Which engine an archive is for, and whether that is one we have.

`Python` is ours, and `PyTorch` where a TorchScript file is all there is.  The
others are libraries that DJL reaches from Java, with translators that are Java
classes: a server without a virtual machine cannot run them, and says so before
anything is loaded.

Source: contracts/djl-serving.md 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stoker.errors import EngineMissing, EngineUnknown

PYTHON: Final = "Python"
PYTORCH: Final = "PyTorch"
#: Modules of ours for archives without a handler, by engine.
BUILT_IN: Final = {PYTORCH: "stoker.worker.djl.torchscript"}
#: Options that name Java classes.
_JAVA_OPTIONS: Final = ("translator", "translatorFactory")
#: Engines of DJL by their lower-case names.
_KNOWN: Final = {
    name.lower(): name
    for name in (
        PYTHON,
        "MPI",
        PYTORCH,
        "TensorFlow",
        "OnnxRuntime",
        "XGBoost",
        "LightGBM",
        "MXNet",
        "PaddlePaddle",
        "TensorRT",
        "TritonServer",
        "Rust",
        "Llama",
    )
}
_PYTHON_FILES: Final = (".skops", ".joblib", ".pkl", ".pickle", ".cloudpkl")
#: In the contract's order: endings, and whose they are.
_ENDINGS: Final = (
    ((".onnx",), "OnnxRuntime"),
    ((".xgb", ".bst"), "XGBoost"),
    (_PYTHON_FILES, PYTHON),
)


def check_engine(engine: str, url: str) -> str:
    """The engine's name if we have it.

    Raises:
        EngineMissing: Only a Java server has it, or nobody.
    """
    name = _KNOWN.get(engine.lower())
    if name == PYTHON or name in BUILT_IN:
        return name
    if name is None:
        said = f"There is no engine {engine[:64]}"
    elif name == "MPI":
        said = "Engine MPI needs mpirun, which this release does not start"
    else:
        said = f"Engine {name} runs inside a Java virtual machine, which stoker does without"
    raise EngineMissing(
        f"{said}. Put a model.py with handle(inputs) into the archive and use engine=Python.",
        url=url,
        engine=engine,
    )


def check_options(options: Mapping[str, str], url: str) -> None:
    """Raises EngineMissing: They name classes of Java."""
    for name in _JAVA_OPTIONS:
        if options.get(name):
            raise EngineMissing(
                f"{name}={options[name][:128]} is a Java class, which stoker does without. Put a "
                "model.py with handle(inputs) into the archive and use engine=Python.",
                url=url,
                engine=PYTORCH,
            )


def detect_engine(model_dir: Path, options: Mapping[str, str], url: str) -> str:
    """What the files of an archive say that names no engine.

    Raises:
        EngineUnknown: Nothing.
    """
    names = {path.name for path in model_dir.iterdir()}
    own = model_dir.name
    if "MAR-INF" in names:
        return PYTHON
    if names & {f"{own}.pt", "model.pt"}:
        # A handler beside it is what the archive's author wants called.
        return PYTHON if "model.py" in names else PYTORCH
    if "config.pbtxt" in names:
        return "TritonServer"
    if "saved_model.pb" in names:
        return "TensorFlow"
    for endings, engine in _ENDINGS:
        if any(name.endswith(endings) for name in names):
            return PYTHON if "model.py" in names else engine
    if names & {"model.py", f"{own}.py", "config.json"} or "model_id" in options:
        return PYTHON
    if any(name.endswith((".params", ".symbol.json")) for name in names):
        return "MXNet"
    raise EngineUnknown(f"Failed to detect engine of the model: {url}", url=url)
