"""The stage train where a run starts from another's weights: which it takes, what it records, and what it refuses."""

import functools
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.caches.resumable import hold
from pipeline.config import paths
from pipeline.config.loader import Experiment
from pipeline.datasets.index import read_index
from pipeline.loading.dataset import embedding_rows, training_rows
from pipeline.training import loop
from pipeline.training.checkpoints import CHECKSUM, METADATA, read_weights, tensors_sha256
from stages import train
from stages.shared.trained_on import check_unseen, of_weight_file, read_trained_on
from tests.helpers.bare_params import bare_experiment, train_entry
from tests.helpers.fake_runs import DATA, READS, fake_experiment, fake_sections
from tests.helpers.fake_set import write_fake_caches, write_fake_set

OTHER, RAW = "other", "data/other"  # another set, of fewer people
NETWORKS = ("baseline", "sorn", "dsa", "esa", "sgsfa", "sgam", "pcb")
CLASSIFIERS = {  # by name, as the networks' files have them
    "baseline": r"classifier\.", "sorn": r"global_classifier\.|local_classifiers\.", "dsa": r"classify_[fz]\.",
    "esa": "classifiers", "sgsfa": r"heads\.classify\.", "sgam": r"classifiers\.", "pcb": r"classifiers\."}
MEASURED = {"medians"}  # on the training set, not learned


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Iterator[Path]:
    """Two made-up sets, and every network trained on the first."""
    folder = tmp_path_factory.mktemp("project")
    for name, raw, ids in ((DATA, folder / "data/raw", 6), (OTHER, folder / RAW, 4)):
        frame = write_fake_set(raw, folder / f"data/index/{name}.csv", ids=ids)
        write_fake_caches(folder / f"data/cache/{name}", raw, frame)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in NETWORKS:
            train.run(fake_experiment(), name)
        yield folder
    torch.use_deterministic_algorithms(False)


def second(name: str, start: str = "", **changes: Any) -> Experiment:
    """An experiment with the runs of `fake_experiment` and `second`, which starts from one of them on the other set."""
    params, plan = fake_sections()
    start = start or name
    own = {"train_on": OTHER, "cache": OTHER if name in READS else "none", "init": f"run:{start}", "seed": 3}
    params["runs"]["second"] = params["runs"][name] | own | changes
    params["results"]["second"] = params["results"][name]
    entry = train_entry(name, train_on=OTHER, raw=RAW, file=READS.get(name))
    started = entry | {"start": start, "weights": paths.weights(start).as_posix()}
    return bare_experiment(params=params, plan=plan | {"train_from": {"second": started}})


def before_the_first_step(experiment: Experiment, monkeypatch) -> tuple[dict[str, Tensor], Any]:
    """The tensors with which the stage begins to train, and the optimiser's groups."""
    seen: dict[str, Any] = {}

    def begin(network, optimizer, **rest):
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        seen["tensors"] = {key: tensor.clone() for key, tensor in network.state_dict().items()}
        seen["groups"] = {group["factor"]: {names[id(parameter)] for parameter in group["params"]}
                          for group in optimizer.param_groups}
        raise InputError("seen")

    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", begin)
        with pytest.raises(InputError, match="seen"):
            train.run(experiment, "second")
    return seen["tensors"], seen["groups"]


def is_classifier(name: str, key: str) -> bool:
    return re.match(CLASSIFIERS[name], key) is not None


@pytest.mark.parametrize("name", NETWORKS)
def test_it_starts_from_all_tensors_but_the_classifiers(project, monkeypatch, name):
    first, _ = read_weights(paths.weights(name))
    own, _ = before_the_first_step(second(name), monkeypatch)
    assert own.keys() == first.keys()
    classifiers = {key for key in own if is_classifier(name, key)}
    for key in own.keys() - classifiers - MEASURED:
        assert torch.equal(own[key], first[key]), key
    assert sum(own[key].shape != first[key].shape for key in classifiers) > 0  # four people, not six
    assert not any(torch.equal(own[key], first[key]) for key in classifiers if own[key].dim() > 1)
    for key in own.keys() & MEASURED:  # of its own pictures
        assert own[key].isfinite().all() and not torch.equal(own[key], first[key])


def test_its_classifiers_are_drawn_from_its_own_seed(project, monkeypatch):
    one, _ = before_the_first_step(second("baseline"), monkeypatch)
    again, _ = before_the_first_step(second("baseline"), monkeypatch)
    other, _ = before_the_first_step(second("baseline", seed=4), monkeypatch)
    assert torch.equal(one["classifier.3.weight"], again["classifier.3.weight"])
    assert not torch.equal(one["classifier.3.weight"], other["classifier.3.weight"])


def test_pretrained_layers_are_all_but_the_classifiers(project, monkeypatch):
    optimizer = fake_sections()[0]["runs"]["sorn"]["optimizer"] | {"pretrained_lr_factor": 0.25}
    tensors, groups = before_the_first_step(second("sorn", optimizer=optimizer), monkeypatch)
    assert set(groups) == {0.25, 1.0}
    assert groups[1.0] == {key for key in tensors if is_classifier("sorn", key)}
    assert "backbone.conv1.weight" in groups[0.25] and "local_norm.weight" in groups[0.25]


def test_the_record_says_where_it_started(project):
    train.run(second("sorn", image_steps=8), "second")
    expected = {"run": "sorn", "sha256": hashlib.sha256(Path(paths.weights("sorn")).read_bytes()).hexdigest()}
    record = json.loads(Path(paths.train_record("second")).read_text())
    assert record["start"] == read_weights(paths.weights("second"))[1]["start"] == expected
    assert record["parameters"]["init"] == "run:sorn" and record["ids"] == 4
    assert "start" not in json.loads(Path(paths.train_record("sorn")).read_text())


def digests(raw: str, names: Iterable[str]) -> list[str]:
    return sorted({hashlib.sha256(Path(raw, name).read_bytes()).hexdigest()[:16] for name in names})


def test_a_run_records_its_pictures_and_those_of_the_runs_that_it_comes_from(project):
    trained = {raw: training_rows(read_index(paths.index(name)), max_ids=0)["path"]
               for name, raw in ((DATA, "data/raw"), (OTHER, RAW))}
    train.run(second("pcb", image_steps=8), "second")
    first = {"pcb": {"train_on": DATA, "images": digests("data/raw", trained["data/raw"])}}
    own = {"second": {"train_on": OTHER, "images": digests(RAW, trained[RAW])}}
    assert read_trained_on(paths.trained_on("pcb")) == first
    assert read_trained_on(paths.trained_on("second")) == first | own
    train.run(second("pcb", image_steps=0), "second")
    assert read_trained_on(paths.trained_on("second")) == first


def test_a_run_is_not_scored_on_people_whom_it_or_a_run_that_it_comes_from_was_trained_on(project, tmp_path):
    """By the bytes of their images, whatever the sets call them: one image of another set's gallery is enough."""
    trained = training_rows(read_index(paths.index(DATA)), max_ids=0)
    scored = embedding_rows(read_index(paths.index(OTHER)))
    pcb = {"pcb": {"train_on": DATA, "images": digests("data/raw", trained["path"])}}
    check_unseen(pcb, scored, RAW, run="pcb", dataset=OTHER)
    check_unseen({}, scored, "nowhere", run="untrained", dataset=OTHER)

    raw = tmp_path / "leaked"
    shutil.copytree(RAW, raw)
    (raw / scored["path"].iloc[-1]).write_bytes(Path("data/raw", trained["path"].iloc[0]).read_bytes())
    that = f"trained on '{DATA}', and that has 1 of the people whom 'leaked' asks for .such as image '.*'."
    with pytest.raises(InputError, match=f"^run 'pcb' was {that}; train it on other people, or evaluate on another"):
        check_unseen(pcb, scored, raw, run="pcb", dataset="leaked")
    with pytest.raises(InputError, match=f"^run 'second' comes from 'pcb', which was {that}; start from a run that has "
                                         "not seen them"):
        check_unseen(pcb, scored, raw, run="second", dataset="leaked")


def test_what_stands_in_both_parts_of_the_set_that_it_trains_on_is_for_prepare_to_judge(project, tmp_path):
    scored = embedding_rows(read_index(paths.index(OTHER)))
    own = {"train_on": "published", "images": digests(RAW, scored["path"].head(1))}
    check_unseen({"one": own}, scored, RAW, run="one", dataset="published")
    check_unseen({"one": own, "two": own}, scored, RAW, run="two", dataset="published")
    with pytest.raises(InputError, match="run 'two' comes from 'one', which was trained on 'published', and that has"):
        check_unseen({"one": own, "two": {"train_on": "published", "images": []}}, scored, RAW, run="two",
                     dataset="published")


def test_a_weight_file_of_a_run_takes_along_what_it_was_trained_on(project, tmp_path):
    path = tmp_path / "weights.safetensors"
    shutil.copy(paths.weights("baseline"), path)
    with pytest.raises(InputError, match=f"runs.second.init: '{path}' holds weights of run 'baseline', which was "
                                         f"trained on '{DATA}', and '.*trained_on.json' is not there, so that 'second' "
                                         "could be scored on people whom it knows; put that run's own beside"):
        of_weight_file(str(path), key="second")
    shutil.copy(paths.trained_on("pcb"), tmp_path / "trained_on.json")
    with pytest.raises(InputError, match="'.*trained_on.json' is of other runs"):
        of_weight_file(str(path), key="second")

    shutil.copy(paths.trained_on("baseline"), tmp_path / "trained_on.json")
    params, plan = fake_sections(init=str(path), image_steps=8)
    plan["train"] = {"pcb": plan["train"]["pcb"]}
    kept = {file: Path(file(name)).read_bytes() for name in ["pcb"]
            for file in (paths.weights, paths.trained_on, paths.train_record)}
    train.run(bare_experiment(params=params, plan=plan), "pcb")
    assert read_trained_on(paths.trained_on("pcb")).keys() == {"baseline", "pcb"}
    made = json.loads(paths.train_record("pcb").read_text())["checkpoint"]
    assert (made["file"], made["sha256"]) == (str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    for file, content in kept.items():
        file("pcb").write_bytes(content)


def test_a_weight_file_of_others_or_of_an_untrained_run_was_trained_on_nothing_here(project, tmp_path):
    tensors, made = read_weights(paths.weights("pcb"))
    for name, metadata in (("theirs", None), ("untrained", made | {"parameters": {"image_steps": 0}})):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(save(tensors, metadata=metadata and {METADATA: json.dumps(metadata)}))
        assert of_weight_file(str(path), key="second") == {}
    assert of_weight_file("resnet50.pth", key="second") == {}


@pytest.mark.parametrize(("text", "reason"), [("{", "cannot be read"), ("[]", "is no record"),
                                              ('{"a": 1}', "is no record"), (None, "is not there")])
def test_a_damaged_record_is_one_sentence(tmp_path, text, reason):
    path = tmp_path / "trained_on.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=f"trained_on.json': .*{reason}.*make it with the stage train"):
        read_trained_on(path)


def test_a_stopped_training_goes_on_from_its_checkpoint_and_not_from_the_start(project, monkeypatch):
    train.run(second("baseline"), "second")
    expected = Path(paths.weights("second")).read_bytes()
    step, done = loop._step, []

    def twice(*arguments, **more):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(more)
        return step(*arguments, **more)

    monkeypatch.setattr(train, "fit", functools.partial(loop.fit, checkpoint_steps=1, checkpoint_seconds=0))
    monkeypatch.setattr(loop, "_step", twice)
    with pytest.raises(KeyboardInterrupt):
        train.run(second("baseline"), "second")
    steps = []
    monkeypatch.setattr(loop, "_step", lambda *arguments, **more: steps.append(more) or step(*arguments, **more))
    train.run(second("baseline"), "second")
    assert len(steps) == 1 and Path(paths.weights("second")).read_bytes() == expected


def places_of(monkeypatch) -> list[Path]:
    """Where trainings keep their unfinished work: each notes it and stops, `seen`."""
    places = []

    def begin(network, optimizer, *, scratch, **rest):
        places.append(scratch)
        raise InputError("seen")

    monkeypatch.setattr(train, "fit", begin)
    return places


def test_unfinished_work_belongs_to_the_weights_that_it_started_from(project, monkeypatch):
    places = places_of(monkeypatch)
    path = Path(paths.weights("pcb"))
    kept = path.read_bytes()
    tensors, provenance = read_weights(path)
    for changed in (False, False, True):
        if changed:  # as after another training
            tensors["norm.weight"] += 1
            told = provenance | {CHECKSUM: tensors_sha256(tensors)}
            path.write_bytes(save(tensors, metadata={METADATA: json.dumps(told)}))
        with pytest.raises(InputError, match="seen"):
            train.run(second("pcb"), "second")
    path.write_bytes(kept)
    assert places[0] == places[1] != places[2]


def test_unfinished_work_belongs_to_the_code_that_made_it(project, monkeypatch):
    places = places_of(monkeypatch)
    for code in (train.CODE, train.CODE, (*train.CODE, "stages/embed.py")):
        monkeypatch.setattr(train, "CODE", code)
        with pytest.raises(InputError, match="seen"):
            train.run(second("pcb"), "second")
    assert places[0] == places[1] != places[2]


def test_two_processes_on_one_training_are_refused(project, monkeypatch):
    def begin(network, optimizer, *, scratch, **rest):
        with pytest.raises(InputError, match="runs.second: is being made by process .*; wait for it, or stop it"), \
                hold(scratch.with_name(f"lock-{scratch.name}"), "runs.second"):
            pass
        raise InputError("seen")

    monkeypatch.setattr(train, "fit", begin)
    with pytest.raises(InputError, match="seen"):
        train.run(second("pcb"), "second")


def test_tensors_that_do_not_fit_are_one_sentence(project):
    """What compose could not know: the weights are not those of the parameters, or of other shapes."""
    params, _ = fake_sections()
    narrow = params["runs"]["sorn"]["model"] | {"channels": 8}
    with pytest.raises(InputError, match=r"runs.second.init: weights of run 'sorn' .'data/runs/sorn/weights.safeten.*'"
                                         r". do not fit: expand.weight is \(16, .*\), expected \(8, .*\); give both "
                                         "the same"):
        train.run(second("sorn", model=narrow), "second")
    with pytest.raises(InputError, match=r"second.init: .* do not fit: classifier.0.weight is .*, expected absent"):
        train.run(second("sorn", start="baseline"), "second")
    with pytest.raises(InputError, match=r"no such weights; make them with the stage train"):
        Path(paths.weights("esa")).rename("elsewhere")
        try:
            train.run(second("esa"), "second")
        finally:
            Path("elsewhere").rename(paths.weights("esa"))
