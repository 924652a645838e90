"""Render one data set of people with exact labels: `python -m stages.render default-synth-occluded`."""

from pathlib import Path

from pipeline.params import Params, pick
from pipeline.render import Plan, render_dataset
from stages import main


def run(params: Params, key: str) -> None:
    """Render data set `key` of `render` into data/raw/<key>/."""
    wanted = pick(params.render, key, "render")
    plan = Plan(key=key, kind=wanted.kind, seed=wanted.seed, height=wanted.height, width=wanted.width,
                train_ids=wanted.train_ids, train_images=wanted.train_images, test_ids=wanted.test_ids,
                query_images=wanted.query_images, gallery_images=wanted.gallery_images)
    folder = Path("data/raw") / key
    count = render_dataset(plan, folder, wanted.processes)
    print(f"{count} pictures in {folder}")


if __name__ == "__main__":
    main(run)
