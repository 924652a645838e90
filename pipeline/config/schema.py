"""Parameters as frozen, typed objects: what params.yaml may hold, with meaning, unit and range of every key.

Only stages read them; every other function takes plain values. pipeline/config/loader.py reads the file,
pipeline/config/compose.py writes it, each key with its comment once. What DVC templates from is plan.yaml's
(pipeline/config/plan.py).

A field added later has a `neutral` value, which means "as before": it is left out where it is so, of params.yaml and of
what weights record of their run, and a file without it reads as if it stood there. So no run that was made before
becomes stale by it, and no recipe has to state it.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

BACKBONES = ("resnet18", "resnet50")


def doc(text: str, *, choices: tuple[Any, ...] = (), low: float | None = None, high: float | None = None,
        neutral: Any = MISSING) -> Any:
    """A field: its comment in params.yaml, the values or the range (ends included) it may have, its neutral value."""
    return field(default=neutral, kw_only=True,
                 metadata={"doc": text, "choices": choices, "low": low, "high": high})


def without_neutral(value: Any) -> Any:
    """Parameters as params.yaml has them: entries and lists, without the fields that have their neutral value."""
    if is_dataclass(value):
        there = {item.name: (getattr(value, item.name), item.default) for item in fields(value)}
        return {name: without_neutral(own) for name, (own, neutral) in there.items()
                if neutral is MISSING or own != neutral}
    if isinstance(value, Mapping):
        return {name: without_neutral(item) for name, item in value.items()}
    return [without_neutral(item) for item in value] if isinstance(value, tuple) else value


def share(text: str, *, neutral: Any = MISSING) -> Any:
    """A number from 0 to 1."""
    return doc(text, low=0, high=1, neutral=neutral)


def count(text: str, *, low: int = 1, high: int | None = None, neutral: Any = MISSING) -> Any:
    """A whole number, at least 1 where nothing else is said."""
    return doc(text, low=low, high=high, neutral=neutral)


SEED = 2 ** 32 - 1
SIDE = 4096  # pixels


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


@dataclass(frozen=True)
class OccludeParams:
    stream: str = doc("the random stream's name; with the seed it says what stands in front of which image")
    seed: int = count("another seed, other objects", low=0, high=SEED)
    low: float = share("smallest share of the body that is hidden")
    high: float = share("largest share of the body that is hidden")


@dataclass(frozen=True)
class ParserParams:
    architecture: str = doc("the parser's network", choices=("lraspp", "deeplabv3"))
    labels: str = doc("what it predicts", choices=("densepose24", "lip20"))
    uv: bool = doc("also predict u and v (needs densepose24)")
    init: str = doc("none | imagenet | a backbone's weight file")
    height: int = count("pixels of the network's input", low=16, high=SIDE)
    width: int = count("pixels of the network's input", low=16, high=SIDE)
    image_steps: int = count("images seen in training")
    batch: int = count("images per step", low=2)
    lr: float = doc("peak learning rate: of AdamW, Muon's is twice that; or of SGD", low=0)
    optimizer: str = doc("muon: Muon and AdamW, cosine; sgd: SGAM's, a tenth from half-way on",
                         choices=("muon", "sgd"), neutral="muon")
    augment: str = doc("all: flips, moves, light, hidden rectangles, blur, noise, JPEG; erase: flips, random crops, "
                       "random erasing", choices=("flip", "all", "erase"))
    seed: int = count("initialisation, order and augmentation", low=0, high=SEED)
    workers: int = count("data loading processes; results do not depend on it", low=0, high=256)


@dataclass(frozen=True)
class PhotographsParams:
    architecture: str = doc("the parser's network", choices=("lraspp", "deeplabv3"))
    layout: str = doc("how the labelled photographs lie (docs/parsers.md); labels are lip20",
                      choices=("lip", "cihp", "ccp"))
    init: str = doc("none | imagenet | a backbone's weight file")
    height: int = count("pixels of the network's input", low=16, high=SIDE)
    width: int = count("pixels of the network's input", low=16, high=SIDE)
    image_steps: int = count("images seen in training")
    batch: int = count("images per step", low=2)
    lr: float = doc("peak learning rate: of AdamW, Muon's is twice that; or of SGD", low=0)
    optimizer: str = doc("muon: Muon and AdamW, cosine; sgd: SGAM's, a tenth from half-way on",
                         choices=("muon", "sgd"), neutral="muon")
    augment: str = doc("all: flips, moves, light, hidden rectangles, blur, noise, JPEG; erase: flips, random crops, "
                       "random erasing", choices=("flip", "all", "erase"))
    seed: int = count("initialisation, order and augmentation", low=0, high=SEED)
    workers: int = count("data loading processes; results do not depend on it", low=0, high=256)


@dataclass(frozen=True)
class CacheParams:
    parser: str = doc("oracle: the ground truth of a rendered set", choices=("lraspp", "deeplabv3", "oracle"))
    height: int = count("pixels of the parser's input and of the cached labels", low=16, high=SIDE)
    width: int = count("pixels of the parser's input and of the cached labels", low=16, high=SIDE)
    batch: int = count("images per forward pass; the last bit of a probability depends on it")
    threads: int = count("CPU threads of a forward pass; likewise", high=1024)


@dataclass(frozen=True)
class DensePoseParams(CacheParams):
    parser: str = doc("detectron2's DensePose", choices=("densepose",))
    boxes: str = doc("the person is the whole crop, or the surest detection in it", choices=("whole", "detect"))
    input_height: int = count("pixels of the network's input, the smaller side counts; 0 is the configuration's",
                              low=0, high=SIDE)
    input_width: int = count("likewise", low=0, high=SIDE)
    min_score: float = share("the least score of a detection")


@dataclass(frozen=True)
class HuggingFaceParams(CacheParams):
    parser: str = doc("a semantic segmentation checkpoint of transformers", choices=("huggingface",))
    labels: str = doc("its label map: lip20 | cihp20 | atr18 | pascal7 | ccp59 | a .yaml")
    input_height: int = count("pixels of the network's input; 0 is `height`", low=0, high=SIDE)
    input_width: int = count("pixels of the network's input; 0 is `width`", low=0, high=SIDE)


@dataclass(frozen=True)
class PrecomputedParams(CacheParams):
    parser: str = doc("parses that another tool wrote", choices=("precomputed",))
    labels: str = doc("a label map (lip20 | cihp20 | atr18 | pascal7 | ccp59 | a .yaml) | iuv | iuv-rgb | json")
    min_score: float = share("the least score of a JSON's detections")
    scale: float = doc("pixels of the pictures that the tool saw over those of the images: 2 where they were twice as "
                       "large", low=0.01, high=100, neutral=1.0)


ExternalParams = DensePoseParams | HuggingFaceParams | PrecomputedParams
EXTERNAL: dict[str, type] = {"densepose": DensePoseParams, "huggingface": HuggingFaceParams,
                             "precomputed": PrecomputedParams}


@dataclass(frozen=True)
class WarpParams:
    height: int = count("pixels; image and u,v are resized to this before warping", low=16, high=SIDE)
    width: int = count("pixels; image and u,v are resized to this before warping", low=16, high=SIDE)
    texels: int = count("S, the side of a DSAP image (DSA 3.1)", low=4, high=1024)
    alignment: str = doc("csa: each part's bounding box, resized (DSA Table 4)", choices=("dsap", "csa"))


# What a model says of itself: `matchable`, the `features` that may be matched; `cache_file`, the cache that it reads
# beside the images, in training (features None) or with `features` at test time; `arrays`, what a batch holds of that
# cache, and `uniform` where training leaves something to chance.

@dataclass(frozen=True)
class BaselineParams:
    """ResNet, pooled feature, identity loss and batch-hard triplet."""

    name: str = doc("the network: models/<name>.py")
    label_smoothing: float = share("epsilon of the identity loss; 0 is off")
    id_weight: float = doc("weight of the identity loss", low=0)
    triplet_weight: float = doc("weight of the triplet loss", low=0)
    margin: float = doc("triplet margin", low=0)
    normalise: bool = doc("the triplet loss compares features at length 1 (ESA's baseline)")

    def matchable(self) -> tuple[str, ...]:
        return ("all",)

    def cache_file(self, features: str | None) -> str | None:
        return None

    def arrays(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class HistogramParams:
    """Colour histogram of horizontal stripes, nothing learned."""

    name: str = doc("the network: models/<name>.py")
    stripes: int = count("horizontal stripes")
    bins: int = count("bins of each colour channel", high=256)

    def matchable(self) -> tuple[str, ...]:
        return ("all",)

    def cache_file(self, features: str | None) -> str | None:
        return None

    def arrays(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class SornParams:
    """SORN: global, local and semantic branch."""

    name: str = doc("the network: models/<name>.py")
    patches: int = count("P, stripes of the local branch")
    channel_sets: int = count("N, channel sets of the global branch")
    channels: int = count("N c', channels of the global branch, kept when N varies")
    use_global: bool = doc("the global branch (Table I: Local+Semantic has none)")
    use_local: bool = doc("the local branch (Table I: Global+Semantic has none)")
    use_semantic: bool = doc("the semantic branch (Table III: w/o Semantic)")
    labels: int = doc("K, semantic labels (Table III)", choices=(8, 5, 2))
    label_smoothing: float = share("epsilon of the segmentation loss, Eq. 8; 0 is `w/o LS`")
    lambda_global: float = doc("lambda_1, weight of the global identity loss, Eq. 10", low=0)
    lambda_spc: float = doc("lambda_2, weight of the SPC loss, Eq. 10; 0 is `w/o SPC Loss`", low=0)
    lambda_seg: float = doc("lambda_3, weight of the segmentation loss, Eq. 10", low=0)
    reduction: str = doc("over pixels in Eq. 5 and 7 (sum is the printed form)", choices=("mean", "sum"))

    def matchable(self) -> tuple[str, ...]:
        return ("all", "global", "unmasked")

    def cache_file(self, features: str | None) -> str | None:
        return "parts.h5" if self.use_semantic and features is None else None

    def arrays(self) -> tuple[str, ...]:
        return ("labels",)


@dataclass(frozen=True)
class DsaParams:
    """DSA-reID: MF-Stream guided by a DSAG-Stream over DSAP images."""

    name: str = doc("the network: models/<name>.py")
    dsag_width: float = doc("scales the DSAG-Stream's channels; 1 is Table 1", low=0)
    use_global: bool = doc("the global branches (Table 3: DSA-Local(Single) has none)")
    use_local: bool = doc("the local branches (Table 3: DSA-Global(Single) has none)")
    use_dsag: bool = doc("the DSAG-Stream (Table 3: Baseline (Two branches) has none)")
    fusion: str = doc("of the two streams (Table 5)", choices=("add", "concat"))
    label_smoothing: float = share("epsilon of the identity losses; 0 is off")
    id_weight: float = doc("weight of the MF-Stream's identity losses", low=0)
    fused_id_weight: float = doc("weight of the fused features' identity losses", low=0)
    triplet_weight: float = doc("weight of the fused features' triplet losses", low=0)
    margin: float = doc("triplet margin", low=0)

    def matchable(self) -> tuple[str, ...]:
        return ("f", "z", "z_global", "z_local")

    def cache_file(self, features: str | None) -> str | None:
        return "dsap.h5" if self.use_dsag and (features is None or features.startswith("z")) else None

    def arrays(self) -> tuple[str, ...]:
        return ("dsap",)


@dataclass(frozen=True)
class EsaParams:
    """ESA-ReID: parts weighed by the entropy of their probabilities."""

    name: str = doc("the network: models/<name>.py")
    channels: int = count("c_new, numbers of a region's feature")
    unconfident: str = doc("Table 4: our, d, g, -, w", choices=("mask", "median", "global", "global_balanced", "none"))
    attention: str = doc("of matched features: Eq. 3, 0 from tau on, or Eq. 4's (Table 4: g)",
                         choices=("soft", "gated", "none"), neutral="soft")
    semantics: str = doc("a parsing head taught by labels, or parts.h5's probabilities and entropy",
                         choices=("branch", "cache"))
    tau: float = share("threshold of the entropy mask over the largest entropy, Eq. 2")
    lambda_parsing: float = doc("lambda, weight of the parsing loss, Eq. 11", low=0)
    margin: float = doc("triplet margin", low=0)
    weights: str = doc("paper: gradients through the scores S of Eq. 7-10", choices=("detached", "paper"))
    e_max: str = doc("log N, or (1 / N) log N as printed", choices=("log", "paper"))
    pooling: str = doc("paper: sums over pixels, Eq. 4", choices=("mean", "paper"))
    reduction: str = doc("Eq. 7, or without its divisor", choices=("mean", "sum"))

    def matchable(self) -> tuple[str, ...]:
        return ("all",)

    def cache_file(self, features: str | None) -> str | None:
        return "parts.h5" if features is None or self.semantics == "cache" else None

    def arrays(self) -> tuple[str, ...]:
        return ("labels16",) if self.semantics == "branch" else ("probs8", "entropy")


@dataclass(frozen=True)
class SgsfaParams:
    """SGSFA: attention taught by masks, stripes below the learned head."""

    name: str = doc("the network: models/<name>.py")
    size: int = count("numbers of each vector")
    gamma: int = count("how much narrower the whole-body attention is than its map")
    local_gamma: int = count("gamma_1, the same of the regions' attention")
    whole_attention: bool = doc("the whole-body attention after stage 1 (Table 5: w/o whole attention has none)")
    label_smoothing: float = share("epsilon of the identity loss; 0 is off")
    margin: float = doc("triplet margin", low=0)
    trade_off: float = share("lambda of Eq. 11")
    visible_share: float = doc("a region is visible from this share of its median area on, Eq. 5", low=0)
    stripe_threshold: float = share("a stripe is visible from this mean of the body's mask on, Eq. 2")
    distance: str = doc("D of Eq. 6", choices=("cosine", "euclidean"))
    reduction: str = doc("sum: Eq. 7 as printed", choices=("mean", "sum"))
    head_top: str = doc("the body's first row at test time", choices=("first", "paper"))
    classified: str = doc("what L_d_cls has: stripes and their unions, or whole body and regions too, with BN and FC",
                          choices=("spatial", "all"), neutral="all")
    triplet: str = doc("what L_tri has: whole body and regions, or stripes too", choices=("semantic", "all"),
                       neutral="all")
    regions: str = doc("of f_choose, Eq. 3: a random subset and its mean loss, or all and their sum",
                       choices=("sampled", "all"), neutral="all")

    def matchable(self) -> tuple[str, ...]:
        return ("parts", "parts_and_whole", "semantic", "spatial")

    def cache_file(self, features: str | None) -> str | None:
        return "parts.h5" if features is None else None

    def arrays(self) -> tuple[str, ...]:
        return ("probs4", "uniform") if self.regions == "sampled" else ("probs4",)


@dataclass(frozen=True)
class SgamParams:
    """SGAM: regions weighed by what a frozen parser sees of them."""

    name: str = doc("the network: models/<name>.py")
    width: int = count("numbers of each feature")
    use_parts: bool = doc("the regional features (Table 5: ResNet50 has none)")
    crop: bool = doc("the automatic crop (Table 5: SGAM (no crop), ResNet50 have none)")
    training_rule: bool = doc("Eq. 5's thresholds and weights (Table 4: SGAM-1 has none)")
    thresholds: tuple[float, ...] = doc("t_i of head, upper body, lower body, shoes: of Eq. 5 and of the crop", low=0)
    lambda_global: float = share("lambda, the global feature's share of the loss, Eq. 7")
    scores: str = doc("S over its training median, or sums over pixels; of the crop too",
                      choices=("normalised", "paper"))
    shared_reduction: bool = doc("one 1x1 convolution for all five features", neutral=False)

    def matchable(self) -> tuple[str, ...]:
        return ("all", "unmasked", "global", "local")

    def cache_file(self, features: str | None) -> str | None:
        return "parts.h5" if self.use_parts or self.crop else None

    def arrays(self) -> tuple[str, ...]:
        return ("probs4",)


@dataclass(frozen=True)
class PcbParams:
    """PCB: one classifier per stripe, what SGAM Fig. 7 and SORN Fig. 2 compare with."""

    name: str = doc("the network: models/<name>.py")
    stripes: int = count("P")
    width: int = count("numbers of a stripe's vector")

    def matchable(self) -> tuple[str, ...]:
        return ("all",)

    def cache_file(self, features: str | None) -> str | None:
        return None

    def arrays(self) -> tuple[str, ...]:
        return ()


ModelParams = (BaselineParams | HistogramParams | SornParams | DsaParams | EsaParams | SgsfaParams | SgamParams
               | PcbParams)
MODELS: dict[str, type] = {"baseline": BaselineParams, "histogram": HistogramParams, "sorn": SornParams,
                           "dsa": DsaParams, "esa": EsaParams, "sgsfa": SgsfaParams, "sgam": SgamParams,
                           "pcb": PcbParams}


# kinds of entries whose keys depend on one of them: that key, and the keys' dataclass by its value
CHOICES: dict[Any, tuple[str, dict[str, type]]] = {ModelParams: ("name", MODELS), ExternalParams: ("parser", EXTERNAL)}


@dataclass(frozen=True)
class OptimizerParams:
    name: str = doc("sgd: momentum 0.9, Nesterov", choices=("adam", "sgd"))
    lr: float = doc("learning rate of new layers, at its peak", low=0)
    pretrained_lr_factor: float = doc("learning rate of pretrained layers over that of new ones", low=0)
    weight_decay: float = doc("L2 penalty", low=0)
    warmup: float = share("share of training over which the rate grows linearly")
    warmup_start: float = share("the rate's first value over its peak")
    milestones: tuple[float, ...] = share("shares of training after which the rate is multiplied by gamma")
    gamma: float = doc("that factor", low=0)


@dataclass(frozen=True)
class AugmentParams:
    flip: float = share("probability of a horizontal flip")
    pad: int = count("pixels padded on each side before a random crop; 0 is no crop", low=0, high=SIDE)
    erase: float = share("probability of random erasing")
    fill: str = doc("what is erased becomes ImageNet's mean, or the image's own", choices=("imagenet", "image"))


def started_from(init: Any) -> str | None:
    """The run that an `init` names, whose weights another starts from; None where it names none.

    >>> started_from("run:sorn"), started_from("imagenet")
    ('sorn', None)
    """
    return init.removeprefix("run:") if isinstance(init, str) and init.startswith("run:") else None


@dataclass(frozen=True)
class RunParams:
    train_on: str = doc("the data set it is trained on, as plan.yaml has it")
    cache: str = doc("the cache read in training, as plan.yaml has it; none where the model reads none")
    backbone: str = doc("the network that gives the maps", choices=BACKBONES)
    init: str = doc("none | imagenet | a file: the backbone's weights; run:KEY: another run's, all but the classifiers")
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
    workers: int = count("data loading processes; results do not depend on it", low=0, high=256)


@dataclass(frozen=True)
class MatchParams:
    features: str = doc("matched: all | global | unmasked (SORN); f | z | z_global | z_local (DSA); parts | "
                        "parts_and_whole | semantic | spatial (SGSFA); all | unmasked | global | local (SGAM)")
    tau: float = share("a stripe or part counts as visible from this share of foreground on (SORN Eq. 12)")


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
    caches: dict[str, CacheParams] = doc("parses by the pipeline's own parsers")
    external: dict[str, ExternalParams] = doc("parses by parsers from outside")
    warps: dict[str, WarpParams] = doc("images warped onto the body's surface")
    runs: dict[str, RunParams] = doc("networks, and how each is trained")
    results: dict[str, ResultParams] = doc("how a trained network is matched: one of a run's own name, and others")
