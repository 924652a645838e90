"""The list of planted faults fits the code, and the tool tells a killed fault from one that lives."""

import pytest

from benchmarks.planted import LIST, ROOT, Fault, copied, plant, read_faults, run_tests, unfit

TESTS = "from room import double\n\n\ndef test_double():\n    assert double(2) == 4\n"


@pytest.mark.slow
def test_every_planted_fault_fits_the_code():
    faults = read_faults(LIST)
    assert unfit(faults, ROOT) == [] and len(faults) >= 150
    assert len({(fault.file, fault.old, fault.new) for fault in faults}) == len(faults)


def test_a_fault_is_killed_by_the_test_that_sees_it_or_lives(tmp_path):
    (tmp_path / "room.py").write_text("def double(x):\n    return x * 2\n")
    (tmp_path / "test_room.py").write_text(TESTS)

    def fault(new: str) -> Fault:
        return Fault("room.py", ("test_room.py",), "return x * 2", new, "it doubles", "")

    assert run_tests(tmp_path, "test_room.py") == (0, "")
    assert plant(fault("return x * 3"), tmp_path) == "test_room.py::test_double (AssertionError)"
    assert plant(fault("return x + x"), tmp_path) == ""
    assert plant(fault("return y"), tmp_path).endswith("(NameError)")
    assert (tmp_path / "room.py").read_text().endswith("return x * 2\n")
    assert run_tests(tmp_path, "test_room.py") == (0, "")


def test_faults_that_fit_no_more_are_named(tmp_path):
    (tmp_path / "room.py").write_text("a = 1\na = 1\n")
    (tmp_path / "list.txt").write_text(
        "= room.py test_room.py\n- a = 1\n+ a = 2\n# once\n! why\n\n- b = 1\n+ b = 2\n# gone\n")
    faults = read_faults(tmp_path / "list.txt")
    assert [(fault.old, fault.alive) for fault in faults] == [("a = 1", "why"), ("b = 1", "")]
    assert unfit(faults, tmp_path) == [
        "room.py: the old text stands there 2 times, not once: a = 1", "room.py: there is no test_room.py",
        "room.py: the old text stands there 0 times, not once: b = 1", "room.py: there is no test_room.py"]
    for text, said in (("= room.py t\n- a\n+ b\n", "lacks one of its lines"), ("x\n", "line 1 begins with none")):
        (tmp_path / "list.txt").write_text(text)
        with pytest.raises(SystemExit, match=said):
            read_faults(tmp_path / "list.txt")


def test_the_copy_has_what_tests_need(tmp_path):
    copied(ROOT, tmp_path)
    assert (tmp_path / "models/dsa.py").is_file() and (tmp_path / "tests/models/test_dsa.py").is_file()
    assert not (tmp_path / "data").exists() and not (tmp_path / "ci").exists()
