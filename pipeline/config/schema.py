"""Parameters as frozen, typed objects: what params.yaml may hold, with meaning, unit and range of every key.

Only stages read them; every other function takes plain values. pipeline/config/loader.py reads the file,
pipeline/config/compose.py writes it, each key with its comment once. What DVC templates from is plan.yaml's
(pipeline/config/plan.py).

A field added later has a `neutral` value, which means "as before": it is left out where it is so, of params.yaml and of
what weights record of their run, and a file without it reads as if it stood there. So no run that was made before
becomes stale by it, and no recipe has to state it.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from pipeline.config.fields import SEED, SIDE, count, doc, part, share
from pipeline.config.model_params import MODELS, ModelParams


def without_neutral(value: Any) -> Any:
    """Parameters as params.yaml has them: entries and lists, without the fields that have their neutral value."""
    if is_dataclass(value):
        there = {item.name: (getattr(value, item.name), item.default) for item in fields(value)}
        return {name: without_neutral(own) for name, (own, neutral) in there.items()
                if neutral is MISSING or own != neutral}
    if isinstance(value, Mapping):
        return {name: without_neutral(item) for name, item in value.items()}
    return [without_neutral(item) for item in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class RenderParams:
    kind: str = doc("what the set is for", choices=("holistic", "occluded", "partial", "parsing"))
    stream: str = doc("the random stream's name; with the seed it says which people, cameras and images")
    seed: int = count("another seed, other people", low=0, high=SEED)
    height: int = count("pixels of an image", low=16, high=SIDE)
    width: int = count("pixels of an image", low=8, high=SIDE)
    train_ids: int = count("people in the training part", low=0)
    train_images: int = count("images of each person in the training part", low=0)
    test_ids: int = count("other people in the test part (parsing: the held-out part)", low=0)
    query_images: int = count("query images of each test person", low=0)
    gallery_images: int = count("gallery images of each test person (parsing: held-out images)", low=0)
    processes: int = count("rendering processes; the images do not depend on it", high=256)


@dataclass(frozen=True)
class DatasetParams:
    layout: str = doc("how the raw folder is laid out: market | csv | market1501 | duke | ... (docs/datasets.md)")
    hold_out: int = count("so many of its training people are the queries and the gallery, to choose on, and its own "
                          "test people are left out; 0 is none", low=0, neutral=0)


@dataclass(frozen=True)
class OccludeParams:
    stream: str = doc("the random stream's name; with the seed it says what stands in front of which image")
    seed: int = count("another seed, other objects", low=0, high=SEED)
    low: float = part("smallest share of the body that is hidden")
    high: float = part("largest share of the body that is hidden", above="low")


@dataclass(frozen=True)
class TrainedParserParams:
    """What all parsers that are trained here have."""

    architecture: str = doc("the parser's network", choices=("lraspp", "lraspp-reduced", "deeplabv3"))
    init: str = doc("none | imagenet | a finished parser's or a backbone's weight file")
    height: int = count("pixels of the network's input", low=16, high=SIDE)
    width: int = count("pixels of the network's input", low=16, high=SIDE)
    image_steps: int = count("images seen in training")
    batch: int = count("images per step", low=2)
    lr: float = doc("peak learning rate: of AdamW, Muon's is twice that; or of SGD", low=0)
    optimizer: str = doc("muon: Muon and AdamW, cosine; sgd: SGAM's, a tenth from half-way on",
                         choices=("muon", "sgd"), neutral="muon")
    augment: str = doc("all: moves, light, rectangles, blur, noise too; erase: flips, crops, erasing; surveillance: "
                       "a detector's small, cut boxes",
                       choices=("flip", "all", "erase", "surveillance"))
    seed: int = count("initialisation, order and augmentation", low=0, high=SEED)
    workers: int = count("data loading processes; results do not depend on it", low=0, high=256)


@dataclass(frozen=True)
class ParserParams(TrainedParserParams):
    labels: str = doc("what it predicts", choices=("densepose24", "lip20"))
    uv: bool = doc("also predict u and v (needs densepose24)")


@dataclass(frozen=True)
class PhotographsParams(TrainedParserParams):
    layout: str = doc("how the labelled photographs lie (docs/photographs.md); labels are lip20",
                      choices=("lip", "cihp", "ccp"))


@dataclass(frozen=True)
class TaughtParams(TrainedParserParams):
    layout: str = doc("how the labelled photographs lie; a teacher divides what their labels leave open",
                      choices=("lip", "cihp", "ccp"))
    share: float = share("photographs among the images of a batch; `augment` is of the others, rendered people")


@dataclass(frozen=True)
class CacheParams:
    parser: str = doc("oracle: the ground truth of a rendered set",
                      choices=("lraspp", "lraspp-reduced", "deeplabv3", "oracle"))
    height: int = count("pixels of the parser's input and of the cached labels", low=16, high=SIDE)
    width: int = count("pixels of the parser's input and of the cached labels", low=16, high=SIDE)
    batch: int = count("images per forward pass; the last bit of a probability depends on it")
    threads: int = count("CPU threads of a forward pass; likewise", high=1024)
    fit: str = doc("images in the parser's input: its proportions, or their own with edges repeated",
                   choices=("stretch", "keep"), neutral="stretch")


@dataclass(frozen=True)
class DensePoseParams(CacheParams):
    parser: str = doc("detectron2's DensePose", choices=("densepose",))
    boxes: str = doc("the person is the whole crop, or the surest detection in it", choices=("whole", "detect"))
    input_height: int = count("pixels of the network's input, the smaller side counts; 0 is the configuration's",
                              low=0, high=SIDE)
    input_width: int = count("likewise", low=0, high=SIDE)
    min_score: float = share("the least score of a detection")


@dataclass(frozen=True)
class BodyPixParams(CacheParams):
    parser: str = doc("BodyPix's 24 parts, from an ONNX file", choices=("bodypix",))
    side: int = count("pixels of the longer side of the network's input, 16 n + 1", low=33, high=SIDE, neutral=257)
    border: float = doc("the image's edge is repeated around it, on each side by this share of its height or width",
                        low=0, high=1, neutral=0.1)


@dataclass(frozen=True)
class HuggingFaceParams(CacheParams):
    parser: str = doc("a semantic segmentation checkpoint of transformers", choices=("huggingface",))
    labels: str = doc("its label map: lip20 | cihp20 | atr18 | pascal7 | ccp59 | fashn18 | sapiens28 | a .yaml")
    input_height: int = count("pixels of the network's input; 0 is `height`", low=0, high=SIDE)
    input_width: int = count("pixels of the network's input; 0 is `width`", low=0, high=SIDE)


@dataclass(frozen=True)
class PrecomputedParams(CacheParams):
    parser: str = doc("parses that another tool wrote", choices=("precomputed",))
    labels: str = doc("a label map (lip20 | cihp20 | atr18 | pascal7 | ccp59 | fashn18 | sapiens28 | a .yaml; of .npy "
                      "pifpaf36 | pifpaf8 | pifpaf5) | iuv | iuv-rgb | json | keypoints")
    min_score: float = share("the least score of a JSON's detections, or of a key point")
    scale: float = doc("pixels of the pictures that the tool saw over those of the images: 2 where they were twice as "
                       "large", low=0.01, high=100, neutral=1.0)
    fit: str = doc("parses made elsewhere are of whole images already", choices=("stretch",), neutral="stretch")


ExternalParams = BodyPixParams | DensePoseParams | HuggingFaceParams | PrecomputedParams
EXTERNAL: dict[str, type] = {"bodypix": BodyPixParams, "densepose": DensePoseParams, "huggingface": HuggingFaceParams,
                             "precomputed": PrecomputedParams}


@dataclass(frozen=True)
class CropsParams:
    """How SGAM crops images, whose crops are parsed again: the same in every run that reads them."""

    thresholds: tuple[float, ...] = doc("t_i of head, upper body, lower body, shoes: what is visible", low=0)
    scores: str = doc("S over its median of the training set, or sums over pixels", choices=("normalised", "paper"))
    max_ids: int = count("the training set is its first so many identities; 0 is all", low=0, neutral=0)


@dataclass(frozen=True)
class WarpParams:
    height: int = count("pixels; image and u,v are resized to this before warping", low=16, high=SIDE)
    width: int = count("pixels; image and u,v are resized to this before warping", low=16, high=SIDE)
    texels: int = count("S, the side of a DSAP image (DSA 3.1)", low=4, high=1024)
    alignment: str = doc("csa: each part's bounding box, resized (DSA Table 4)", choices=("dsap", "csa"))


@dataclass(frozen=True)
class JointsParams:
    estimator: str = doc("vitpose: a checkpoint of transformers; kpr: its folder of key points; coco: a JSON of all",
                         choices=("vitpose", "kpr", "coco"))
    batch: int = count("images per forward pass of vitpose", neutral=32)
    scale: float = doc("pixels of the pictures that the estimator of kpr or coco saw over those of the images",
                       low=0.01, high=100, neutral=1.0)


# kinds of entries whose keys depend on one of them: that key, and the keys' dataclass by its value
CHOICES: dict[Any, tuple[str, dict[str, type]]] = {ModelParams: ("name", MODELS), ExternalParams: ("parser", EXTERNAL)}


@dataclass(frozen=True)
class OptimizerParams:
    name: str = doc("adamw: decoupled decay; sgd: momentum 0.9, Nesterov", choices=("adam", "adamw", "sgd"))
    lr: float = doc("learning rate of new layers, at its peak", low=0)
    pretrained_lr_factor: float = doc("learning rate of pretrained layers over that of new ones", low=0)
    weight_decay: float = doc("L2 penalty", low=0)
    warmup: float = share("share of training over which the rate grows linearly")
    warmup_start: float = share("the rate's first value over its peak")
    milestones: tuple[float, ...] = share("shares of training after which the rate is multiplied by gamma")
    gamma: float = doc("that factor", low=0)
    cosine: bool = doc("after its warm-up the rate falls along half a cosine besides, to 0 at the end", neutral=False)
    layer_decay: float = share("rate of a pretrained layer over that of the next (a transformer's block, a stage)",
                               neutral=1.0)


@dataclass(frozen=True)
class AugmentParams:
    flip: float = share("probability of a horizontal flip")
    pad: int = count("pixels padded on each side before a random crop; 0 is no crop", low=0, high=SIDE)
    erase: float = share("probability of random erasing")
    fill: str = doc("what is erased becomes ImageNet's mean, or the image's own", choices=("imagenet", "image"))
    occlude: float = share("probability that a piece of another person's picture stands in front", neutral=0.0)
    occlude_low: float = part("the smallest share of the image that it hides", neutral=0.1)
    occlude_high: float = part("the largest share of the image that it hides", neutral=0.4, above="occlude_low")


def started_from(init: Any) -> str | None:
    """The run that an `init` names, whose weights another starts from; None where it names none.

    >>> started_from("run:sorn"), started_from("imagenet")
    ('sorn', None)
    """
    return init.removeprefix("run:") if isinstance(init, str) and init.startswith("run:") else None


def file_started_from(init: Any) -> str | None:
    """The weight file that an `init` names; None where it names none.

    >>> file_started_from("data/raw/weights/a.pth"), file_started_from("imagenet"), file_started_from("run:sorn")
    ('data/raw/weights/a.pth', None, None)
    """
    named = isinstance(init, str) and init not in ("none", "imagenet", "package") and started_from(init) is None
    return init if named else None


@dataclass(frozen=True)
class RunParams:
    train_on: str = doc("the data set it is trained on, as plan.yaml has it")
    cache: str = doc("the cache read in training, as plan.yaml has it; none where the model reads none")
    backbone: str = doc("the network that gives the maps: resnet18, resnet50, or one of timm's by its name")
    init: str = doc("none | imagenet | package | a file: the backbone's; run:KEY: another run's, but for classifiers")
    seed: int = count("initialisation, sampling and augmentation", low=0, high=SEED)
    height: int = count("pixels of the network's input", low=16, high=SIDE)
    width: int = count("pixels of the network's input", low=16, high=SIDE)
    image_steps: int = count("images seen in training; 0 leaves the network untrained", low=0)
    batch: int = count("images per step, and per forward pass when embedding", low=2)
    ids_per_batch: int = count("P of P x K sampling; 0 shuffles and drops the last", low=0)
    model: ModelParams = doc("")
    optimizer: OptimizerParams = doc("")
    augment: AugmentParams = doc("")
    max_ids: int = count("train on the first so many identities; 0 is all", low=0, neutral=0)
    stride: int = count("pixels from one patch of a ViT to the next, less than its side where they overlap; 0 is that "
                        "side", low=0, high=SIDE, neutral=0)
    drop_path: float = share("rate at which a transformer's last block is left out, from 0 at the first", neutral=0.0)
    camera: str = doc("embed: a transformer adds a vector of the image's camera to its tokens (TransReID's SIE)",
                      choices=("none", "embed"), neutral="none")
    camera_weight: float = doc("lambda, what that vector is multiplied with", low=0, neutral=3.0)
    workers: int = count("data loading processes; results do not depend on it", low=0, high=256)


@dataclass(frozen=True)
class MatchParams:
    features: str = doc("matched: all | global | unmasked (SORN); f | z | z_global | z_local (DSA); parts | "
                        "parts_and_whole | semantic | spatial (SGSFA); all | unmasked | global | local (SGAM)")
    tau: float = share("a stripe or part counts as visible from this share of foreground on (SORN Eq. 12)")
    flip: str = doc("mean: of the features of an image and of its mirror image", choices=("none", "mean"),
                    neutral="none")


@dataclass(frozen=True)
class ResultParams:
    match: MatchParams = doc("")
    dtype: str = doc("numbers of the features file", choices=("float32", "float16"))


@dataclass(frozen=True)
class Params:
    device: str = doc("auto takes a GPU where there is one", choices=("auto", "cpu", "cuda"))
    precision: str = doc("auto trains in bfloat16 where the device multiplies it natively", choices=("auto", "float32"))
    threads: int = count("CPU threads of training; the last digits of a result depend on it", high=1024)
    render: dict[str, RenderParams] = doc("the people renderer's sets")
    datasets: dict[str, DatasetParams] = doc("folders of images that get an index")
    occlude: dict[str, OccludeParams] = doc("data sets made by putting objects in front of another's queries")
    parsers: dict[str, ParserParams] = doc("parsers trained on rendered people")
    photographs: dict[str, PhotographsParams] = doc("parsers trained on labelled photographs")
    taught: dict[str, TaughtParams] = doc("parsers trained on rendered people and on photographs divided by a teacher")
    caches: dict[str, CacheParams] = doc("parses by the pipeline's own parsers")
    external: dict[str, ExternalParams] = doc("parses by parsers from outside")
    crops: dict[str, CropsParams] = doc("parses of what SGAM's crop leaves of each image")
    warps: dict[str, WarpParams] = doc("images warped onto the body's surface")
    joints: dict[str, JointsParams] = doc("joints of real sets' people, for SORN's row +P")
    runs: dict[str, RunParams] = doc("networks, and how each is trained")
    results: dict[str, ResultParams] = doc("how a trained network is matched: one of a run's own name, and others")
