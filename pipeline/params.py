"""params.yaml as frozen, typed objects. Only stages read them; every other function takes plain values.

Each field's `doc` is its meaning and unit; `stages.compose` writes it as the comment beside the key.
pipeline/params_file.py reads the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import InputError


def doc(text: str) -> Any:
    """A dataclass field whose comment in params.yaml is `text`."""
    return field(metadata={"doc": text})


@dataclass(frozen=True)
class RenderParams:
    kind: str = doc("holistic | occluded | partial | parsing")
    seed: int = doc("names the people, cameras and pictures; other seeds give other people")
    height: int = doc("pixels of a picture")
    width: int = doc("pixels of a picture")
    train_ids: int = doc("people in the training part")
    train_images: int = doc("pictures of each person in the training part")
    test_ids: int = doc("other people in the test part (parsing: the held-out part)")
    query_images: int = doc("query pictures of each test person")
    gallery_images: int = doc("gallery pictures of each test person (parsing: held-out pictures)")
    processes: int = doc("rendering processes; the pictures do not depend on it")


@dataclass(frozen=True)
class OccludeParams:
    dataset: str = doc("the data set whose queries get something in front, a key of `datasets`")
    images: str = doc("that data set's folder of images; repeated here because DVC cannot look it up")
    seed: int = doc("names what stands in front of which picture")
    low: float = doc("smallest share of the body that is hidden")
    high: float = doc("largest share of the body that is hidden")


@dataclass(frozen=True)
class DatasetParams:
    layout: str = doc("how the raw folder is laid out: market | csv | market1501 | duke | ... (docs/datasets.md)")
    raw: str = doc("the folder with the images, relative to the project or absolute")


@dataclass(frozen=True)
class ParserParams:
    architecture: str = doc("lraspp | deeplabv3")
    data: str = doc("the rendered parsing set it is trained on, a key of `render`")
    labels: str = doc("what it predicts: densepose24 | lip20")
    uv: bool = doc("also predict u and v (needs densepose24)")
    init: str = doc("none | imagenet | a backbone's weight file")
    height: int = doc("pixels of the network's input")
    width: int = doc("pixels of the network's input")
    image_steps: int = doc("images seen in training")
    batch: int = doc("images of a step")
    lr: float = doc("peak learning rate of AdamW; Muon's is twice that")
    augment: str = doc("flip | all (flips, moves, light, hidden rectangles, blur, noise, JPEG)")
    seed: int = doc("initialisation, order and augmentation")
    workers: int = doc("data loading processes; results do not depend on it")


@dataclass(frozen=True)
class PhotographsParams:
    architecture: str = doc("lraspp | deeplabv3")
    layout: str = doc("how the labelled photographs lie in `raw`: lip | cihp | ccp (docs/parsers.md); labels are lip20")
    raw: str = doc("their folder, relative to the project or absolute")
    init: str = doc("none | imagenet | a backbone's weight file")
    height: int = doc("pixels of the network's input")
    width: int = doc("pixels of the network's input")
    image_steps: int = doc("images seen in training")
    batch: int = doc("images of a step")
    lr: float = doc("peak learning rate of AdamW; Muon's is twice that")
    augment: str = doc("flip | all (flips, moves, light, hidden rectangles, blur, noise, JPEG)")
    seed: int = doc("initialisation, order and augmentation")
    workers: int = doc("data loading processes; results do not depend on it")


@dataclass(frozen=True)
class CacheParams:
    dataset: str = doc("the data set that is parsed, a key of `datasets`")
    parser: str = doc("lraspp | deeplabv3 | oracle (ground truth of a rendered set)")
    source: str = doc("the parser's weights; for the oracle the set's labels.h5")
    images: str = doc("the data set's folder of images; repeated here because DVC cannot look it up")
    height: int = doc("pixels of the parser's input and of the cached labels")
    width: int = doc("pixels of the parser's input and of the cached labels")
    batch: int = doc("images of a forward pass; the last bit of a probability depends on it")
    threads: int = doc("CPU threads of a forward pass; likewise")


@dataclass(frozen=True)
class DensePoseParams(CacheParams):
    parser: str = doc("densepose: detectron2's DensePose")
    source: str = doc("its weights, a .pkl of the model zoo or a .pth state dict")
    reads: str = doc("its configuration (`config` in a profile), a .yaml of detectron2's projects/DensePose/configs")
    boxes: str = doc("whole (the crop is the person's box) | detect (the surest detection)")
    input_height: int = doc("pixels of the network's input, the smaller side counts; 0 is the configuration's")
    input_width: int = doc("likewise")
    min_score: float = doc("the least score of a detection")


@dataclass(frozen=True)
class HuggingFaceParams(CacheParams):
    parser: str = doc("huggingface: a semantic segmentation checkpoint of transformers")
    source: str = doc("the checkpoint's folder")
    labels: str = doc("its label map: lip20 | cihp20 | atr18 | pascal7 | ccp59 | a .yaml")
    reads: str = doc("that label map's file; repeated because DVC cannot look it up")
    input_height: int = doc("pixels of the network's input; 0 is `height`")
    input_width: int = doc("pixels of the network's input; 0 is `width`")


@dataclass(frozen=True)
class PrecomputedParams(CacheParams):
    parser: str = doc("precomputed: parses that another tool wrote")
    source: str = doc("the folder of their PNGs; for json DensePose's results")
    labels: str = doc("a label map (lip20 | cihp20 | atr18 | pascal7 | ccp59 | a .yaml) | iuv | iuv-rgb | json")
    reads: str = doc("that label map's file, else `source` again; repeated because DVC cannot look it up")
    min_score: float = doc("the least score of a JSON's detections")


ExternalParams = DensePoseParams | HuggingFaceParams | PrecomputedParams
EXTERNAL: dict[str, type] = {"densepose": DensePoseParams, "huggingface": HuggingFaceParams,
                             "precomputed": PrecomputedParams}


def label_file(labels: str, source: str) -> str:
    """The file that says what a cache's `labels` mean; `source` itself where they are DensePose's own."""
    if labels in ("iuv", "iuv-rgb", "json"):
        return source
    return labels if labels.endswith((".yaml", ".yml")) else f"pipeline/labelmaps/{labels}.yaml"


@dataclass(frozen=True)
class WarpParams:
    dataset: str = doc("the data set whose images are warped")
    images: str = doc("the data set's folder of images; repeated here because DVC cannot look it up")
    height: int = doc("pixels; image and u,v are resized to this before warping")
    width: int = doc("pixels; image and u,v are resized to this before warping")
    texels: int = doc("S, the side of a DSAP image (DSA 3.1)")
    parts: str = doc("the cache whose u,v it is warped by, a key of `caches`")
    alignment: str = doc("dsap | csa (each part's bounding box, resized: DSA Table 4)")


@dataclass(frozen=True)
class BaselineParams:
    name: str = doc("baseline: ResNet, pooled feature, identity loss and batch-hard triplet")
    label_smoothing: float = doc("epsilon of the identity loss; 0 is off")
    id_weight: float = doc("weight of the identity loss")
    triplet_weight: float = doc("weight of the triplet loss")
    margin: float = doc("triplet margin")
    normalise: bool = doc("the triplet loss compares features at length 1 (ESA's baseline)")


@dataclass(frozen=True)
class HistogramParams:
    name: str = doc("histogram: colour histogram of horizontal stripes, nothing learned")
    stripes: int = doc("horizontal stripes")
    bins: int = doc("bins of each colour channel")


@dataclass(frozen=True)
class SornParams:
    name: str = doc("sorn: SORN (global, local and semantic branch)")
    patches: int = doc("P, stripes of the local branch")
    channel_sets: int = doc("N, channel sets of the global branch")
    channels: int = doc("N c', channels of the global branch, kept when N varies")
    use_global: bool = doc("the global branch (Table I: Local+Semantic has none)")
    use_local: bool = doc("the local branch (Table I: Global+Semantic has none)")
    use_semantic: bool = doc("the semantic branch (Table III: w/o Semantic)")
    labels: int = doc("K, semantic labels: 8 | 5 | 2 (Table III)")
    label_smoothing: float = doc("epsilon of the segmentation loss, Eq. 8; 0 is `w/o LS`")
    lambda_global: float = doc("lambda_1, weight of the global identity loss, Eq. 10")
    lambda_spc: float = doc("lambda_2, weight of the SPC loss, Eq. 10; 0 is `w/o SPC Loss`")
    lambda_seg: float = doc("lambda_3, weight of the segmentation loss, Eq. 10")
    reduction: str = doc("mean | sum over pixels in Eq. 5 and 7 (sum is the printed form)")


@dataclass(frozen=True)
class DsaParams:
    name: str = doc("dsa: DSA-reID (MF-Stream guided by a DSAG-Stream over DSAP images)")
    dsag_width: float = doc("scales the DSAG-Stream's channels; 1 is Table 1")
    use_global: bool = doc("the global branches (Table 3: DSA-Local(Single) has none)")
    use_local: bool = doc("the local branches (Table 3: DSA-Global(Single) has none)")
    use_dsag: bool = doc("the DSAG-Stream (Table 3: Baseline (Two branches) has none)")
    fusion: str = doc("add | concat (Table 5)")
    label_smoothing: float = doc("epsilon of the identity losses; 0 is off")
    id_weight: float = doc("weight of the MF-Stream's identity losses")
    fused_id_weight: float = doc("weight of the fused features' identity losses")
    triplet_weight: float = doc("weight of the fused features' triplet losses")
    margin: float = doc("triplet margin")


@dataclass(frozen=True)
class EsaParams:
    name: str = doc("esa: ESA-ReID (parts weighed by the entropy of their probabilities)")
    channels: int = doc("c_new, numbers of a region's feature")
    unconfident: str = doc("mask | median | global | global_balanced | none (Table 4: our, d, g, -, w)")
    semantics: str = doc("branch (a parsing head, taught by labels) | cache (parts.h5's probabilities and entropy)")
    tau: float = doc("threshold of the entropy mask over the largest entropy, Eq. 2")
    lambda_parsing: float = doc("lambda, weight of the parsing loss, Eq. 11")
    margin: float = doc("triplet margin")
    weights: str = doc("detached | paper (gradients through the scores S of Eq. 7-10)")
    e_max: str = doc("log (log N) | paper ((1 / N) log N)")
    pooling: str = doc("mean | paper (sums over pixels, Eq. 4)")
    reduction: str = doc("mean (Eq. 7) | sum (without its divisor)")


@dataclass(frozen=True)
class SgsfaParams:
    name: str = doc("sgsfa: SGSFA (attention taught by masks, stripes below the learned head)")
    size: int = doc("numbers of each vector")
    gamma: int = doc("how much narrower the whole-body attention is than its map")
    local_gamma: int = doc("gamma_1, the same of the regions' attention")
    whole_attention: bool = doc("the whole-body attention after stage 1 (Table 5: w/o whole attention has none)")
    label_smoothing: float = doc("epsilon of the identity loss; 0 is off")
    margin: float = doc("triplet margin")
    trade_off: float = doc("lambda of Eq. 11")
    visible_share: float = doc("a region is visible from this share of its median area on, Eq. 5")
    stripe_threshold: float = doc("a stripe is visible from this mean of the body's mask on, Eq. 2")
    distance: str = doc("cosine | euclidean, D of Eq. 6")
    reduction: str = doc("mean | sum (Eq. 7 as printed)")
    head_top: str = doc("first | paper, the body's first row at test time")


@dataclass(frozen=True)
class SgamParams:
    name: str = doc("sgam: SGAM (regions weighed by what a frozen parser sees of them)")
    width: int = doc("numbers of each feature")
    use_parts: bool = doc("the regional features (Table 5: ResNet50 has none)")
    crop: bool = doc("the automatic crop (Table 5: SGAM (no crop), ResNet50 have none)")
    training_rule: bool = doc("Eq. 5's thresholds and weights (Table 4: SGAM-1 has none)")
    thresholds: tuple[float, ...] = doc("t_i of head, upper body, lower body, shoes: of Eq. 5 and of the crop")
    lambda_global: float = doc("lambda, the global feature's share of the loss, Eq. 7")
    scores: str = doc("normalised (S over its training median) | paper (sums over pixels)")


@dataclass(frozen=True)
class PcbParams:
    name: str = doc("pcb: PCB (one classifier a stripe), what SGAM Fig. 7 and SORN Fig. 2 compare with")
    stripes: int = doc("P")
    width: int = doc("numbers of a stripe's vector")


ModelParams = (BaselineParams | HistogramParams | SornParams | DsaParams | EsaParams | SgsfaParams | SgamParams
               | PcbParams)
MODELS: dict[str, type] = {"baseline": BaselineParams, "histogram": HistogramParams, "sorn": SornParams,
                           "dsa": DsaParams, "esa": EsaParams, "sgsfa": SgsfaParams, "sgam": SgamParams,
                           "pcb": PcbParams}


# kinds of entries whose keys depend on one of them: that key, and the keys' dataclass by its value
CHOICES: dict[Any, tuple[str, dict[str, type]]] = {ModelParams: ("name", MODELS), ExternalParams: ("parser", EXTERNAL)}


def cache_file(model: ModelParams, features: str | None) -> str | None:
    """The cache that a network reads beside images: parts.h5, dsap.h5 or None. In training, or with `features`, what
    is matched, at test time."""
    training = features is None
    if isinstance(model, SornParams):
        return "parts.h5" if model.use_semantic and training else None
    if isinstance(model, DsaParams):
        return "dsap.h5" if model.use_dsag and (training or str(features).startswith("z")) else None
    if isinstance(model, EsaParams):
        return "parts.h5" if training or model.semantics == "cache" else None
    if isinstance(model, SgsfaParams):
        return "parts.h5" if training else None
    if isinstance(model, SgamParams):
        return "parts.h5" if model.use_parts or model.crop else None
    return None


@dataclass(frozen=True)
class OptimizerParams:
    name: str = doc("adam | sgd (momentum 0.9, Nesterov)")
    lr: float = doc("learning rate of new layers, at its peak")
    pretrained_lr_factor: float = doc("learning rate of pretrained layers over that of new ones")
    weight_decay: float = doc("L2 penalty")
    warmup: float = doc("share of training over which the rate grows linearly")
    warmup_start: float = doc("the rate's first value over its peak")
    milestones: tuple[float, ...] = doc("shares of training after which the rate is multiplied by gamma")
    gamma: float = doc("that factor")


@dataclass(frozen=True)
class AugmentParams:
    flip: float = doc("probability of a horizontal flip")
    pad: int = doc("pixels padded on each side before a random crop; 0 is no crop")
    erase: float = doc("probability of random erasing")
    fill: str = doc("what is erased becomes: imagenet (its mean) | image (its own mean)")


@dataclass(frozen=True)
class RunParams:
    model: ModelParams = doc("the network and its own parameters")
    train_on: str = doc("the data set it is trained on, a key of `datasets`")
    cache: str = doc("the cache read in training, a key of `caches`; none where the model reads none")
    reads: str = doc("the file or folder that training depends on beside the index: the images, parts.h5 or dsap.h5")
    backbone: str = doc("resnet18 | resnet50")
    init: str = doc("the backbone's weights: none | imagenet | a file")
    seed: int = doc("initialisation, sampling and augmentation")
    height: int = doc("pixels of the network's input")
    width: int = doc("pixels of the network's input")
    image_steps: int = doc("images seen in training; 0 leaves the network untrained")
    batch: int = doc("images of a step")
    ids_per_batch: int = doc("P of P x K sampling; 0 shuffles and drops the last")
    optimizer: OptimizerParams = doc("")
    augment: AugmentParams = doc("")
    max_ids: int = doc("train on the first so many identities; 0 is all")
    workers: int = doc("data loading processes; results do not depend on it")


@dataclass(frozen=True)
class MatchParams:
    tau: float = doc("a stripe or part counts as visible from this share of foreground on (SORN Eq. 12)")
    features: str = doc("what is matched: all | global | unmasked (SORN Table II); f | z | z_global | z_local (DSA); "
                        "parts | parts_and_whole (SGSFA); all | unmasked | global | local (SGAM, Table 4)")


@dataclass(frozen=True)
class EmbedParams:
    run: str = doc("whose weights, a key of `runs`")
    result: str = doc("the result it belongs to, a key of `evaluate`; one run gives several where matching differs")
    model: str = doc("that run's network; repeated here because DVC cannot look it up")
    dataset: str = doc("whose query and gallery, a key of `datasets`")
    visible_by: str = doc("what says which stripes show the body: `reads` again where the network says it itself; a "
                          "set's labels.h5 (joints) or other runs' weights (a mask) for SORN Table III's +P and +S")
    reads: str = doc("what embedding depends on beside weights and index: the images, dsap.h5 or parts.h5")
    batch: int = doc("images of a forward pass")
    dtype: str = doc("float32 | float16, numbers of the features file")
    match: MatchParams = doc("")


@dataclass(frozen=True)
class EvaluateParams:
    scale: str = doc("the scale it belongs to")
    features: tuple[str, ...] = doc("keys of `embed` it scores")


@dataclass(frozen=True)
class ReportParams:
    title: str = doc("heading of the page")
    pictures: str = doc("the cache whose images, maps and warps are shown")
    dataset: str = doc("that cache's data set; repeated here because DVC cannot look it up")
    images: str = doc("that data set's folder of images; likewise")
    parser: str = doc("the parser whose scores are shown, a key of `parsers`")


@dataclass(frozen=True)
class OwnRowParams:
    row: str = doc("its label, as in docs/papers/tables.csv")
    setting: str = doc("likewise; empty where the table has none")
    dataset: str = doc("likewise: the paper's data set")
    result: str = doc("the result that it is, a key of `evaluate`")
    data: str = doc("the data set that it is scored on, a key of `datasets`")
    full: bool = doc("it is the paper's full model, which the table's other rows are compared with")
    missing: str = doc("what is to be done before it can be made on this machine; empty where nothing")


@dataclass(frozen=True)
class TableParams:
    paper: str = doc("esa | sgsfa | sgam | dsa | sorn")
    table: str = doc("its number as the paper prints it, as in docs/papers/tables.csv")
    rows: dict[str, OwnRowParams] = doc("the paper's own rows on each of its data sets, numbered: DVC's lock file "
                                        "takes no long keys")
    reads: tuple[str, ...] = doc("these rows' result files, the last repeated up to sixteen: DVC takes no list here")


@dataclass(frozen=True)
class TablesPageParams:
    scale: str = doc("the scale whose tables it shows, all that lie in reports/tables")


@dataclass(frozen=True)
class SweepParams:
    paper: str = doc("whose sweep it is")
    figure: str = doc("the paper's figure")
    what: str = doc("what is swept")
    axis: str = doc("linear | log")
    dataset: str = doc("the data set of the results, a key of `datasets`")
    trained_on: str = doc("what its runs are trained on, a key of `datasets`")
    printed_on: tuple[str, ...] = doc("the data sets of the paper's figure in whose place `dataset` stands")
    best: tuple[float, ...] = doc("the value that the paper calls best; empty where it names none")
    values: tuple[float, ...] = doc("the values, in the order of the axis")
    results: tuple[str, ...] = doc("one a value, keys of `evaluate`")
    reads: tuple[str, ...] = doc("their metrics files, the last repeated up to nine: DVC takes no list here")


@dataclass(frozen=True)
class FigureParams:
    kind: str = doc("what is drawn: lists | patched_lists | aggregation | masks | entropy (docs/figures.md)")
    title: str = doc("the paper's figure whose place it takes")
    shows: tuple[str, ...] = doc("whose pictures, in drawing order: keys of `evaluate` for lists, of `runs` for maps")
    names: tuple[str, ...] = doc("what the figure calls each of them")
    count: int = doc("queries of each data set that are drawn")
    model: str = doc("the network of the last of them; repeated here because DVC cannot look it up")
    datasets: tuple[str, ...] = doc("the data sets of those queries; two places, one of which may repeat the other")
    images: tuple[str, ...] = doc("those data sets' folders of images; likewise")
    reads: tuple[str, ...] = doc("the rank lists or weights that are drawn; three places, the last repeated")


FIGURES = ("lists", "patched_lists", "aggregation", "masks", "entropy")


PLACES = {"table": 16, "sweep": 9, "figure": 3}  # files that a stage of dvc.yaml depends on: DVC takes no list for deps


def in_places(stage: str, files: Sequence[str]) -> list[str]:
    """The files in as many places as dvc.yaml has for them, the last repeated. InputError where they are more."""
    if len(files) > PLACES[stage]:
        raise InputError(f"stage {stage} takes {PLACES[stage]} files and not {len(files)}, the last {files[-1]!r}; "
                         "leave some out, or add places in dvc.yaml and pipeline/params.py")
    return [files[min(place, len(files) - 1)] for place in range(PLACES[stage])]


def figure_files(kind: str, shows: Sequence[str], *, scale: str, dataset: str) -> list[str]:
    """What a figure is drawn from beside index and images."""
    if kind.endswith("lists"):
        files = [f"ranks/{scale}/{key}.csv" for key in shows]
        files += [f"features/{shows[-1]}/{dataset}.h5"] * (kind == "patched_lists")
    else:
        files = [f"runs/{key}/weights.safetensors" for key in shows]
    return in_places("figure", files)


@dataclass(frozen=True)
class Params:
    scale: str = doc("default | ci | market | paper; stands in every key and path")
    device: str = doc("auto | cpu | cuda; auto takes a GPU where there is one")
    precision: str = doc("auto | float32; auto trains in bfloat16 where the device multiplies it natively")
    threads: int = doc("CPU threads of training; the last digits of a result depend on it")
    render: dict[str, RenderParams] = doc("the people renderer's sets")
    datasets: dict[str, DatasetParams] = doc("")
    occlude: dict[str, OccludeParams] = doc("data sets made by putting objects in front of another's queries")
    parsers: dict[str, ParserParams] = doc("trained on rendered people")
    photographs: dict[str, PhotographsParams] = doc("parsers trained on labelled photographs")
    caches: dict[str, CacheParams] = doc("parses by the pipeline's own parsers")
    external: dict[str, ExternalParams] = doc("parses by parsers from outside; caches likewise")
    warps: dict[str, WarpParams] = doc("")
    runs: dict[str, RunParams] = doc("")
    embed: dict[str, EmbedParams] = doc("")
    evaluate: dict[str, EvaluateParams] = doc("")
    report: dict[str, ReportParams] = doc("")
    tables: dict[str, TableParams] = doc("the papers' tables")
    tables_page: dict[str, TablesPageParams] = doc("one page with all of them")
    sweeps: dict[str, SweepParams] = doc("")
    figures: dict[str, FigureParams] = doc("")


def pick(section: dict[str, Any], key: str, name: str) -> Any:
    """`section[key]`, or an InputError that lists the choices; `name` is the section's name in params.yaml."""
    if key not in section:
        choices = ", ".join(section) or "none"
        raise InputError(f"{name} has no entry {key!r}; params.yaml has: {choices}")
    return section[key]
