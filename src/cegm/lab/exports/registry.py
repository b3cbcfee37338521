"""A mirror of the roll-out in MLflow: files, a version, an alias, tags. It is looked at by people and never believed by the tool.

An alias keeps no user, time or history, and files in a store may change unseen. So what the chain said last is noted beside each alias, and
an alias that is somewhere else by now is reported before it is put back.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cegm.lab.rollout.rollout_state import RolloutState

ALIASES = ("champion", "challenger")
NOBODY = "nobody"


def mirror(uri: str, name: str, state: RolloutState) -> list[str]:
    """Writes a release and its stage into a registry; returns what was found there that the chain did not say.

    Args:
        uri: Of the MLflow server, or of its folder.
        name: Of the registered model.
        state: Where the roll-out stands.

    Raises:
        ValueError: MLflow is not installed, or the registry did not take it.
    """
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise ValueError("registry needs a package that is not installed: pip install mlflow-skinny") from None
    mlflow.set_tracking_uri(uri)  # not to the client alone: parts of MLflow would make a database where they stand
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient()
    try:
        version = _version(client, name, state)
        found = list(_disagreements(client, name))
        _set_aliases(client, name, version, state)
    except MlflowException as error:
        raise ValueError(f"registry={uri} refused: {error}; see that it runs and may be written to") from None
    return found


def _version(client: Any, name: str, state: RolloutState) -> str:
    """The version of the release, made where there is none yet, with the stage in its tags."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    known = [
        each
        for each in client.search_model_versions(f"name = '{name}'")
        if each.tags.get("cegm.manifest") == state.manifest
    ]
    version = str(known[0].version) if known else _logged(client, name, state)
    for tag, value in (("stage", state.stage), ("chain_end", state.end), ("approver", state.approver)):
        client.set_model_version_tag(name, version, f"cegm.{tag}", value)
    return version


def _logged(client: Any, name: str, state: RolloutState) -> str:
    """Logs the files of a release under a run of their own; returns the number of the version they are."""
    experiment = client.get_experiment_by_name(name)
    number = client.create_experiment(name) if experiment is None else experiment.experiment_id
    run = client.create_run(number, run_name=f"release {state.manifest[:16]}")
    client.log_artifacts(run.info.run_id, str(Path(state.release)), "release")
    client.set_terminated(run.info.run_id)
    source = f"{run.info.artifact_uri}/release"
    tags = {"cegm.manifest": state.manifest}
    return str(client.create_model_version(name, source, run.info.run_id, tags=tags).version)


def _disagreements(client: Any, name: str) -> Iterator[str]:
    """Aliases that are not where the chain had put them."""
    model = client.get_registered_model(name)
    for alias in ALIASES:
        said, holder = model.tags.get(f"cegm.{alias}"), str(model.aliases.get(alias, NOBODY))
        if said is not None and said != holder:
            yield f"registry: {alias} is version {holder} of {name}, but {said} by the chain; somebody moved it, it is put back"


def _set_aliases(client: Any, name: str, version: str, state: RolloutState) -> None:
    """Gives the version the alias of its stage; whoever had that loses it, and after a return nobody is challenger."""
    wanted = {"all": "champion", "back": ""}.get(state.stage, "challenger")
    model = client.get_registered_model(name)
    aliases = {alias: str(number) for alias, number in model.aliases.items()}
    for alias in ALIASES:
        before = model.tags.get(f"cegm.{alias}", aliases.get(alias, NOBODY))
        holder = version if alias == wanted else before if before != version else NOBODY
        if holder == NOBODY and alias in aliases:
            client.delete_registered_model_alias(name, alias)
        elif holder != NOBODY:
            client.set_registered_model_alias(name, alias, holder)
        client.set_registered_model_tag(name, f"cegm.{alias}", holder)
