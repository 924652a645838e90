"""Market-1501's training part split anew: the same pictures as the experiments on real people were made of."""

from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from stages.tools.split_market import PARTS, run, split

REAL = Path(__file__).resolve().parents[3] / "shared/data/market1501_dev"


def names(people: int) -> list[str]:
    """Person p has a picture of each of two cameras, an even one a second of the first."""
    found = ["-1_c1s1_000001_00.jpg", "0000_c1s1_000001_00.jpg"]
    for person in range(1, people + 1):
        found += [f"{person:04d}_c1s1_000001_00.jpg", f"{person:04d}_c3s2_000002_00.jpg"]
        found += [f"{person:04d}_c1s1_000003_00.jpg"] if person % 2 == 0 else []
    return found


def test_people_are_in_one_half_and_each_camera_gives_a_query_where_something_is_left():
    parts = split(names(520))
    train, query, gallery = (parts[part] for part in PARTS)
    assert len({name[:4] for name in train}) == 500 and {name[:4] for name in gallery} == {
        f"{person:04d}" for person in range(1, 521)} - {name[:4] for name in train}
    assert sorted(train + query + gallery) == sorted(names(520)[2:])
    for person in {name[:4] for name in gallery}:
        own = [name[6] for name in query if name[:4] == person]
        assert sorted(own) == ([] if int(person) % 2 else ["1", "3"])
    assert split(names(520)[::-1]) == parts


def test_it_writes_links_and_refuses_other_folders(tmp_path, capsys):
    source = tmp_path / "bounding_box_train"
    source.mkdir()
    for name in names(520):
        (source / name).write_text(name)
    made = run(source, tmp_path / "dev")
    assert sum(made.values()) == len(names(520)) - 2
    assert "has 1302 pictures of 522 people, Market-1501's training part 12936 of 751: it is another split than that " \
           "of the results here" in capsys.readouterr().err
    assert all(file.read_text() == file.name for part in PARTS for file in (tmp_path / "dev" / part).iterdir())
    with pytest.raises(InputError, match="dev': is there already; name a folder that is not, or remove it"):
        run(source, tmp_path / "dev")
    with pytest.raises(InputError, match="dev': has no more than 500 people .*; name Market-1501's bounding_box_train"):
        run(tmp_path / "dev", tmp_path / "other")
    (source / "a.jpg").touch()
    with pytest.raises(InputError, match=r"a\.jpg.*0002_c1s1_000451_03\.jpg"):
        run(source, tmp_path / "other")


@pytest.mark.skipif(not REAL.is_dir(), reason="shared/data/market1501_dev is not on this machine")
def test_it_is_the_split_of_the_results_on_real_people():
    held = {part: sorted(file.name for file in (REAL / part).iterdir()) for part in PARTS}
    assert split([name for listed in held.values() for name in listed]) == held
