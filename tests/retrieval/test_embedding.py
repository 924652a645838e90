"""Embedding: images to a features file, and what is refused on reading one."""

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

import pipeline.retrieval.distances
import pipeline.retrieval.features
import pipeline.retrieval.metrics
import pipeline.retrieval.ranking
import pipeline.retrieval.scores
from pipeline.base.errors import InputError
from pipeline.retrieval.distances import save_distances
from pipeline.retrieval.features import read_features
from pipeline.retrieval.matching import Matching
from tests.helpers.features_file import MAKER, write_features
from tests.helpers.loop_ranking import problem


def test_features_errors(tmp_path):
    good = write_features(tmp_path / "good.h5")
    found = read_features(good)
    assert len(found.query) == 6 and len(found.gallery) == 18 and found.query_key[0] == "query/0001_0.jpg"
    cut = tmp_path / "cut.h5"
    cut.write_bytes(good.read_bytes()[:3000])
    bad = np.ones((24, 16), np.float32)
    bad[7, 3] = np.nan
    cases = [(cut, "truncated or no HDF5 file.*dvc repro"),
             (tmp_path / "absent.h5", "no such features file"),
             (write_features(tmp_path / "nan.h5", features=bad), "features of .*gallery/0002_7.jpg.* are not finite"),
             (write_features(tmp_path / "query.h5", split=[b"query"] * 24), "holds no gallery image"),
             (write_features(tmp_path / "gallery.h5", split=[b"gallery"] * 24), "holds no query image"),
             (write_features(tmp_path / "other.h5", sizes=np.array([8, 4])), "16 feature columns.*12 together"),
             (write_features(tmp_path / "maker.h5", maker={"run": "a"}), "does not say its 'dataset'"),
             (write_features(tmp_path / "hidden.h5", occlusion=np.zeros(9)), "columns differ in length"),
             (write_features(tmp_path / "trial.h5", trial=np.zeros((24, 2))), "'trial' is missing or of another shape")]
    with h5py.File(tmp_path / "parts.h5", "w") as file:
        file["labels"] = np.zeros((3, 4, 4))
    cases.append((tmp_path / "parts.h5", "is no features file .*'maker' is missing"))
    for path, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            read_features(path)
        assert path.name in str(caught.value)


def test_a_whole_body_that_is_no_part_is_one_sentence(tmp_path):
    for wrong in (2, -1, "head"):
        path = write_features(tmp_path / "w.h5", maker=MAKER | {"whole_body": wrong})
        with pytest.raises(InputError, match=f"the whole body is part {wrong!r}; it is one of the 2 parts"):
            read_features(path)
    assert read_features(write_features(tmp_path / "w.h5", maker=MAKER | {"whole_body": 1})).matching.whole_body == 1
    assert read_features(write_features(tmp_path / "w.h5")).matching.whole_body is None


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    query, gallery = problem(np.random.default_rng(1), (4, 5), "exact")
    (tmp_path / "file").write_bytes(b"")
    frame = pd.DataFrame({"image": ["a.jpg"], "pid": [1], "camid": [1], "split": ["query"]})
    with pytest.raises(InputError, match="d.npy': cannot be written .*make room or mend the folder"):
        save_distances(tmp_path / "file/d.npy", query, gallery, Matching((4, 5), "cosine", "mean"))
    with pytest.raises(InputError, match="f.h5': cannot be written"):
        pipeline.retrieval.features.write_features(tmp_path / "file/f.h5", frame=frame, features=np.ones((1, 2)),
                                                   visibility=np.ones((1, 1)), sizes=(2,), provenance={},
                                                   dtype="float16")


class Echo(torch.nn.Module):
    """A network whose feature is an image's row."""
    sizes = (1,)

    def embed(self, batch):
        return batch["row"][:, None].half(), torch.ones(len(batch["row"]), 1)


def test_embedded_are_so_many_images_and_the_padding_is_dropped():
    batches = iter([{"row": torch.tensor([0, 1, 2])}, {"row": torch.tensor([3, 4, 4])}])
    features, visibility = pipeline.retrieval.features.embed_images(Echo(), batches, count=5,
                                                                    device=torch.device("cpu"))
    assert features.tolist() == [[0], [1], [2], [3], [4]] and features.dtype == np.float32
    assert visibility.tolist() == [[1]] * 5


def test_fewer_images_than_are_asked_for_are_never_filled_up():
    with pytest.raises(ValueError, match="batches of 2 images in all, and 5 are to be embedded"):
        pipeline.retrieval.features.embed_images(Echo(), iter([{"row": torch.tensor([0, 1])}]), count=5,
                                                 device=torch.device("cpu"))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_are_stored_in_the_type_that_was_asked_for(tmp_path, dtype):
    frame = pd.DataFrame({"image": ["a", "b"], "pid": [1, 1], "camid": [1, 2], "split": ["gallery", "query"]})
    thirds = np.array([[1 / 3, 2 / 3], [1 / 7, 5 / 7]], np.float32)
    pipeline.retrieval.features.write_features(tmp_path / "f.h5", frame=frame, features=thirds, sizes=(2,),
                                               visibility=np.ones((2, 1)), provenance=MAKER, dtype=dtype)
    found = read_features(tmp_path / "f.h5")
    np.testing.assert_array_equal(found.query.features, thirds[1:].astype(dtype))
    np.testing.assert_array_equal(found.gallery.features, thirds[:1].astype(dtype))


def test_the_index_s_trials_and_occlusion_reach_evaluation(tmp_path):
    frame = pd.DataFrame({"image": [f"{number}.jpg" for number in range(6)], "pid": [1, 2, 1, 2, 1, 2], "camid": 1,
                          "split": ["gallery"] * 4 + ["query"] * 2, "trial": [0, 0, 5, 5, 0, 5],
                          "occlusion": [0, 0, 0, 0, 0.25, 0.75]})
    pipeline.retrieval.features.write_features(tmp_path / "f.h5", frame=frame, features=np.arange(12.0).reshape(6, 2),
                                               visibility=np.ones((6, 1)), sizes=(2,), provenance=MAKER,
                                               dtype="float32")
    trials = read_features(tmp_path / "f.h5").trials()
    assert [trial.gallery_key.tolist() for trial in trials] == [["0.jpg", "1.jpg"], ["2.jpg", "3.jpg"]]
    assert [trial.query.features.tolist() for trial in trials] == [[[8, 9]], [[10, 11]]]
    assert [trial.query.occlusion.tolist() for trial in trials] == [[0.25], [0.75]]
