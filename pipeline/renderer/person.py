"""Person, who is rendered: build, skin, hair, clothes, colours, patterns, shoes, hat, bag.

Colours come from short shared palettes and there are few clothing classes, so that several people look alike and a
colour histogram cannot tell them apart; what separates them is the combination.
"""

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

SKIN = [(236, 200, 178), (224, 182, 152), (205, 160, 128), (180, 134, 100), (142, 100, 72), (104, 70, 50), (78, 54, 42)]
HAIR = [(24, 21, 20), (30, 24, 21), (48, 34, 26), (78, 54, 36), (120, 86, 54), (176, 142, 92), (150, 148, 146)]
TOPS = [(34, 34, 38), (232, 232, 228), (122, 124, 128), (38, 52, 92), (64, 104, 168), (160, 38, 42), (48, 96, 66),
        (196, 168, 128), (208, 176, 64), (132, 76, 120), (206, 132, 142), (86, 74, 62)]
TOP_ODDS = [14, 13, 9, 9, 9, 9, 8, 7, 6, 6, 6, 4]
BOTTOMS = [(30, 31, 36), (44, 56, 86), (82, 104, 138), (118, 118, 116), (168, 148, 116), (214, 210, 202), (88, 78, 60)]
BOTTOM_ODDS = [22, 20, 16, 11, 13, 9, 9]
SHOES = [(28, 28, 30), (226, 226, 222), (96, 72, 52), (110, 112, 116), (150, 44, 46), (48, 62, 108)]
BAGS = [(32, 32, 36), (88, 60, 40), (46, 60, 98), (140, 40, 44), (120, 116, 104), (70, 96, 70)]

PATTERNS = ["plain", "stripes", "pinstripes", "checks", "logo", "two-tone", "panel", "dots"]
PATTERN_ODDS = [36, 13, 6, 12, 13, 9, 6, 5]


@dataclass(frozen=True)
class Person:
    """One identity. Lengths in metres; arm and leg coordinates as in `body_mesh`: 0-1 upper, 1-2 lower limb."""

    height: float
    girth: float
    shoulders: float
    hips: float
    belly: float
    skin: Colour
    hair: Colour
    hair_style: str          # bald | short | medium | long | bun
    fringe: float            # lowers the hair line
    beard: float             # 0 none .. 1 full
    top: Colour
    top_second: Colour
    top_pattern: str
    pattern_scale: float
    sleeve: float            # arm coordinate of its end; 0 is sleeveless
    neckline: float          # depth of the collar, share of the torso
    hem: float               # torso coordinate of the top's lower edge
    loose_top: float
    coat: str                # none | jacket | coat
    coat_colour: Colour
    bottom: str              # trousers | shorts | skirt | dress | jumpsuit
    bottom_end: float        # leg coordinate of its lower edge
    bottom_colour: Colour
    bottom_second: Colour
    bottom_pattern: str      # plain | seam | checks | worn
    loose_bottom: float
    flare: float             # of a skirt or dress
    shoe: Colour
    sole: Colour
    boot: float              # leg coordinate where the shoe ends; 2 is the ankle
    sock: Colour
    sock_top: float          # leg coordinate where the sock ends; 2 is none
    hat: str                 # none | cap | beanie
    hat_colour: Colour
    sunglasses: bool
    scarf: bool
    scarf_colour: Colour
    gloves: bool
    bag: str                 # none | backpack | shoulder | hand
    bag_colour: Colour
    bag_left: bool


def _pick(draw: np.random.Generator, palette: list, odds: list[int] | None = None) -> Colour:
    weights = np.asarray(odds or [1] * len(palette), float)
    base = np.asarray(palette[draw.choice(len(palette), p=weights / weights.sum())], float)
    red, green, blue = np.clip(base * draw.normal(1, 0.05) + draw.normal(0, 3, 3), 8, 246) / 255
    return float(red), float(green), float(blue)


def _choose(draw: np.random.Generator, **odds: float) -> str:
    weights = np.asarray(list(odds.values()), float)
    return str(draw.choice(list(odds), p=weights / weights.sum()))


def draw_person(draw: np.random.Generator, varied: bool = False) -> Person:
    """Draw an identity. `varied` makes the rarer classes (hat, scarf, skirt, coat, ...) more frequent, for a parser's
    training data; the kinds and palettes are the same."""
    slim = draw.random()     # one axis of body shape, from broad shoulders to broad hips
    long_hair = slim > 0.5
    rare = 2.0 if varied else 1.0
    bottom = _choose(draw, trousers=55, shorts=20, skirt=9 * rare * (0.3 + 1.4 * long_hair),
                     dress=8 * rare * (0.1 + 1.8 * long_hair), jumpsuit=2 * rare)
    warm = draw.random() < 0.45          # dressed for the cold
    coat = _choose(draw, none=30 if warm else 90, jacket=45 if warm else 6 * rare, coat=18 if warm else 3 * rare)
    sleeve = float(draw.choice([1.92, 1.95, 1.5, 1.0, 0.62, 0.5, 0.1],
                               p=[.3, .2, .08, .04, .15, .15, .08] if warm else [.1, .06, .05, .06, .3, .33, .1]))
    ends = {"trousers": draw.choice([1.96, 1.9, 1.6], p=[.65, .27, .08]), "shorts": draw.uniform(0.6, 1.1),
            "skirt": draw.choice([0.55, 0.8, 1.0, 1.45]), "dress": draw.choice([0.6, 0.85, 1.1, 1.5]),
            "jumpsuit": 1.93}

    return Person(
        height=float(np.clip(draw.normal(1.76 - 0.11 * slim, 0.065), 1.48, 1.98)),
        girth=float(np.clip(draw.normal(1.03, 0.12), 0.84, 1.36)),
        shoulders=float(1.07 - 0.13 * slim + draw.normal(0, 0.02)),
        hips=float(0.95 + 0.12 * slim + draw.normal(0, 0.02)),
        belly=float(np.clip(draw.normal(0.15, 0.3), 0, 1)),
        skin=_pick(draw, SKIN, [16, 20, 18, 12, 8, 7, 5]), hair=_pick(draw, HAIR, [26, 22, 18, 10, 8, 7, 7]),
        hair_style=_choose(draw, bald=1 if long_hair else 6, short=8 if long_hair else 78, medium=26 if long_hair else
                           12, long=40 if long_hair else 3, bun=22 if long_hair else 1),
        fringe=float(draw.uniform(-0.02, 0.05)),
        beard=0.0 if long_hair or draw.random() < 0.7 else float(draw.uniform(0.4, 1)),
        top=_pick(draw, TOPS, TOP_ODDS), top_second=_pick(draw, TOPS, TOP_ODDS),
        top_pattern=str(draw.choice(PATTERNS, p=np.array(PATTERN_ODDS) / sum(PATTERN_ODDS))),
        pattern_scale=float(draw.uniform(0.7, 1.6)), sleeve=sleeve,
        neckline=float(draw.choice([0.02, 0.05, 0.10, 0.14], p=[.4, .35, .17, .08])),
        hem=float(draw.choice([0.20, 0.16, 0.28], p=[.45, .3, .25])), loose_top=float(draw.uniform(0.2, 1)),
        coat=coat if bottom != "jumpsuit" else "none", coat_colour=_pick(draw, TOPS, TOP_ODDS),
        bottom=bottom, bottom_end=float(ends[bottom]),
        bottom_colour=_pick(draw, BOTTOMS, BOTTOM_ODDS), bottom_second=_pick(draw, TOPS, TOP_ODDS),
        bottom_pattern=_choose(draw, plain=62, seam=12, checks=8, worn=18),
        loose_bottom=float(draw.uniform(0.1, 1)), flare=float(draw.uniform(0.2, 1)),
        shoe=_pick(draw, SHOES, [30, 30, 14, 12, 6, 8]), sole=_pick(draw, SHOES[:3], [4, 5, 2]),
        boot=float(draw.choice([1.97, 1.9, 1.5], p=[.8, .13, .07])),
        sock=_pick(draw, [SHOES[0], SHOES[1], SHOES[3]]),
        sock_top=float(draw.choice([2.0, 1.8, 1.3], p=[.45, .4, .15] if not varied else [.3, .4, .3])),
        hat=_choose(draw, none=88 if not varied else 60, cap=8 if not varied else 24, beanie=4 if not varied else 16),
        hat_colour=_pick(draw, TOPS, TOP_ODDS), sunglasses=draw.random() < (0.2 if varied else 0.06),
        scarf=warm and draw.random() < (0.4 if varied else 0.12), scarf_colour=_pick(draw, TOPS, TOP_ODDS),
        gloves=warm and draw.random() < (0.4 if varied else 0.08),
        bag=_choose(draw, none=52, backpack=22, shoulder=16, hand=10), bag_colour=_pick(draw, BAGS),
        bag_left=draw.random() < 0.5)
