"""Parameters of the networks, a class per file of models/: what its constructor takes, and what it says it needs.

`matchable` are the `features` that may be matched; `cache_file` the cache that it reads beside the images, in training
(features None) or with `features` at test time; `arrays` what a batch holds of that cache, and `uniform` where training
leaves something to chance.
"""

from dataclasses import dataclass

from pipeline.config.fields import count, doc, share


@dataclass(frozen=True)
class BaselineParams:
    """A backbone's pooled feature, identity loss and batch-hard triplet."""

    name: str = doc("the network: models/<name>.py")
    label_smoothing: float = share("epsilon of the identity loss; 0 is off")
    id_weight: float = doc("weight of the identity loss", low=0)
    triplet_weight: float = doc("weight of the triplet loss", low=0)
    margin: float = doc("triplet margin", low=0)
    normalise: bool = doc("the triplet loss compares features at length 1 (ESA's baseline)")
    neck: str = doc("bn: a BN between the feature and what classifies and matches (BNNeck)", choices=("none", "bn"),
                    neutral="none")
    pool: str = doc("the feature: the mean of the last map, or a ViT's class token", choices=("mean", "token"),
                    neutral="mean")

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
    recrop: str = doc("what is cropped: the whole image's maps too, or the image, which is parsed again (Fig. 4)",
                      choices=("maps", "parse"), neutral="maps")

    def matchable(self) -> tuple[str, ...]:
        return ("all", "unmasked", "global", "local")

    def cache_file(self, features: str | None) -> str | None:
        if self.recrop == "parse":
            return "crops.h5"
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
