"""Networks built from a run's parameters: what they cannot be is said before anything is trained."""

import pytest

from pipeline.base.errors import InputError
from stages.shared.trained_run import build
from tests.helpers.bare_params import bare_experiment
from tests.helpers.fake_runs import fake_sections


@pytest.mark.parametrize(("run", "setting", "count", "rows"), [
    ("histogram", "stripes", 33, 32), ("sorn", "patches", 3, 2), ("sorn", "channel_sets", 3, 2),
    ("pcb", "stripes", 3, 2)])
def test_more_stripes_than_rows_are_refused(run, setting, count, rows):
    params, plan = fake_sections()
    params["runs"][run] = params["runs"][run] | {"model": params["runs"][run]["model"] | {setting: count}}
    experiment = bare_experiment(params=params, plan=plan)
    said = f"runs.{run}: model.{setting} is {count}, and a height of 32 leaves {rows} rows to divide; take fewer"
    with pytest.raises(InputError, match=said):
        build(experiment.run(run), key=run, ids=6, match=experiment.params.results[run].match, init="none")
