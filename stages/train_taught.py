"""Human parser trained on rendered people and on photographs that a teacher divides: python -m stages.train_taught KEY

The labels are DensePose's 24 with u,v, which rendered people alone teach. Writes, goes on and costs what
stages.train_parser does; the scores are those of held-out rendered people and, beside them, of held-out photographs.
"""

import sys
from pathlib import Path

import numpy as np

from pipeline.base.errors import InputError
from pipeline.config.loader import Experiment, pick
from pipeline.parsing.rendered_set import ParsingSet, label_shares
from pipeline.parsing.taught_set import Mixture, TaughtPhotographs
from stages import main
from stages.shared.parser_licences import APACHE, RENDERED, TEACHERS, UNKNOWN_TERMS
from stages.shared.parser_training import Lesson, check_outputs, learn


def run(experiment: Experiment, key: str) -> None:
    settings = pick(experiment.params.taught, key, "taught")
    check_outputs(key)
    of_batch = round(settings.share * settings.batch)
    if not 0 < of_batch < settings.batch:
        raise InputError(f"taught.{key}: share is {settings.share} and batch {settings.batch}, so that a batch has "
                         f"{of_batch} photographs; it has at least one, and one rendered person")

    plan = pick(experiment.plan.train_taught, key, "plan.train_taught")
    size = {"height": settings.height, "width": settings.width}
    try:
        people, other_people = (ParsingSet(Path(plan.rendered), part, taxonomy="densepose24", uv=True, **size)
                                for part in ("train", "val"))
        photographs, others = (TaughtPhotographs(Path(plan.raw), part, layout=settings.layout,
                                                 teacher=Path(plan.teacher), **size) for part in ("train", "val"))
    except InputError as error:
        raise InputError(f"taught.{key}: {error}") from error

    for remark in filter(None, (photographs.remark(), others.remark())):
        print(f"{key}: {remark}", file=sys.stderr)
    mixture = Mixture(people, photographs, of_batch=of_batch, batch=settings.batch, seed=settings.seed,
                      augment=settings.augment)
    share = of_batch / settings.batch
    shares: np.ndarray = share * label_shares(photographs) + (1 - share) * label_shares(people)
    teacher = photographs.teacher.maker.get("parser")
    licences = {RENDERED: APACHE, f"photographs ({settings.layout})": photographs.layout.licence,
                f"the teacher {teacher}": TEACHERS.get(str(teacher), UNKNOWN_TERMS)}
    lesson = Lesson(mixture, mixture.paths, shares, f"{people.sha256()} {photographs.sha256()}", people.taxonomy,
                    people.uv, licences)
    learn(experiment.params, settings, lesson, other_people, key=key, beside={"photographs": others})


if __name__ == "__main__":
    main(run)
