"""models/parsers/torchvision_parsers.py against naive arithmetic, and its files against damage."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from models.parsers.torchvision_parsers import ARCHITECTURES, build_parser, load_parser, save_parser
from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, LIP20_TO_PARTS4, PARTS8_TO_PARTS4

HEIGHT, WIDTH = 64, 32
TABLES = {"densepose24": PARTS8_TO_PARTS4[DENSEPOSE24_TO_PARTS8], "lip20": LIP20_TO_PARTS4}


def matrix(table: np.ndarray) -> torch.Tensor:
    return F.one_hot(torch.from_numpy(table.astype(np.int64))).T.float()


def parser_of(architecture="lraspp", taxonomy="densepose24", uv=True, **more):
    torch.manual_seed(0)
    return build_parser(**{
        "architecture": architecture, "taxonomy": taxonomy, "uv": uv, "height": HEIGHT, "width": WIDTH,
        "to_parts8": matrix(DENSEPOSE24_TO_PARTS8) if taxonomy == "densepose24" else None,
        "to_parts4": matrix(TABLES[taxonomy]), **more})


def pictures(count=3, height=HEIGHT, width=WIDTH):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8))


@pytest.fixture(scope="module")
def lively():
    """A parser whose labels vary over the picture: an untrained one sees one label everywhere."""
    parser = parser_of().train()
    optimizer = torch.optim.Adam(parser.parameters(), lr=3e-3)
    images = F.interpolate(torch.rand(4, 3, 4, 2), scale_factor=16, mode="bilinear").mul(255).to(torch.uint8)
    target = (images[:, 0].long() * 25 // 256).clamp(0, 24)

    for _ in range(30):
        logits, uv = parser(images)
        loss = F.cross_entropy(logits, target) + (uv - images[:, None, :2] / 200).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with torch.no_grad():
        parser.head.classifier.weight[:25] *= 4  # surer of itself than 30 steps make it
    return parser.eval(), images


def test_probabilities_sum_to_one_and_are_sums_of_the_native_ones(lively):
    parser, images = lively
    result = parser.parse(images)
    with torch.no_grad():
        logits, _ = parser.coarse(images)
    native = F.interpolate(logits, (HEIGHT, WIDTH), mode="bilinear").softmax(1)
    assert len(result["native"].unique()) > 5
    for name, table in (("parts8", DENSEPOSE24_TO_PARTS8), ("parts4", TABLES["densepose24"])):
        expected = torch.zeros_like(result[name])
        for label, part in enumerate(table):
            expected[:, part] += native[:, label]
        torch.testing.assert_close(result[name], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(result[name].sum(1), torch.ones(len(images), HEIGHT, WIDTH), atol=1e-5, rtol=0)


def test_native_is_the_best_label_of_the_best_part(lively):
    parser, images = lively
    result = parser.parse(images)
    with torch.no_grad():
        labels = F.interpolate(parser.coarse(images)[0], (HEIGHT, WIDTH), mode="bilinear").softmax(1).numpy()
    native, parts8 = result["native"].numpy(), result["parts8"].numpy()
    overruled = 0
    for image, row, column in np.ndindex(*native.shape):
        place = (image, slice(None), row, column)
        part = DENSEPOSE24_TO_PARTS8[native[image, row, column]]
        assert parts8[place][part] == parts8[place].max()
        best = labels[place][part == DENSEPOSE24_TO_PARTS8].max()
        assert labels[place][native[image, row, column]] >= best * (1 - 2**-17)
        overruled += best < labels[place].max()

    assert overruled > 0  # somewhere the most probable label of all belongs to another part


def test_uv_is_the_predicted_parts_pair(lively):
    parser, images = lively
    result = parser.parse(images)
    with torch.no_grad():
        maps = parser(images)[1].numpy()
    native, uv = result["native"].numpy(), result["uv"].numpy()
    expected = np.zeros_like(uv)
    for image, row, column in np.argwhere(native > 0):
        expected[image, row, column] = maps[image, native[image, row, column] - 1, :, row, column].clip(0, 1)
    assert (native > 0).any() and 0 < expected[native > 0].mean() < 1
    np.testing.assert_allclose(uv, expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_parser_comes_back_the_same(architecture, tmp_path):
    parser = parser_of(architecture).eval()
    for name in ("first", "second"):
        save_parser(parser, tmp_path / name, made={"data_sha256": "0", "parameters": {"seed": 0, "lr": 1e-3}})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    loaded = load_parser(tmp_path / "first")
    assert (loaded.taxonomy, loaded.height, loaded.width, loaded.training) == ("densepose24", HEIGHT, WIDTH, False)
    before, after = parser.to(memory_format=torch.channels_last).parse(pictures()), loaded.parse(pictures())
    assert before.keys() == after.keys() == {"native", "parts8", "parts4", "uv"}
    for name in before:
        assert torch.equal(before[name], after[name])


def test_lip20_gives_four_parts_only(tmp_path):
    parser = parser_of(taxonomy="lip20", uv=False).eval()
    save_parser(parser, tmp_path / "w", made={})
    result = load_parser(tmp_path / "w").parse(pictures())
    assert result.keys() == {"native", "parts4"}
    torch.testing.assert_close(result["parts4"].sum(1), torch.ones(3, HEIGHT, WIDTH), atol=1e-5, rtol=0)


def test_other_files_are_refused(tmp_path):
    parser = parser_of()
    good = tmp_path / "good.safetensors"
    save_parser(parser, good, made={})
    state = load_file(good)
    cases = {"absent": None, "empty": b"", "text": b"not weights at all", "cut": good.read_bytes()[:-1000]}
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)

    save_file(state, tmp_path / "unnamed")
    save_file(state, tmp_path / "run", metadata={"semalign": '{"run": "default-sorn"}'})
    save_file(state, tmp_path / "mistold", metadata={"semalign": '{"kind": "parser", "architecture": "deeplabv3", '
              '"labels": "densepose24", "uv": true, "height": 64, "width": 32}'})
    save_file(state, tmp_path / "silent", metadata={"semalign": '{"kind": "parser"}'})
    save_file({**state, "to_parts4": torch.zeros(5, 20)}, tmp_path / "matrix",
              metadata={"semalign": '{"kind": "parser", "architecture": "lraspp", "labels": "densepose24", '
                        '"uv": true, "height": 64, "width": 32}'})

    for name in (*cases, "unnamed", "run", "mistold", "silent", "matrix"):
        with pytest.raises(ValueError, match=rf"{name}: .*(make|name)") as caught:
            load_parser(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_what_cannot_be_built_is_refused():
    for change, words in (({"architecture": "unet"}, "lraspp, lraspp-reduced, deeplabv3"),
                          ({"taxonomy": "lip20", "uv": True}, "u,v"),
                          ({"init": "/nowhere.pth"}, "/nowhere.pth")):
        with pytest.raises(ValueError, match=words):
            parser_of(**change)
    with pytest.raises(ValueError, match=r"32x32.*64x32"):
        parser_of().parse(pictures(height=32))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_init_takes_a_backbone_from_a_classifier_or_refuses_it(ending, tmp_path):
    from torchvision.models import mobilenet_v3_large, mobilenet_v3_small
    torch.manual_seed(1)
    path = str(tmp_path / f"backbone.{ending}")
    write = torch.save if ending == "pth" else save_file
    network = mobilenet_v3_large(weights=None)
    write(network.state_dict(), path)
    parser = parser_of(init=path)
    assert torch.equal(parser.backbone["16"][0].weight, network.features[16][0].weight)
    write(mobilenet_v3_small(weights=None).state_dict(), path)
    with pytest.raises(ValueError, match=r"backbone\..*holds no backbone of lraspp"):
        parser_of(init=path)


def test_a_parser_starts_from_a_finished_one_of_its_kind(tmp_path):
    path = tmp_path / "start.safetensors"
    start = parser_of("lraspp-reduced")
    with torch.no_grad():
        for value in start.parameters():
            value.add_(0.01)
    save_parser(start, path, made={})
    torch.manual_seed(5)
    found = build_parser(architecture="lraspp-reduced", taxonomy="densepose24", uv=True, height=2 * HEIGHT, width=WIDTH,
                         to_parts8=start.to_parts8, to_parts4=start.to_parts4, init=str(path))
    assert (found.height, found.width) == (2 * HEIGHT, WIDTH)
    assert all(torch.equal(found.state_dict()[name], value) for name, value in start.state_dict().items())
    for changes, words in ((("lraspp",), "lraspp-reduced for densepose24 with u,v, and this one lraspp for"),
                           (("lraspp-reduced", "lip20", False), "and this one lraspp-reduced for lip20 without u,v"),
                           (("lraspp-reduced", "densepose24", False), "and this one .* without u,v")):
        with pytest.raises(ValueError, match=words) as caught:
            parser_of(*changes, init=str(path))
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_reduced_network_is_the_paper_s_and_small():
    """Howard et al. 2019, Section 6.4: the last stage has half the channels; and 4 MB hold its weights in 16 bits."""
    parser = parser_of("lraspp-reduced")
    widths = [block.out_channels for block in list(parser.backbone.values())]
    assert widths == [16, 16, 24, 24, 40, 40, 40, 80, 80, 80, 80, 112, 112, 80, 80, 80, 480]
    assert sum(value.numel() for value in parser.state_dict().values()) * 2 < 3_900_000
    logits, uv = parser.coarse(pictures())
    assert logits.shape == (3, 25, HEIGHT // 4, WIDTH // 4) and uv.shape == (3, 24, 2, HEIGHT // 4, WIDTH // 4)
    with pytest.raises(ValueError, match="torchvision has no such weights of lraspp-reduced"):
        parser_of("lraspp-reduced", init="imagenet")
