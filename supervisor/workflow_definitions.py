"""What a register call for a workflow says: what of it is kept, and the plan it means.

    register call -> kept_workflow -> journal
    what is kept  -> plan_workflow -> its definition, fetched and worked out (`workflow_plan.py`)

A workflow archive of TorchServe's and a definition of DJL's are told apart by
`notation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.archives.archive import ArchiveRequest
from stoker.archives.manifest import DEFAULT_VERSION
from stoker.errors import InvalidParameter, WorkflowInvalid
from stoker.names import check_model_name, check_version
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.desired import Plain
from stoker.supervisor.kept_arguments import check_length
from stoker.supervisor.versions import VersionKey
from stoker.supervisor.workflow_plan import WorkflowPlan, plan_djl, plan_war

#: What of a register call is kept.
KEPT: Final = (
    *("url", "workflow", "version", "template", "notation"),
    *("response_timeout_s", "startup_timeout_s", "s3_sse_kms"),
)
#: Of `notation`: a definition of DJL's, not an archive.
DJL: Final = "djl"
#: Before the name of a template's parameter, in what is kept.
PARAMETER: Final = "parameter "
_COMMON: Final = ("response_timeout_s", "startup_timeout_s", "s3_sse_kms")


def kept_workflow(arguments: Arguments) -> dict[str, Plain]:
    """What a register call states of its workflow.  Raises InvalidParameter."""
    asked = arguments.stated(KEPT)
    for name, value in arguments.mapping("parameters").items():
        asked[f"{PARAMETER}{name}"] = str(value)
    check_length(asked)
    return asked


async def plan_workflow(
    source: ArchiveSource, asked: Mapping[str, Any], known_hash: str | None
) -> WorkflowPlan:
    """What a register call means, made now or before a restart.

    Raises:
        StokerError: No workflow can be made of it.
    """
    url, name = asked.get("url"), asked.get("workflow")
    if asked.get("notation") == DJL:
        return await _plan_djl(source, asked)
    if url is None:
        raise InvalidParameter("Parameter url is required.", parameter="url")
    request = ArchiveRequest(
        url=url, model=name, s3_sse_kms=asked.get("s3_sse_kms") is True, known_hash=known_hash
    )
    archive = await source.obtain_war(request)
    try:
        common = {name: asked[name] for name in _COMMON if name in asked}
        return plan_war(archive, common)
    except BaseException:
        source.release_copy(archive.content_hash)
        raise


async def _plan_djl(source: ArchiveSource, asked: Mapping[str, Any]) -> WorkflowPlan:
    url, template = asked.get("url"), asked.get("template")
    if url is None and template is None:
        raise InvalidParameter("Parameter url is required.", parameter="url")
    parameters = {
        name.removeprefix(PARAMETER): str(value)
        for name, value in asked.items()
        if name.startswith(PARAMETER)
    }
    definition, folder = await source.obtain_definition(url or "", parameters, template)
    said = url if url is not None else f"template:{template}"
    name = asked.get("workflow") or definition.name
    if not name:
        raise WorkflowInvalid("The workflow definition has no name.", url=said)
    version = asked.get("version") or definition.version
    key = VersionKey(check_model_name(name), check_version(version or DEFAULT_VERSION))
    return plan_djl(definition, folder, said, key, is_unversioned=version is None)
