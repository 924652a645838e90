"""A few rendered people, each another person, for tests on labels that are known to be right."""

from functools import cache

from pipeline.base.seeds import rng
from pipeline.renderer.person import draw_person
from pipeline.renderer.picture import Picture, Wish, render_picture
from pipeline.renderer.scene import draw_look


@cache
def people(count: int) -> list[Picture]:
    wish = Wish(hidden=None, style="test", crop="box", fault=0.0)
    return [render_picture(draw_person(rng(8, "person", number)), draw_look(rng(8, "look", number)), wish,
                           rng(8, "picture", number), 128, 64) for number in range(count)]
