"""Checkpoints that people have, as the tensors of a backbone here: names mapped, every tensor accounted for.

| whose | how it is known | what of it is left out on purpose |
|---|---|---|
| SOLIDER (Swin) | `patch_embed.projection.` | its semantic embedding, the norms of all maps but the last |
| Swin's authors | `layers.0.downsample.` | masks and indices, which are computed here |
| PersonViT, DINO | the `teacher`, under `backbone.` | the student, the heads |
| TransReID | under `base.`; `b1.` is the last block | cameras' vectors, heads, the branch of patches |
| CLIP, OpenCLIP | `visual.` or `class_embedding` | the text's tower, the projection into the space of both |
| LUPerson (ResNet) | under `encoder_q.`, or torchvision's names | MoCo's other encoder, its queue and heads |
| timm, torchvision | their own names | classifiers |
| this project | under `backbone.` | everything but the backbone, cameras' vectors |

A tensor that is none of these and has no place in the backbone is another architecture's; a transformer wants 95 % of
its own tensors and all that stand before and behind its blocks, a convolutional network all of them.

OpenAI's CLIP is known by three numbers beside its tensors. A file without them (`clip.load(.., jit=False)`'s) has
OpenCLIP's names, and nothing in it says which activation it was trained with: `architecture` has to.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

LEAST = 0.95  # of a transformer's tensors that a file has to have
BLOCKS = ("blocks.", "layers.")  # of a ViT, of a Swin: of these a few may be missing
State = dict[str, Tensor]

# Under what a backbone's tensors stand in larger networks, the outer first; what stands beside is left out.
PREFIXES = ("module.", "encoder_q.", "visual.", "image_encoder.", "backbone.", "base.", "trunk.", "network.")

BRANCH = "b1.0.norm1.weight"  # of a TransReID with two

LEFT_OUT = (  # of names that have no place in the backbone: why they are left out
    (r"semantic_embed_[wb]\.", "SOLIDER's semantic embedding"),
    (r"norm[012]\.", "SOLIDER's norms of maps that are not the last"),
    (r"sie_embed|cameras\.", "vectors of another set's cameras"),
    (r"(head|fc|fc_norm|head_dist|classifier|classifier_\d|bottleneck|bottleneck_\d|pre_logits)(\.|$)", "heads"),
    (r"gem\.", "PersonViT's pooling"),
    (r"proj$", "the projection into the space of images and texts"),
    (r".*(relative_position_index|attn_mask|num_batches_tracked)$", "buffers that are computed"),
    (r"(mask_token|masked_embed)", "the token of masked patches"))

CLIP_NAMES = (("transformer.resblocks.", "blocks."), (".ln_1.", ".norm1."), (".ln_2.", ".norm2."),
              (".attn.in_proj_", ".attn.qkv."), (".attn.out_proj.", ".attn.proj."), (".mlp.c_fc.", ".mlp.fc1."),
              (".mlp.c_proj.", ".mlp.fc2."), (".ls_1.", ".ls1."), (".ls_2.", ".ls2."), ("ln_pre.", "norm_pre."),
              ("ln_post.", "norm."), ("conv1.", "patch_embed.proj."), ("class_embedding", "cls_token"),
              ("positional_embedding", "pos_embed"))
SOLIDER_NAMES = (("stages.", "layers."), (".attn.w_msa.", ".attn."), (".ffn.layers.0.0.", ".mlp.fc1."),
                 (".ffn.layers.1.", ".mlp.fc2."), ("patch_embed.projection.", "patch_embed.proj."),
                 ("norm3.", "norm."))


@dataclass(frozen=True)
class Account:
    """What became of a file's tensors. kind: whose names were changed into the backbone's, "as published" where none
    had to be; taken: how many, `of` the backbone's; left_out: on purpose, reason -> how many; missing: the backbone's
    that it does not have, which keep their random start."""

    kind: str
    taken: int
    of: int
    left_out: dict[str, int]
    missing: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "taken": self.taken, "of": self.of, "left_out": self.left_out,
                "missing": list(self.missing)}


def fitted(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, architecture: str, source: str,
           least: float = LEAST, classifiers: tuple[str, ...] = (), grid: tuple[int, int] | None = None,
           published: tuple[int, int] | None = None, positions: int = 0) -> tuple[State, Account]:
    """The tensors of a file under the names of `expected`, the backbone's own, and the account of all of them.

    least: the share of the backbone's tensors that has to be there; classifiers: how names of published tensors begin
    that the backbone has no use for. grid: rows and columns of a ViT's patches, to which the positional embedding is
    resized; published: those that the architecture's own weights have; positions: those in it that are no patch's.
    ValueError in one sentence, naming the first of them, where tensors have no place, are missing, of other shapes or
    hold what is no number.
    """
    _check_activation(state, architecture, source)
    left_out: dict[str, int] = {}
    own = _without_branches(dict(state), left_out)
    own = _innermost(own, expected, left_out)
    kind, own = _renamed(own, expected)
    taken: State = {}
    unknown = []
    for name, value in own.items():
        reason = None if name in expected else _reason(name, classifiers)
        if name in expected:
            taken[name] = value
        elif reason is None:
            unknown.append(name)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1

    if grid is not None and "pos_embed" in taken and "pos_embed" in expected:
        taken["pos_embed"] = _positions(taken["pos_embed"], grid, published, positions, source)
    wanted = [name for name in expected if not name.endswith("num_batches_tracked")]  # old files have none
    missing = tuple(name for name in wanted if name not in taken)
    enough = len(wanted) - len(missing) >= least * len(wanted)
    needed = [name for name in missing if not name.startswith(BLOCKS)]
    remedy = f"name a file of {architecture} or change the backbone"
    if unknown or needed or not enough:
        missing = (*needed, *(name for name in missing if name not in needed))
        raise ValueError(f"{source}: does not fit {architecture}: {len(missing)} of its {len(expected)} tensors are "
                         f"missing (first: {missing[0] if missing else 'none'}) and {len(unknown)} are unknown (first: "
                         f"{unknown[0] if unknown else 'none'}); {remedy}")
    for name, value in taken.items():
        if value.shape != expected[name].shape:
            raise ValueError(f"{source}: does not fit {architecture}: {name} is {tuple(value.shape)}, expected "
                             f"{tuple(expected[name].shape)}; {remedy}")
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{source}: {name} holds {int((~value.isfinite()).sum())} values that are no numbers "
                             "(NaN, infinite); fetch the file again")
    return ({name: value.to(expected[name].dtype) for name, value in taken.items()},
            Account(kind, len(taken), len(expected), left_out, missing))


def take_checkpoint(network: nn.Module, state: Mapping[str, Tensor], **how: Any) -> Account:
    """Put a file's tensors into a backbone's network; how: as `fitted` has it."""
    taken, account = fitted(state, network.state_dict(), **how)
    network.load_state_dict(taken, strict=False)
    return account


def _check_activation(state: Mapping[str, Tensor], architecture: str, source: str) -> None:
    """ValueError for OpenAI's own CLIP in a network of another activation, which would compute something else."""
    if {"input_resolution", "context_length", "vocab_size"} <= state.keys() and "quickgelu" not in architecture:
        raise ValueError(f"{source}: is OpenAI's CLIP, whose activation is QuickGELU, and {architecture} has another; "
                         "take vit_base_patch16_clip_quickgelu_224 or its like")


def _without_branches(state: State, left_out: dict[str, int]) -> State:
    """TransReID with two branches (its jigsaw): what was trained as the last block and norm is `b1`, the branch of the
    whole image; the block and norm that both were copied from rest where they were. A training on several GPUs puts
    `module.` before all of them."""
    outer = next((name.removesuffix(BRANCH) for name in state if name.endswith(BRANCH)), None)
    if outer is None:
        return state
    base = re.compile(re.escape(f"{outer}base.blocks.") + r"(\d+)\.")
    last = max(int(found[1]) for name in state if (found := base.match(name)))
    copied = (f"{outer}base.blocks.{last}.", f"{outer}base.norm.")
    kept = {}
    for name, value in state.items():
        if name.startswith((f"{outer}b2.", *copied)):
            reason = "TransReID's branch of patches, and the block that its branches were copied from"
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            kept[name.replace(f"{outer}b1.0.", copied[0], 1).replace(f"{outer}b1.1.", copied[1], 1)
                 if name.startswith(f"{outer}b1.") else name] = value
    return kept


def _innermost(state: State, expected: Mapping[str, Tensor], left_out: dict[str, int]) -> State:
    """What stands under the prefixes by which larger networks hold a backbone, without them."""
    for prefix in PREFIXES:
        inner = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if inner and not any(name in expected for name in state):
            for name in state:
                if not name.startswith(prefix):
                    reason = f"beside {prefix.removesuffix('.')}: {name.split('.')[0]}"
                    left_out[reason] = left_out.get(reason, 0) + 1
            state = inner
    return state


def _renamed(state: State, expected: Mapping[str, Tensor]) -> tuple[str, State]:
    """(whose names they are, the tensors under timm's)."""
    if "class_embedding" in state:
        return "CLIP", {_replaced(name, CLIP_NAMES): _like_tokens(name, value) for name, value in state.items()}
    if "patch_embed.projection.weight" in state:
        return "SOLIDER", {_merged_name(_replaced(name, SOLIDER_NAMES)): _merged_order(name, value)
                           for name, value in state.items()}
    if "layers.0.downsample.reduction.weight" in state and "layers.0.downsample.reduction.weight" not in expected:
        return "Swin", {_merged_name(name): value for name, value in state.items()}
    return "as published", state


def _replaced(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for theirs, ours in pairs:
        if theirs.startswith(".") and theirs in name:
            name = name.replace(theirs, ours, 1)
        elif name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
    return name


def _like_tokens(name: str, value: Tensor) -> Tensor:
    """CLIP's class token (C,) and positions (N, C) as timm's (1, 1, C) and (1, N, C)."""
    if name == "class_embedding":
        return value.view(1, 1, -1)
    return value[None] if name == "positional_embedding" else value


def _merged_name(name: str) -> str:
    """A stage's merging ends it there and begins the next one in timm."""
    found = re.match(r"layers\.(\d+)\.downsample\.(.*)", name)
    return f"layers.{int(found[1]) + 1}.downsample.{found[2]}" if found else name


def _merged_order(name: str, value: Tensor) -> Tensor:
    """Columns of a merging's (.., 4 C): there C x (row, column) of a 2 x 2 patch, in timm (column, row) x C."""
    if ".downsample." not in name:
        return value
    places = value.unflatten(-1, (-1, 2, 2))  # (.., C, row, column)
    return places.movedim(-3, -1).transpose(-3, -2).flatten(-3)  # -> (.., column, row, C) -> (.., 4 C)


def _reason(name: str, classifiers: tuple[str, ...]) -> str | None:
    """Why a tensor without a place is left out on purpose; None where nothing says so."""
    if classifiers and name.startswith(classifiers):
        return "heads"
    return next((reason for pattern, reason in LEFT_OUT if re.match(pattern, name)), None)


def _positions(theirs: Tensor, grid: tuple[int, int], published: tuple[int, int] | None, unplaced: int,
               source: str) -> Tensor:
    """The positional embedding (1, unplaced + N, C) for a grid. Known are the grid that the architecture is published
    with, the very grid, squares and, of re-ID's networks, grids twice as high as wide. ValueError for others."""
    from timm.layers import resample_abs_pos_embed

    count = theirs.shape[1] - unplaced
    side, half = math.isqrt(count), math.isqrt(count // 2)
    if published is not None and count == math.prod(published):
        old = published
    elif count == math.prod(grid):  # before squares: 18 x 8 patches are 144, as 12 x 12 are
        return theirs
    elif side ** 2 == count:
        old = (side, side)
    elif 2 * half ** 2 == count:
        old = (2 * half, half)
    else:
        raise ValueError(f"{source}: has positions of {count} patches, and the crop has {grid[0]} x {grid[1]}; they "
                         "are resized from a square or a grid twice as high as wide: take that file's crop and stride")
    return resample_abs_pos_embed(theirs.float(), new_size=list(grid), old_size=list(old), num_prefix_tokens=unplaced)
