"""Rendered people: one data set of images with exact labels, `python -m stages.render synth-occluded`."""

from pipeline.base.files import writable
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.renderer.dataset import Plan, render_dataset
from stages import main


def run(experiment: Experiment, key: str) -> None:
    """Render data set `key` of `render` into data/raw/KEY/."""
    settings = pick(experiment.params.render, key, "render")
    plan = Plan(key=settings.stream, kind=settings.kind, seed=settings.seed, height=settings.height,
                width=settings.width, train_ids=settings.train_ids, train_images=settings.train_images,
                test_ids=settings.test_ids, query_images=settings.query_images,
                gallery_images=settings.gallery_images)

    folder = paths.raw(key)
    writable(folder, folder=True)
    count = render_dataset(plan, folder, settings.processes)
    print(f"{count} images in {folder}")


if __name__ == "__main__":
    main(run)
