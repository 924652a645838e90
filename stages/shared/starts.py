"""Networks built without numbers, before anything is trained: whether a run has a backbone that it can use, and whether
its weights fit those of the run that it starts from."""

from typing import Any

import torch

from models.pretrained import package_file
from pipeline.base.errors import InputError
from pipeline.config.schema import MatchParams, RunParams, without_neutral
from pipeline.training.checkpoints import misfit
from stages.shared.trained_run import build, shared_tensors

IDS = 2  # people; only classifiers have to do with them
CAMERAS = (1, 2)  # of a training set that nobody has read yet


def check_shapes(run: RunParams, match: MatchParams, *, key: str, start: RunParams, start_match: MatchParams,
                 start_key: str) -> None:
    """InputError, naming the first tensor that differs and the settings that do, if `run` cannot start from `start`."""
    own, theirs = _shapes(run, match, key), _shapes(start, start_match, start_key)
    wrong = misfit(theirs, own)
    if wrong:
        settings = ", ".join(f"{name} is {there!r} there and {here!r} here"
                             for name, there, here in _differing(start, run))
        raise InputError(f"runs.{key}.init: weights of run {start_key!r} do not fit, {wrong}: {settings}; give both "
                         "the same, or start from another run")


def check_backbone(run: RunParams, match: MatchParams, *, key: str) -> None:
    """InputError if the network cannot be built on its backbone, or the package with its weights is not installed."""
    _shapes(run, match, key)
    if run.init == "package":
        try:
            package_file(run.backbone)
        except ValueError as error:
            raise InputError(f"runs.{key}: {error}") from error


def _shapes(run: RunParams, match: MatchParams, key: str) -> dict[str, torch.Tensor]:
    """A run's tensors by name, without classifiers and without numbers in them."""
    with torch.device("meta"):
        network = build(run, key=key, ids=IDS, match=match, init="none",
                        cameras=CAMERAS if run.camera == "embed" else ())
    return shared_tensors(network, network.state_dict(), key=key)


def _differing(start: RunParams, run: RunParams) -> list[tuple[str, Any, Any]]:
    """(setting, there, here) of the model, where the two differ."""
    there, here = without_neutral(start.model), without_neutral(run.model)
    return [(f"model.{name}", there.get(name), here.get(name)) for name in dict.fromkeys([*there, *here])
            if there.get(name) != here.get(name)]
