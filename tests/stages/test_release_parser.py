"""The command that writes a parser's weights to give on: half the bytes, the same parser, and what it refuses."""

import json

import pytest
import torch
from safetensors import safe_open

from models.parsers.torchvision_parsers import build_parser, save_parser
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from stages.shared.parser_licences import licences_of, origin
from stages.tools.release_parser import run


@pytest.fixture
def parser():
    torch.manual_seed(0)
    return build_parser(architecture="lraspp-reduced", taxonomy="densepose24", uv=True, height=64, width=32,
                        to_parts8=torch.ones(8, 25), to_parts4=torch.ones(5, 25))


def provenance(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["semalign"])


@pytest.mark.parametrize(("made", "licences"), [
    ({}, {"rendered people": "Apache-2.0"}),
    ({"licences": {"photographs (ccp)": "Apache-2.0"}, "parameters": {"layout": "ccp"}},
     {"photographs (ccp)": "Apache-2.0"}),
])
def test_free_weights_are_written_with_where_they_come_from(parser, tmp_path, capsys, made, licences):
    source, target = tmp_path / "weights.safetensors", tmp_path / "given/parser.safetensors"
    save_parser(parser, source, made={**made, "images": 3})
    run(source, target)
    assert provenance(target) == provenance(source) | {"released_from_sha256": file_sha256(source),
                                                       "licences": licences}
    assert json.loads(capsys.readouterr().out)["bytes"] == target.stat().st_size < 4_000_000
    first = target.read_bytes()
    run(source, target)
    assert target.read_bytes() == first


@pytest.mark.parametrize(("made", "words"), [
    ({"licences": {"rendered people": "Apache-2.0", "photographs (lip)": "non-commercial research"}},
     r"learned from photographs \(lip\), whose terms are non-commercial research"),
    ({"parameters": {"layout": "lip"}}, "learned from photographs, whose terms are unknown"),
])
def test_weights_that_may_not_be_given_on_are_refused(parser, tmp_path, made, words):
    source, target = tmp_path / "weights.safetensors", tmp_path / "parser.safetensors"
    save_parser(parser, source, made=made)
    with pytest.raises(InputError, match=words) as caught:
        run(source, target)
    assert str(source) in str(caught.value) and "\n" not in str(caught.value) and not target.exists()


def test_other_files_and_weights_too_large_for_16_bits_are_refused(parser, tmp_path):
    source = tmp_path / "weights.safetensors"
    with pytest.raises(InputError, match="no such weights"):
        run(source, tmp_path / "out")
    source.write_bytes(b"none")
    with pytest.raises(InputError, match="is damaged or no safetensors file"):
        run(source, tmp_path / "out")
    with torch.no_grad():
        next(iter(parser.parameters())).fill_(1e6)
    save_parser(parser, source, made={})
    with pytest.raises(InputError, match="reaches 1e.06, and 16-bit floats end at 65504"):
        run(source, tmp_path / "out")


def test_a_start_hands_its_terms_down(parser, tmp_path):
    source = tmp_path / "start.safetensors"
    save_parser(parser, source, made={"licences": {"photographs (lip)": "non-commercial research"}})
    own = {"rendered people": "Apache-2.0"}
    assert origin("none", own) == {}
    assert origin("none", {"photographs (ccp)": "Apache-2.0"}) == {"licences": {"photographs (ccp)": "Apache-2.0"}}
    assert origin(str(source), own) == {"start_sha256": file_sha256(source),
                                        "licences": {"photographs (lip)": "non-commercial research", **own}}
    assert origin("imagenet", own)["licences"]["the start imagenet"] == "unknown"
    assert licences_of({}) == own
