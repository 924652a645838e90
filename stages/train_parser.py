"""Human parser trained on rendered people and measured on held-out ones: python -m stages.train_parser KEY

Writes data/parsers/KEY/weights.safetensors and data/results/parsers/KEY.json. Stopped, it goes on from its last
checkpoint under scratch/train-parser. The default (128x64, 14,400 image-steps from the parser of real people) gives a
mean IoU of 0.71 over the 8 parts.
"""

from pathlib import Path

from pipeline.config.loader import Experiment, pick
from pipeline.parsing.rendered_set import ParsingSet
from stages import main
from stages.shared.parser_licences import APACHE, RENDERED
from stages.shared.parser_training import check_outputs, learn, lesson_of


def run(experiment: Experiment, key: str) -> None:
    settings = pick(experiment.params.parsers, key, "parsers")
    check_outputs(key)
    plan = {**experiment.plan.train_parser, **experiment.plan.train_parser_from}
    raw = Path(pick(plan, key, "plan.train_parser").raw)
    learned, held_out = (ParsingSet(raw, part, taxonomy=settings.labels, uv=settings.uv, height=settings.height,
                                    width=settings.width) for part in ("train", "val"))
    learn(experiment.params, settings, lesson_of(learned, settings, {RENDERED: APACHE}), held_out, key=key)


if __name__ == "__main__":
    main(run)
