"""Exclusion lists: what is listed is left out and counted; a bad list is one sentence."""

import json

import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.retrieval.exclusions import read_exclusions, without
from pipeline.retrieval.external_features import read_external
from pipeline.retrieval.features import read_features
from pipeline.retrieval.opening import lengths
from pipeline.retrieval.ranking import evaluate
from pipeline.retrieval.scores import data_set_metrics
from stages.tools import score
from tests.helpers.features_file import write_features
from tests.stages.test_score import arrays, sides


def test_what_is_listed_is_left_out_and_counted(tmp_path):
    whole = read_features(write_features(tmp_path / "f.h5"))
    first, third = whole.query_key[[0, 2]].tolist()
    places = {str(key): f"raw/{key}" for key in (*whole.query_key, *whole.gallery_key)} | {"train/1": "raw/train/1"}
    (tmp_path / "list.csv").write_text(f"path,reason\n{first},wrong person\nraw/{third},wrong person\n"
                                       f'{whole.gallery_key[4]},"blurred, dark"\n\nraw/train/1,wrong person\n')
    kept, told = without(whole, read_exclusions(tmp_path / "list.csv"), places=places)
    assert kept.query_key.tolist() == [key for key in whole.query_key if key not in (first, third)]
    assert kept.gallery_key.tolist() == [key for key in whole.gallery_key if key != whole.gallery_key[4]]
    for name in ("features", "visibility", "pid", "camid", "mark"):
        np.testing.assert_array_equal(getattr(kept.gallery, name), np.delete(getattr(whole.gallery, name), 4, axis=0))
    assert (told.listed, told.query, told.gallery, told.elsewhere) == (4, 2, 1, 1)
    assert told.reasons == {"wrong person": 2, "blurred, dark": 1}
    assert told.sentence().endswith("2 queries and 1 gallery image (2 wrong person; 1 blurred, dark); 1 more of its 4 "
                                    "is elsewhere")


def test_score_takes_a_list(tmp_path, capsys):
    """Others' features by their own names: the figures are those without the listed pictures."""
    given = arrays()
    names = {"query_name": np.array([f"q{row}" for row in range(12)]),
             "gallery_name": np.array([f"g{row}" for row in range(50)])}
    np.savez(tmp_path / "f.npz", **given, **names)
    (tmp_path / "ignore.csv").write_text("path,reason\nq3,someone else\ng7,someone else\ng8,two people\n")
    words = [tmp_path / "f.npz", "--ignore", tmp_path / "ignore.csv", "--json", tmp_path / "out.json"]
    score.run(score.parse_arguments([str(word) for word in words]))
    query, gallery = sides(given)
    matching = read_external(tmp_path / "f.npz", distance="cosine", reduction="mean").matching
    expected = data_set_metrics([evaluate(query.take(np.delete(np.arange(12), 3)),
                                          gallery.take(np.delete(np.arange(50), [7, 8])), matching, pairs=True)])
    found = json.loads((tmp_path / "out.json").read_text())
    assert expected.items() <= found.items()
    assert (found["ignored"]["query"], found["ignored"]["gallery"], len(found["ignored"]["sha256"])) == (1, 2, 64)
    shown = capsys.readouterr().out
    assert "1 query and 2 gallery images (2 someone else; 1 two people)" in shown
    assert "distance cosine, mean over parts by visibility; AP: step sum; re-ranking: none; not said" in shown
    assert found["protocol"] in shown


@pytest.mark.parametrize(("text", "said"), [
    ("", "begins with 'nothing'"), ("file,why\na,b\n", "begins with 'file, why'; its first line must be path,reason"),
    ("path,reason\na\n", "line 2 is 'a'; it must have a path and a reason"),
    ("path,reason\na, \n", "line 2 is 'a, '"), ("path,reason\nx,because, well\n", "line 2 is 'x,because, well'"),
    ("path,reason\na,b\na,c\n", "line 3 has 'a' for the second time"),
    ('path,reason\n"a,b\n', "cannot be read as CSV"), ("path,reason\n\xff\0,b\n", "cannot be read as CSV|none of")])
def test_bad_lists_are_one_sentence(tmp_path, text, said):
    (tmp_path / "list.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=f"list.csv.*({said})") as caught:
        read_exclusions(tmp_path / "list.csv")
    assert "\n" not in str(caught.value)


def test_lists_of_other_pictures_are_one_sentence(tmp_path):
    whole = read_features(write_features(tmp_path / "f.h5"))
    (tmp_path / "list.csv").write_text("path,reason\nelsewhere.jpg,wrong\n")
    listed = read_exclusions(tmp_path / "list.csv")
    with pytest.raises(InputError, match="list.csv.*none of its 1 pictures .*add --index"):
        without(whole, listed)
    with pytest.raises(InputError, match="'elsewhere.jpg' is no path of the index"):
        without(whole, listed, places={"query/0001_0.jpg": "a.jpg"})
    with pytest.raises(InputError, match="absent.csv.*no such file"):
        read_exclusions(tmp_path / "absent.csv")
    np.savez(tmp_path / "f.npz", **arrays())
    with pytest.raises(InputError, match="names pictures, and the features do not say which theirs are"):
        without(read_external(tmp_path / "f.npz", distance="cosine", reduction="mean"), listed)


def test_a_list_has_keys_where_the_features_have_paths(tmp_path):
    """The index's keys, others' features under its paths: what is listed is left out, and of a file that stands in two
    splits the one whose key it is."""
    paths = {"query": [f"q{row}.jpg" for row in range(11)] + ["both.jpg"],
             "gallery": [f"g{row}.jpg" for row in range(49)] + ["both.jpg"]}
    np.savez(tmp_path / "f.npz", **arrays(), **{f"{part}_name": np.array(names) for part, names in paths.items()})
    whole = read_external(tmp_path / "f.npz", distance="cosine", reduction="mean")
    places = {f"{part}/{path}": path for part, names in paths.items() for path in names} | {"train/t.jpg": "t.jpg"}
    (tmp_path / "list.csv").write_text("path,reason\nquery/q3.jpg,wrong\ngallery/both.jpg,wrong\ng7.jpg,dark\n"
                                       "train/t.jpg,dark\n")
    kept, told = without(whole, read_exclusions(tmp_path / "list.csv"), places=places)
    assert kept.query_key.tolist() == [name for name in paths["query"] if name != "q3.jpg"]
    assert kept.gallery_key.tolist() == [name for name in paths["gallery"][:-1] if name != "g7.jpg"]
    assert (told.query, told.gallery, told.elsewhere, told.reasons) == (1, 2, 1, {"wrong": 2, "dark": 1})


def test_a_list_of_all_that_could_be_scored_is_refused(tmp_path):
    """All queries; all gallery images but those of nobody; all but one is a list like any other."""
    given = arrays()
    np.savez(tmp_path / "f.npz", **given, query_name=np.array([f"q{row}" for row in range(12)]),
             gallery_name=np.array([f"g{row}" for row in range(50)]))
    whole = read_external(tmp_path / "f.npz", distance="cosine", reduction="mean")
    known = [f"g{row}" for row in np.flatnonzero(given["gallery_pid"] != -1)]
    for names, said in (([f"q{row}" for row in range(12)], "leaves out 12 of 12 queries"),
                        (known, f"leaves out {len(known)} of 50 gallery images")):
        (tmp_path / "list.csv").write_text("path,reason\n" + "".join(f"{name},x\n" for name in names))
        with pytest.raises(InputError, match=f"list.csv': {said}, so that none is left to score; take some"):
            without(whole, read_exclusions(tmp_path / "list.csv"))
        (tmp_path / "list.csv").write_text("path,reason\n" + "".join(f"{name},x\n" for name in names[1:]))
        kept, _ = without(whole, read_exclusions(tmp_path / "list.csv"))
        assert names[0] in (*kept.query_key, *kept.gallery_key)


def test_lengths_are_those_of_a_loop_at_every_scale():
    query, _ = sides(arrays())
    for scale in (1, 1e200, 1e-250):
        values = query.features.astype(np.float64) * scale
        values[2] = 0
        found = lengths(type(query)(values, query.visibility, query.pid, query.camid))
        np.testing.assert_allclose(found / scale, [np.sqrt(sum(float(x / scale) ** 2 for x in row)) for row in values])
        assert np.flatnonzero(found == 0).tolist() == [2]
